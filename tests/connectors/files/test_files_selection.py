"""Which files a path means: nothing twice, nothing from outside, nothing left out in silence."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from connectors.files.selection import Matched, Selection
from flowcore.errors import PathRefusedError, SourceError
from flowruntime.execute.paths import PathGuard


def look(path: object, *, any_extension: bool = False, follow: bool = False) -> Matched:
    selection = Selection(str(path), any_extension=any_extension, follow=follow)
    return selection.look(PathGuard().allowed)


def names(found: Matched, folder: Path) -> list[str]:
    return [os.path.relpath(path, folder) for path in found.paths]


def make(folder: Path, *paths: str) -> None:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).touch()


def test_files_come_in_the_order_of_their_names(tmp_path: Path) -> None:
    make(tmp_path, "b.jsonl", "a10.jsonl", "a2.jsonl", "Z.jsonl", "ä.jsonl")
    expected = ["Z.jsonl", "a10.jsonl", "a2.jsonl", "b.jsonl", "ä.jsonl"]
    assert names(look(tmp_path), tmp_path) == expected
    assert names(look(tmp_path / "*.jsonl"), tmp_path) == expected


def test_a_folder_does_not_descend_and_a_pattern_does_where_it_says_so(tmp_path: Path) -> None:
    make(tmp_path, "a.jsonl", "x/b.jsonl", "x/y/c.jsonl", ".hidden/d.jsonl", "x/.e.jsonl")
    assert names(look(tmp_path), tmp_path) == ["a.jsonl"]
    assert names(look(tmp_path / "*" / "*.jsonl"), tmp_path) == ["x/b.jsonl"]
    assert names(look(tmp_path / "**" / "*.jsonl"), tmp_path) == ["a.jsonl", "x/b.jsonl", "x/y/c.jsonl"]
    assert names(look(tmp_path / "**"), tmp_path) == ["a.jsonl", "x/b.jsonl", "x/y/c.jsonl"]
    assert names(look(tmp_path / "*" / "y" / "c.jsonl"), tmp_path) == ["x/y/c.jsonl"]
    assert names(look(tmp_path / ".hidden" / "*"), tmp_path) == [".hidden/d.jsonl"]
    assert names(look(tmp_path / "x" / ".*"), tmp_path) == ["x/.e.jsonl"]


def test_links_in_a_circle_bring_nothing_twice_and_are_no_error(tmp_path: Path) -> None:
    make(tmp_path, "x/a.jsonl")
    (tmp_path / "x" / "back").symlink_to(tmp_path)
    (tmp_path / "x" / "self.jsonl").symlink_to(tmp_path / "x" / "self.jsonl")
    (tmp_path / "again").symlink_to(tmp_path / "x")
    found = Selection(f"{tmp_path}/**/*.jsonl", any_extension=False, follow=False).look(os.path.realpath)
    assert len(found.paths) == 1
    assert found.paths[0].endswith("a.jsonl")


def test_a_link_to_a_file_that_is_read_anyway_is_left_out_and_told(tmp_path: Path) -> None:
    """`latest` is a common one; its rows would come twice."""
    make(tmp_path, "2026-01-02.jsonl")
    (tmp_path / "0-latest.jsonl").symlink_to(tmp_path / "2026-01-02.jsonl")
    found = look(tmp_path)
    assert names(found, tmp_path) == ["2026-01-02.jsonl"]
    assert "1 files are not read" in found.left_out[0]
    assert "0-latest.jsonl" in found.left_out[0]


def test_what_is_left_out_of_a_folder_is_told_once(tmp_path: Path) -> None:
    make(tmp_path, "a.jsonl", "b.json", *(f"n{number}.pdf" for number in range(9)))
    (tmp_path / "gone.jsonl").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe.jsonl")
    selection = Selection(str(tmp_path), any_extension=False, follow=False)
    found = selection.look(PathGuard().allowed)
    assert names(found, tmp_path) == ["a.jsonl"]
    unknown, irregular = found.left_out
    assert "10 files are not read ('b.json', 'n0.pdf'" in unknown
    assert "set format" in unknown
    assert "2 files are not read" in irregular
    assert selection.look(PathGuard().allowed).left_out == []
    everything = look(tmp_path, any_extension=True)
    assert len(everything.paths) == 11


@pytest.mark.parametrize("pattern", ["", "*.jsonl", "**/*.jsonl"])
def test_a_link_out_of_the_roots_is_refused_wherever_it_is_found(tmp_path: Path, pattern: str) -> None:
    make(tmp_path, "in/a.jsonl", "out/secret.jsonl")
    (tmp_path / "in" / "b.jsonl").symlink_to(tmp_path / "out" / "secret.jsonl")
    guard = PathGuard([str(tmp_path / "in")])
    selection = Selection(f"{tmp_path}/in/{pattern}", any_extension=False, follow=False)
    with pytest.raises(PathRefusedError, match="outside the allowed roots"):
        selection.look(guard.allowed)


def test_a_circle_of_links_is_a_refused_path(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(PathRefusedError, match="links that lead in a circle"):
        PathGuard().allowed(str(tmp_path / "a"))


@pytest.mark.parametrize("path", ["", "*/*.jsonl", "**/*.jsonl"])
def test_a_folder_that_cannot_be_looked_into_is_an_error_and_not_an_empty_one(
    tmp_path: Path, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system's answer is put in its place: whoever runs the tests may be allowed everything."""
    make(tmp_path, "x/a.jsonl")
    closed = str(tmp_path if not path else tmp_path / "x")
    scandir = os.scandir

    def refusing(folder: str) -> object:
        if folder == closed:
            raise PermissionError(errno.EACCES, "Permission denied", folder)
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(SourceError, match=r"cannot look into the folder .*Permission denied"):
        look(f"{tmp_path}/{path}")


def test_a_deep_tree_is_gone_through_and_a_bottomless_one_is_an_error(tmp_path: Path) -> None:
    make(tmp_path, "/".join(["d"] * 60) + "/a.jsonl")
    assert len(look(tmp_path / "**" / "*.jsonl").paths) == 1
    make(tmp_path, "/".join(["d"] * 70) + "/b.jsonl")
    with pytest.raises(SourceError, match="64 folders deep"):
        look(tmp_path / "**" / "*.jsonl")
