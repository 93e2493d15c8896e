"""The documents are true: blocks run and print what is written, workflows validate, links lead somewhere."""

import re
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT, Reader, blocks_of, links_of

_BY_HAND = (page for page in (ROOT / "docs").rglob("*.md") if "reference" not in page.relative_to(ROOT).parts)
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(_BY_HAND)]


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.timeout(240)  # a page may have twenty commands, each a process, on a machine with other work
@pytest.mark.parametrize("page", [page for page in PAGES if next(blocks_of(page), None)], ids=_name)
def test_whoever_does_what_a_page_says_sees_what_it_says(page: Path, tmp_path: Path) -> None:
    reader = Reader(page, tmp_path)
    for block in blocks_of(page):
        reader.do(block)


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_every_link_inside_the_repository_leads_to_a_file(page: Path) -> None:
    generated = ROOT / "docs" / "reference"
    broken = [
        link
        for link in links_of(page)
        if not (page.parent / link).exists() and generated not in (page.parent / link).resolve().parents
    ]
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_lines_of_text_fit_a_screen(page: Path) -> None:
    """140 columns; tables, links and pictures are as wide as they are."""
    inside = False
    too_long: list[int] = []
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        inside ^= line.startswith("```")
        if len(line) > 140 and not inside and not line.startswith(("|", "[", "!")):
            too_long.append(number)
    assert too_long == []


def test_files_and_functions_named_in_the_architecture_exist() -> None:
    page = (ROOT / "docs" / "ARCHITECTURE.md").read_text(encoding="utf-8")
    text = re.sub(r"^```.*?^```$", "", page, flags=re.DOTALL | re.MULTILINE)
    names = set(re.findall(r"`([^`\s]+)`", text))
    paths = {name for name in names if "/" in name and not re.search(r"[A-Z]{4}", name)}
    rooms = (ROOT, ROOT / "flowruntime", ROOT / "flowruntime" / "compile")
    assert sorted(path for path in paths if not any(list(room.glob(path)) for room in rooms)) == []
    sources = [
        path.read_text(encoding="utf-8")
        for package in ("flowcore", "flowruntime")
        for path in (ROOT / package).rglob("*.py")
    ]
    called = {name.removesuffix("()").rpartition(".")[2] for name in names if name.endswith("()")}
    defined = {name for source in sources for name in re.findall(r"def (\w+)\(", source)}
    assert called - defined == set()


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_links_to_a_heading_lead_to_one(page: Path) -> None:
    broken: list[str] = []
    for target in re.findall(r"\]\(([^)\s:]*#[^)\s]+)\)", page.read_text(encoding="utf-8")):
        file, _, anchor = target.partition("#")
        there = (page.parent / file) if file else page
        headings = re.findall(r"^#+ (.*)$", there.read_text(encoding="utf-8"), re.MULTILINE)
        anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
        if anchor not in anchors:
            broken.append(target)
    assert broken == []
