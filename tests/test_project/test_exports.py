"""The packages' lazy exports: every name leads somewhere, and where type checkers are told it does."""

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("package", ["flowcore", "flowruntime"])
def test_every_exported_name_can_be_imported(package: str) -> None:
    module = importlib.import_module(package)
    for name in module.__all__:
        assert getattr(module, name) is not None
    assert set(module.__all__) <= set(dir(module))


@pytest.mark.parametrize("package", ["flowcore", "flowruntime"])
def test_what_type_checkers_see_is_what_a_program_gets(package: str) -> None:
    module = importlib.import_module(package)
    text = (ROOT / package / "__init__.py").read_text(encoding="utf-8")
    seen: dict[str, str] = {}
    for home, names in re.findall(
        rf"^ +from ({package}\.[\w.]+) import \(?([\w\s,]+)\)?$", text, re.MULTILINE
    ):
        seen |= dict.fromkeys(re.findall(r"\w+", names), home)
    assert seen == module._HOME


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'Workflo'"):
        _ = importlib.import_module("flowcore").Workflo
