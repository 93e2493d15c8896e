"""Code blocks of the documents, and what is done with each.

Owns: reading Markdown, running the blocks of a page, comparing what is printed with what is written.
Does not own: which documents are read (test_examples).

    ```python            executed, in order, in one namespace per page
    ```output            what the block before it prints
    ```yaml              a whole workflow, validated with the nodes of the page; `invalid`: it is refused
    ```console           what stands after `$ ` is run in the page's folder, the rest is what it prints
    ```LANGUAGE title=NAME   also written to the file NAME of the page's folder

`...` in what is printed stands for anything. Above a block, `<!-- file PATH -->` says that the block is that
file, `<!-- $ COMMAND -->` that it is what the command prints. Other languages are for reading only.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from flowcore.errors import ValidationFailedError
from flowruntime.compile.lower import lower
from flowruntime.compile.validate import validate
from flowruntime.definition.load import load_workflow
from flowruntime.discovery import definition_of
from flowruntime.registry import Registry

ROOT = Path(__file__).resolve().parents[2]
_BLOCK = re.compile(
    r"^(?:<!-- (?P<note>(?:file|\$) [^\n]*?) -->\n+)?```(?P<info>[^\n`]+)\n(?P<text>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)


BYTECODE = Path(tempfile.gettempdir()) / "flowrx-docs-bytecode"
"""Where the commands of all pages keep what they compiled; a page's folder stays as a reader has it."""


@dataclass(frozen=True)
class Block:
    """One fenced block."""

    line: int
    language: str
    words: tuple[str, ...]
    text: str
    note: str

    @property
    def title(self) -> str | None:
        """The file it is written to."""
        return next((word[6:] for word in self.words if word.startswith("title=")), None)


def blocks_of(page: Path) -> Iterator[Block]:
    """The blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    for found in _BLOCK.finditer(text):
        language, *words = found["info"].split()
        line = text.count("\n", 0, found.start("info")) + 1
        yield Block(line, language, tuple(words), found["text"], found["note"] or "")


def links_of(page: Path) -> Iterator[str]:
    """Relative links of a page, without the part after `#`."""
    text = _BLOCK.sub("", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" not in target and not target.startswith(("#", "mailto:")):
            yield target.partition("#")[0]


class Reader:
    """Someone who does what a page says, from top to bottom, in an empty folder beside `examples`."""

    def __init__(self, page: Path, folder: Path) -> None:
        self._page = page
        self._folder = folder
        (folder / "examples").symlink_to(ROOT / "examples")
        name = f"page_{page.stem.lower().replace('-', '_')}"
        self._module = sys.modules[name] = ModuleType(name)
        self._printed = ""

    def do(self, block: Block) -> None:
        """Do what the block asks for.

        Raises:
            AssertionError: something else comes of it than is written.
        """
        where = f"{self._page.relative_to(ROOT)}:{block.line}"
        if block.note.startswith("file "):
            assert block.text == (ROOT / block.note[5:]).read_text(encoding="utf-8"), (
                f"{where}: is not that file"
            )
        elif block.note.startswith("$ "):
            _compare(where, block.text, self._run(block.note[2:]))
        if block.title is not None:
            path = self._folder / block.title
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text, encoding="utf-8")
        match block.language:
            case "python":
                self._execute(block, where)
            case "output":
                _compare(where, block.text, self._printed)
            case "yaml":
                self._validate(block, where)
            case "console":
                for command, expected in _commands(block.text):
                    _compare(f"{where}: {command}", expected, self._run(command))
            case _:
                pass

    def _execute(self, block: Block, where: str) -> None:
        code = compile("\n" * block.line + block.text, where, "exec", dont_inherit=True)
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.chdir(self._folder):
            exec(code, self._module.__dict__)  # noqa: S102 - what the page tells its reader to run
        self._printed = printed.getvalue()

    def _validate(self, block: Block, where: str) -> None:
        types = [thing for thing in vars(self._module).values() if definition_of(thing) is not None]
        refused = ""
        source = block.text if block.title is None else self._folder / block.title
        try:
            with contextlib.chdir(self._folder):
                graph = validate(load_workflow(source, bind=True), Registry(types))
                lower(graph, mode="stream")
        except ValidationFailedError as error:
            refused = str(error)
        assert bool(refused) == ("invalid" in block.words), f"{where}: {refused or 'is not refused'}"

    def _run(self, command: str) -> str:
        binaries = str(Path(sys.executable).parent)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
        environment |= {
            "PATH": f"{binaries}{os.pathsep}{environment['PATH']}", "NO_COLOR": "1", "COLUMNS": "110",
            "PYTHONPATH": str(ROOT), "PYTHONPYCACHEPREFIX": str(BYTECODE),
        }  # fmt: skip
        finished = subprocess.run(
            ["/bin/bash", "-c", command],
            cwd=self._folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=50,
            check=False,
        )
        return finished.stdout


def _commands(text: str) -> Iterator[tuple[str, str]]:
    """Each command with what it is said to print."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, _, expected = part.partition("\n")
        yield command, expected


def _compare(where: str, expected: str, printed: str) -> None:
    wanted, got = _tidy(expected), _tidy(printed)
    pattern = re.escape(wanted).replace(r"\.\.\.", ".*")
    assert re.fullmatch(pattern, got, re.DOTALL), f"{where}\n--- written\n{wanted}\n--- printed\n{got}"


def _tidy(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.strip().splitlines())
