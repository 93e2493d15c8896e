"""Load and save workflow files: YAML or JSON, inner files followed, references filled.

Owns: reading bytes within limits, choosing the format, following `config.file` of workflow nodes, the
environment.
Does not own: the two formats (yaml, json), what the data means (flowcore.document), checking types and ports
(flowruntime.compile).

Always holds: whatever the file holds, the answer is a Workflow or a ValidationFailedError with file and
line; saving writes the whole file or leaves the old one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path as FilePath
from typing import Final, Literal, cast

from flowcore.binding import bind_params
from flowcore.document import from_document
from flowcore.dump import to_document
from flowcore.errors import Problem, ValidationFailedError
from flowcore.findings import Mark, Path, path_text, shown
from flowcore.schema import SCHEMA_HEADER
from flowcore.workflow import MAX_NESTING, WORKFLOW_TYPE, Workflow
from flowruntime.definition.json import parse_json, write_json
from flowruntime.definition.yaml import parse_yaml, write_yaml

MAX_BYTES: Final = 1 << 20

Format = Literal["yaml", "json"]
_JSON_START = re.compile(r"\s*\{\s*[\"}]")
_SUFFIXES: Final[dict[str, Format]] = {".yaml": "yaml", ".yml": "yaml", ".json": "json"}


def load_workflow(
    source: str | os.PathLike[str],
    *,
    params: Mapping[str, object] | None = None,
    env: Mapping[str, str] | None = None,
    bind: bool = False,
) -> Workflow:
    """Load a workflow from a file, or from the text of one.

    Args:
        source: a path, or text: a `str` with a line break, or that begins with `{`, is taken as text.
        params: values for `${params.x}`; given ones are filled in at once, with the defaults of the others.
        env: what `${NAME}` refers to; None: the process's environment.
        bind: fill params with their defaults even when none are given, so that missing ones are reported now.

    Returns:
        The workflow. Without `params` and `bind` its references to params stay open, for `bind_params`.

    Raises:
        ValidationFailedError: the file cannot be read, or anything in it is wrong; all problems are listed.
    """
    if isinstance(source, str) and ("\n" in source or source.lstrip().startswith("{")):
        return load_text(source, params=params, env=env, bind=bind)
    path = FilePath(source)
    text = _read(path, str(path))
    data, marks = _parse(text, _format_of(path, text), str(path))
    data = _Follower(str(path)).follow(data, marks, path.parent, (), (path.resolve(),))
    return _finish(data, marks, str(path), params, env, bind=bind)


def load_text(
    text: str | bytes,
    *,
    format: Format | None = None,
    file: str | None = None,
    params: Mapping[str, object] | None = None,
    env: Mapping[str, str] | None = None,
    bind: bool = False,
) -> Workflow:
    """Load a workflow from text; `config.file` of a workflow node is refused: there is no folder to look in.

    Args:
        text: YAML or JSON; bytes are UTF-8.
        format: None: JSON when it begins with `{` and is JSON, else YAML.
        file: named in problems.
        params: as for `load_workflow`.
        env: as for `load_workflow`.
        bind: as for `load_workflow`.

    Raises:
        ValidationFailedError: anything is wrong; all problems are listed.
    """
    decoded = _decoded(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"), file)
    data, marks = _parse(decoded, format or _guess(decoded), file)
    return _finish(data, marks, file, params, env, bind=bind)


def dump_workflow(workflow: Workflow, *, format: Format = "yaml", local_types: bool = False) -> str:
    """The workflow as the text of a file; `load_text` gives an equal workflow back.

    Raises:
        ValidationFailedError: something has no plain form; see `flowcore.dump.to_document`.
    """
    data = to_document(workflow, local_types=local_types)
    return write_json(data) if format == "json" else f"{SCHEMA_HEADER}\n{write_yaml(data)}"


def save_workflow(workflow: Workflow, path: str | os.PathLike[str], *, local_types: bool = False) -> None:
    """Write the workflow to a file, whole or not at all; its suffix (.yaml, .yml, .json) names the format.

    Raises:
        ValidationFailedError: the suffix is none of these, or something has no plain form.
        OSError: the file cannot be written.
    """
    target = FilePath(path)
    form = _SUFFIXES.get(target.suffix.lower())
    if form is None:
        remedy = f"end it with {', '.join(_SUFFIXES)}"
        raise _refusal(f"cannot tell the format of {shown(str(path))}", str(target), remedy=remedy)
    text = dump_workflow(workflow, format=form, local_types=local_types)
    beside = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)


class _Follower:
    """Puts the workflows named by `config.file` in place, with their own lines."""

    def __init__(self, outer: str) -> None:
        self._outer: Final = outer

    def follow(
        self,
        data: object,
        marks: dict[Path, Mark],
        folder: FilePath,
        at: Path,
        open_files: tuple[FilePath, ...],
    ) -> object:
        for name, node in _mapping(_mapping(data).get("nodes")).items():
            config = _inner_config(node)
            here = (*at, "nodes", name, "config")
            named = config.get("file")
            if "workflow" in config:
                self.follow(config["workflow"], marks, folder, (*here, "workflow"), open_files)
            elif isinstance(named, str):
                config["workflow"] = self._inner(named, marks, folder, here, open_files)
                del config["file"]
        return data

    def _inner(
        self,
        named: str,
        marks: dict[Path, Mark],
        folder: FilePath,
        here: Path,
        open_files: tuple[FilePath, ...],
    ) -> object:
        mark = marks.get((*here, "file"), Mark(self._outer, None))
        path = folder / named
        try:
            resolved = path.resolve()
        except (OSError, ValueError, RuntimeError) as fault:
            raise self._refuse(f"cannot be followed: {fault}", here, mark, named) from fault
        if resolved in open_files:
            ring = " -> ".join(file.name for file in (*open_files, resolved))
            raise self._refuse(f"workflows contain each other: {ring}", here, mark, named)
        if len(open_files) >= MAX_NESTING:
            raise self._refuse(f"workflows nest at most {MAX_NESTING} deep", here, mark, named)
        try:
            text = _read(path, str(path))
        except ValidationFailedError as fault:
            raise self._refuse(fault.problems[0].message, here, mark, named) from fault
        data, inner_marks = _parse(text, _format_of(path, text), str(path))
        at = (*here, "workflow")
        marks.update({(*at, *place): inner for place, inner in inner_marks.items()})
        return self.follow(data, marks, path.parent, at, (*open_files, resolved))

    def _refuse(self, message: str, here: Path, mark: Mark, value: str) -> ValidationFailedError:
        problem = Problem(
            path=path_text((*here, "file")),
            message=message,
            value=shown(value),
            file=mark.file,
            line=mark.line,
        )
        return ValidationFailedError([problem], what="workflow")


def _mapping(data: object) -> dict[str, object]:
    return cast("dict[str, object]", data) if isinstance(data, dict) else {}


def _inner_config(node: object) -> dict[str, object]:
    fields = _mapping(node)
    return _mapping(fields.get("config")) if fields.get("type") == WORKFLOW_TYPE else {}


def _finish(
    data: object,
    marks: dict[Path, Mark],
    file: str | None,
    params: Mapping[str, object] | None,
    env: Mapping[str, str] | None,
    *,
    bind: bool,
) -> Workflow:
    workflow = from_document(data, env=os.environ if env is None else env, marks=marks, file=file)
    return bind_params(workflow, params) if bind or params is not None else workflow


def _parse(text: str, form: Format, file: str | None) -> tuple[object, dict[Path, Mark]]:
    return parse_json(text, file=file) if form == "json" else parse_yaml(text, file=file)


def _format_of(path: FilePath, text: str) -> Format:
    return _SUFFIXES.get(path.suffix.lower()) or _guess(text)


def _guess(text: str) -> Format:
    return "json" if _JSON_START.match(text) else "yaml"


def _read(path: FilePath, file: str) -> str:
    try:
        with path.open("rb") as opened:
            raw = opened.read(MAX_BYTES + 1)
    except FileNotFoundError as fault:
        raise _refusal("there is no such file", file, remedy="check the path") from fault
    except (OSError, ValueError) as fault:
        reason = getattr(fault, "strerror", None) or str(fault)
        raise _refusal(f"the file cannot be read: {reason}", file) from fault
    return _decoded(raw, file)


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
