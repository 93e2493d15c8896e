"""The files of a workflow: bytes within limits, parsed, and those of nested workflows put in their place.

Owns: reading a file, telling its format, following `config.file` of workflow nodes.
Does not own: the two formats (yaml, json), what the data means (flowcore.document).

Always holds: a nested file that cannot be followed is a fault of the place that names it, and keeps no other
from being read; the lines of what it holds are its own.
"""

from __future__ import annotations

import re
from pathlib import Path as FilePath
from typing import Final, Literal, cast

from flowcore.document import Fault
from flowcore.errors import Problem, ValidationFailedError
from flowcore.findings import Mark, Path, path_text, shown
from flowcore.workflow import MAX_NESTING, WORKFLOW_TYPE
from flowruntime.definition.json import read_json
from flowruntime.definition.parsed import Parsed
from flowruntime.definition.yaml import read_yaml

MAX_BYTES: Final = 1 << 20
"""Of one file."""
MAX_FOLLOWED_BYTES: Final = 8 << 20
"""Of all files of nested workflows, each counted as often as it is named."""

Format = Literal["yaml", "json"]
SUFFIXES: Final[dict[str, Format]] = {".yaml": "yaml", ".yml": "yaml", ".json": "json"}

_JSON_START = re.compile(r"\s*\{\s*[\"}]")


def read_file(path: FilePath) -> Parsed:
    """The data of one file.

    Raises:
        ValidationFailedError: it cannot be read, or nothing in it can.
    """
    return parse_bytes(_read(path, str(path)), SUFFIXES.get(path.suffix.lower()), str(path))


def parse_bytes(raw: bytes, format: Format | None, file: str | None) -> Parsed:
    """The data of a text.

    Args:
        raw: UTF-8.
        format: None: JSON when it begins with `{` and is JSON, else YAML.
        file: named in problems.

    Raises:
        ValidationFailedError: nothing in it can be read.
    """
    text = _decoded(raw, file)
    form = format or ("json" if _JSON_START.match(text) else "yaml")
    return read_json(text, file=file) if form == "json" else read_yaml(text, file=file)


def follow_files(parsed: Parsed, path: FilePath) -> None:
    """Put the workflows that nodes name by `config.file` in place, with their own lines.

    Args:
        parsed: of the outermost workflow; takes their data, marks and faults.
        path: of its file.
    """
    _Follower(parsed, str(path)).follow(parsed.data, path.parent, (), (path.resolve(),))


class _Follower:
    def __init__(self, parsed: Parsed, outer: str) -> None:
        self._marks: Final = parsed.marks
        self._faults: Final = parsed.faults
        self._outer: Final = outer
        self._left = MAX_FOLLOWED_BYTES

    def follow(self, data: object, folder: FilePath, at: Path, open_files: tuple[FilePath, ...]) -> None:
        for name, node in _mapping(_mapping(data).get("nodes")).items():
            config = _inner_config(node)
            here = (*at, "nodes", name, "config")
            named = config.get("file")
            if "workflow" in config:
                self.follow(config["workflow"], folder, (*here, "workflow"), open_files)
            elif isinstance(named, str):
                self._put_in_place(config, named, folder, here, open_files)

    def _put_in_place(
        self,
        config: dict[str, object],
        named: str,
        folder: FilePath,
        here: Path,
        open_files: tuple[FilePath, ...],
    ) -> None:
        path = folder / named
        at = (*here, "workflow")
        resolved = self._resolved(path, named, here, open_files)
        if resolved is None:
            return
        try:
            raw = _read(path, str(path))
        except ValidationFailedError as fault:
            self._note(fault.problems[0].message, here, named, fault.problems[0].remedy)
            return
        self._left -= len(raw)
        if self._left < 0:
            message = f"the files of nested workflows have more than {MAX_FOLLOWED_BYTES} bytes together"
            self._note(message, here, named, "run some of them as workflows of their own")
            return
        try:
            inner = parse_bytes(raw, SUFFIXES.get(path.suffix.lower()), str(path))
        except ValidationFailedError as fault:
            self._faults.extend(Fault((*here, "file"), problem) for problem in fault.problems)
            return
        self._marks.update({(*at, *place): mark for place, mark in inner.marks.items()})
        self._faults.extend(Fault((*at, *fault.place), fault.problem) for fault in inner.faults)
        config["workflow"] = inner.data
        del config["file"]
        self.follow(inner.data, path.parent, at, (*open_files, resolved))

    def _resolved(
        self, path: FilePath, named: str, here: Path, open_files: tuple[FilePath, ...]
    ) -> FilePath | None:
        """The file itself; None when it cannot be followed, which is noted."""
        try:
            resolved = path.resolve()
        except (OSError, ValueError, RuntimeError) as fault:
            self._note(f"cannot be followed: {fault}", here, named)
            return None
        if resolved in open_files:
            ring = " -> ".join(file.name for file in (*open_files, resolved))
            self._note(f"workflows contain each other: {ring}", here, named, "take one out of the other")
            return None
        if len(open_files) >= MAX_NESTING:
            self._note(f"workflows nest at most {MAX_NESTING} deep", here, named)
            return None
        if resolved.exists() and not (resolved.is_file() or resolved.is_dir()):  # a pipe would be waited for
            self._note("is no regular file (a pipe, socket or device)", here, named, "name a file")
            return None
        return resolved

    def _note(self, message: str, here: Path, value: str, remedy: str = "") -> None:
        place = (*here, "file")
        mark = self._marks.get(place, Mark(self._outer, None))
        self._faults.append(
            Fault(
                place,
                Problem(
                    path=path_text(place),
                    message=message,
                    remedy=remedy,
                    value=shown(value),
                    file=mark.file,
                    line=mark.line,
                ),
            )
        )


def _mapping(data: object) -> dict[str, object]:
    return cast("dict[str, object]", data) if isinstance(data, dict) else {}


def _inner_config(node: object) -> dict[str, object]:
    fields = _mapping(node)
    return _mapping(fields.get("config")) if fields.get("type") == WORKFLOW_TYPE else {}


def _read(path: FilePath, file: str) -> bytes:
    try:
        with path.open("rb") as opened:
            return opened.read(MAX_BYTES + 1)
    except FileNotFoundError as fault:
        raise _refusal("there is no such file", file, remedy="check the path") from fault
    except (OSError, ValueError) as fault:
        reason = getattr(fault, "strerror", None) or str(fault)
        raise _refusal(f"the file cannot be read: {reason}", file) from fault


def _decoded(raw: bytes, file: str | None) -> str:
    if len(raw) > MAX_BYTES:
        raise _refusal(
            f"a workflow has at most {MAX_BYTES} bytes", file, remedy="move data out of the workflow"
        )
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as fault:
        line = raw.count(b"\n", 0, fault.start) + 1
        message = f"the text is not UTF-8: byte {raw[fault.start]:#04x} at position {fault.start}"
        raise _refusal(message, file, line=line, remedy="save the file as UTF-8") from fault


def _refusal(
    message: str, file: str | None, *, line: int | None = None, remedy: str = ""
) -> ValidationFailedError:
    problem = Problem(path="workflow", message=message, remedy=remedy, file=file, line=line)
    return ValidationFailedError([problem], what="workflow")
