"""Paths connectors may touch: below the roots, after links are followed."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowcore.errors import PathRefusedError
from flowruntime.execute.paths import PathGuard


def test_a_path_below_a_root_is_made_absolute(tmp_path: Path) -> None:
    guard = PathGuard((str(tmp_path),), base=str(tmp_path))
    assert guard.allowed("a/../b.txt") == str(tmp_path / "b.txt")
    assert guard.allowed(str(tmp_path)) == str(tmp_path)


def test_without_roots_any_path_is_allowed(tmp_path: Path) -> None:
    assert PathGuard(base=str(tmp_path)).allowed("x") == str(tmp_path / "x")
    assert PathGuard().allowed("/etc/hosts") == "/etc/hosts"


@pytest.mark.parametrize("path", ["../outside", "a/../../outside", "/etc/hosts", "{root}2/x"])
def test_a_path_outside_every_root_is_refused(tmp_path: Path, path: str) -> None:
    root = tmp_path / "data"
    (tmp_path / "data2").mkdir()
    guard = PathGuard((str(root),), base=str(root))
    with pytest.raises(PathRefusedError, match="outside the allowed roots"):
        guard.allowed(path.format(root=root))


def test_a_link_that_leads_out_of_its_root_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "data"
    root.mkdir()
    (root / "link").symlink_to("/etc")
    with pytest.raises(PathRefusedError, match="is '/etc/hosts', outside"):
        PathGuard((str(root),), base=str(root)).allowed("link/hosts")


def test_a_root_that_is_a_link_allows_what_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    guard = PathGuard((str(tmp_path / "link"),), base=str(tmp_path))
    assert guard.allowed("link/x") == str(tmp_path / "real" / "x")


def test_a_nul_byte_is_refused() -> None:
    with pytest.raises(PathRefusedError, match="NUL"):
        PathGuard().allowed("a\0b")
