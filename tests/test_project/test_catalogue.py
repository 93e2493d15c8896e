"""scripts/catalogue.py: every installed type has its entry: what goes in, out, and what can be configured."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from flowruntime.registry import Registry

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(name="catalogue")
def _catalogue() -> ModuleType:
    spec = importlib.util.spec_from_file_location("catalogue", ROOT / "scripts" / "catalogue.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_has_every_type(catalogue: ModuleType, tmp_path: Path) -> None:
    target = tmp_path / "reference" / "nodes.md"
    assert catalogue.main([str(target)]) == 0
    headings = [
        line[4:] for line in target.read_text(encoding="utf-8").splitlines() if line.startswith("### ")
    ]
    assert sorted(headings) == sorted(Registry().types())


def test_an_entry_says_ports_configuration_and_policies(catalogue: ModuleType) -> None:
    metadata = Registry().factory("embedding.embed").metadata()
    text = "\n\n".join(catalogue.entry(metadata))
    assert text.startswith("### embedding.embed\n\nMap, waits. A vector for each text")
    assert "| `texts` | `Sequence[str]` |  |" in text
    assert '| `provider` | string | `"local"` |' in text
    assert "`batch: {" in text


def test_a_bar_in_a_type_does_not_break_its_table(catalogue: ModuleType) -> None:
    metadata = Registry().factory("transform.json_parse").metadata()
    assert r"`str \| bytes \| Json`" in "\n".join(catalogue.entry(metadata))
