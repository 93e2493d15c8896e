"""Where a secret is looked for: a name of a workflow file leads to no file the operator did not mean."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowcore.errors import SecretNotFoundError
from flowcore.values import Secret
from flowruntime.execute.secrets import MAX_SECRET_BYTES, SecretStore


def store(folder: Path, environ: dict[str, str] | None = None, **given: str) -> SecretStore:
    return SecretStore(given, environ=environ or {}, folder=str(folder / "secrets"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "KEY").write_text("in the folder\n", encoding="utf-8")
    (tmp_path / "private").write_text("of somebody else", encoding="utf-8")
    return tmp_path


def test_what_is_given_wins_then_the_environment_then_its_file_then_the_folder(folder: Path) -> None:
    named = {"KEY_FILE": str(folder / "private")}
    assert store(folder, {"KEY": "set", **named}, KEY="given").resolve("KEY") == Secret("given")
    assert store(folder, {"KEY": "set", **named}).resolve("KEY") == Secret("set")
    assert store(folder, named).resolve("KEY") == Secret("of somebody else")
    assert store(folder).resolve("KEY") == Secret("in the folder")


def test_every_secret_handed_out_is_told_to_who_masks_it(folder: Path) -> None:
    seen: list[Secret] = []
    SecretStore({}, environ={}, folder=str(folder / "secrets"), seen=seen.append).resolve("KEY")
    assert seen == [Secret("in the folder")]
    assert "folder" not in f"{seen[0]} {seen[0]!r} {seen}"


@pytest.mark.parametrize(
    "name", ["../private", "{folder}/private", ".", "..", "sub/KEY", "KEY\0", "x" * 5_000]
)
def test_a_name_that_is_a_path_leads_to_no_file(folder: Path, name: str) -> None:
    """`{$secret: /etc/passwd}` would hand the files of the host to whoever wrote the workflow."""
    (folder / "secrets" / "sub").mkdir()
    (folder / "secrets" / "sub" / "KEY").write_text("below", encoding="utf-8")
    with pytest.raises(SecretNotFoundError):
        store(folder).resolve(name.format(folder=folder))


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"\xff", "not UTF-8"), (b"x" * (MAX_SECRET_BYTES + 1), "more than 1048576 bytes")],
)
def test_a_file_that_cannot_be_a_secret_is_an_error_that_does_not_hold_it(
    folder: Path, content: bytes, reason: str
) -> None:
    (folder / "secrets" / "KEY").write_bytes(content)
    with pytest.raises(SecretNotFoundError, match=reason) as caught:
        store(folder).resolve("KEY")
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_a_secret_that_is_nowhere_is_told_with_all_places(folder: Path) -> None:
    with pytest.raises(SecretNotFoundError, match=r"variable NO, or NO_FILE .*secrets/NO") as caught:
        store(folder, {"NO_FILE": str(folder / "absent")}).resolve("NO")
    assert caught.value.facts()["name"] == "NO"
