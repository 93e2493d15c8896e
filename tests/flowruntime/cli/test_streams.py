"""Standard output that is closed, full, read by nobody, or cannot encode what is printed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest

BROKEN = "name: w\nnodes: {a: debug.tpa}\n"
COMMANDS = ["version", "plan w.yaml", "run w.yaml"]


@pytest.fixture(name="folder")
def _folder(tmp_path: Path) -> Path:
    (tmp_path / "in.jsonl").write_text('{"id": 1, "name": "größe 日本 😀"}\n', encoding="utf-8")
    (tmp_path / "w.yaml").write_text(
        'name: "größe"\nnodes:\n  src: {type: files.source, config: {path: in.jsonl}}\n'
        "  out: {type: memory.sink}\nconnections: [src -> out]\n",
        encoding="utf-8",
    )
    (tmp_path / "broken.yaml").write_text(BROKEN)
    return tmp_path


def flow(
    folder: Path,
    arguments: str,
    *,
    buffered: bool = True,
    encoding: str = "utf-8",
    stdout: int | IO[str] = subprocess.PIPE,
) -> subprocess.CompletedProcess[str]:
    """`flow` in a process of its own."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "" if buffered else "1", "PYTHONIOENCODING": encoding}
    return subprocess.run(
        [sys.executable, "-m", "flowruntime.cli.main", *arguments.split()],
        cwd=folder,
        env=environment,
        encoding="utf-8",
        errors="replace",
        check=False,
        stdout=stdout,
        stderr=subprocess.PIPE,
    )


@pytest.mark.parametrize("buffered", [True, False])
@pytest.mark.parametrize("arguments", COMMANDS)
def test_a_full_disk_is_one_line_and_exit_1(folder: Path, arguments: str, *, buffered: bool) -> None:
    """Python itself would end with 120 and a traceback when it flushes at exit."""
    with Path("/dev/full").open("w") as full:
        ran = flow(folder, arguments, buffered=buffered, stdout=full)
    assert ran.returncode == 1
    assert "cannot write to standard output: No space left on device" in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize("buffered", [True, False])
@pytest.mark.parametrize("arguments", COMMANDS)
def test_a_reader_that_has_gone_is_told_nothing(folder: Path, arguments: str, *, buffered: bool) -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    ran = flow(folder, arguments, buffered=buffered, stdout=theirs)
    os.close(theirs)
    assert ran.returncode == 1
    assert "Traceback" not in ran.stderr
    assert "standard output" not in ran.stderr


@pytest.mark.parametrize("arguments", COMMANDS)
def test_a_closed_standard_output_is_nobody_who_listens(folder: Path, arguments: str) -> None:
    command = f"exec {sys.executable} -m flowruntime.cli.main {arguments} >&-"
    ran = subprocess.run(
        ["/bin/sh", "-c", command], cwd=folder, stderr=subprocess.PIPE, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize("redirect", ["2>&-", "2>/dev/full"])
@pytest.mark.parametrize(("arguments", "code"), [("nope", 2), ("run nowhere.yaml", 2), ("run w.yaml", 0)])
def test_a_standard_error_nobody_can_read_changes_no_exit_code(
    folder: Path, arguments: str, redirect: str, code: int
) -> None:
    command = f"exec {sys.executable} -m flowruntime.cli.main {arguments} {redirect}"
    ran = subprocess.run(
        ["/bin/sh", "-c", command], cwd=folder, stdout=subprocess.PIPE, text=True, check=False
    )
    assert ran.returncode == code
    assert "nope" not in ran.stdout


@pytest.mark.parametrize("encoding", ["ascii:strict", "latin-1:strict"])
@pytest.mark.parametrize("arguments", ["validate w.yaml", "validate broken.yaml"])
def test_text_that_cannot_be_encoded_is_escaped(folder: Path, arguments: str, encoding: str) -> None:
    ran = flow(folder, arguments, encoding=encoding)
    assert ran.returncode == (2 if "broken" in arguments else 0), ran.stderr
    assert ran.stderr == ""


@pytest.mark.parametrize("encoding", ["ascii:strict", "utf-8:strict"])
def test_json_stays_json_whatever_the_encoding(folder: Path, encoding: str) -> None:
    record = '{"name": "größe 日本 😀"}'
    (folder / "one.json").write_text(record, encoding="utf-8")
    command = [sys.executable, "-m", "flowruntime.cli.main", "run", "w.yaml", "--input", "@one.json"]
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    ran = subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=False)
    assert ran.returncode == 0, ran.stderr
    answer = json.loads(ran.stdout.decode(encoding.partition(":")[0]))
    assert answer["captured"]["out"] == [json.loads(record)]


def test_a_file_name_that_is_no_unicode_is_shown_escaped(folder: Path) -> None:
    name = b"w\xff.yaml"
    Path(os.fsdecode(bytes(folder) + b"/" + name)).write_text(BROKEN)
    command = [sys.executable, "-m", "flowruntime.cli.main", "validate", os.fsdecode(name)]
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}
    ran = subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=False)
    assert ran.returncode == 2
    assert ran.stdout.startswith(rb"w\udcff.yaml:2: nodes.a.type: unknown node type")
