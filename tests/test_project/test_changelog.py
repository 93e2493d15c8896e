"""scripts/changelog.py: the form of fragments, and a release that loses none."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(name="changelog")
def _changelog() -> ModuleType:
    spec = importlib.util.spec_from_file_location("changelog", ROOT / "scripts" / "changelog.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(name="project")
def _project(tmp_path: Path) -> Path:
    (tmp_path / "changelog.d").mkdir()
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n<!-- releases -->\n", encoding="utf-8")
    return tmp_path


def test_the_fragments_of_this_checkout_are_in_form(changelog: ModuleType) -> None:
    assert changelog.problems(ROOT / "changelog.d") == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("Bad Name.added.md", "It works."),
        ("slug.improved.md", "It works."),
        ("slug.added.txt", "It works."),
        ("slug.added.md", ""),
        ("slug.added.md", "It works"),
        ("slug.added.md", "It works.\nAnd more."),
    ],
)
def test_a_fragment_out_of_form_is_named(changelog: ModuleType, project: Path, name: str, text: str) -> None:
    (project / "changelog.d" / name).write_text(text, encoding="utf-8")
    (problem,) = changelog.problems(project / "changelog.d")
    assert problem.startswith(name)


def test_a_release_moves_every_fragment_under_its_kind(changelog: ModuleType, project: Path) -> None:
    folder = project / "changelog.d"
    (folder / "two.fixed.md").write_text("No row is lost.\n", encoding="utf-8")
    (folder / "one.added.md").write_text("A node is there.\n", encoding="utf-8")
    changelog.release(project, "0.1.0", "2026-11-21")
    assert (project / "CHANGELOG.md").read_text(encoding="utf-8") == (
        "# Changelog\n\n<!-- releases -->\n\n## 0.1.0 (2026-11-21)\n\n"
        "### Added\n\n- A node is there.\n\n### Fixed\n\n- No row is lost.\n\n"
    )
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("version", ["0.1", "v0.1.0", "0.1.0"])
def test_a_release_that_cannot_be_made_writes_nothing(
    changelog: ModuleType, project: Path, version: str
) -> None:
    (project / "changelog.d" / "one.added.md").write_text("A node is there.", encoding="utf-8")
    path = project / "CHANGELOG.md"
    path.write_text(path.read_text(encoding="utf-8") + "\n## 0.1.0 (2026-11-20)\n", encoding="utf-8")
    before = path.read_text(encoding="utf-8")
    with pytest.raises(changelog.ChangelogError):
        changelog.release(project, version, "2026-11-21")
    assert path.read_text(encoding="utf-8") == before
    assert (project / "changelog.d" / "one.added.md").exists()
