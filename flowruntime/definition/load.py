"""Load and save workflow files: YAML or JSON, inner files followed, references filled.

Owns: from a file or text to a workflow and back, the environment.
Does not own: files and those of nested workflows (files), the two formats (yaml, json), what the data means
(flowcore.document), checking types and ports (flowruntime.compile).

Always holds: whatever the file holds, the answer is a Workflow or a ValidationFailedError with file and
line, and of `load_draft` a Draft with all that is wrong in it; saving writes the whole file or leaves the old
one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path as FilePath

from flowcore.binding import bind_draft
from flowcore.document import read_document
from flowcore.draft import Draft
from flowcore.dump import to_document
from flowcore.errors import Problem, ValidationFailedError
from flowcore.findings import shown
from flowcore.schema import SCHEMA_HEADER
from flowcore.workflow import Workflow
from flowruntime.definition.files import SUFFIXES, Format, follow_files, parse_bytes, read_file
from flowruntime.definition.json import write_json
from flowruntime.definition.parsed import Parsed
from flowruntime.definition.yaml import write_yaml


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
        ValidationFailedError: the file cannot be read, or its form is wrong; all problems are listed.
    """
    return _finished(load_draft(source, env=env), params, bind=bind)


def load_draft(source: str | os.PathLike[str], *, env: Mapping[str, str] | None = None) -> Draft:
    """Load a workflow as far as it can be read, so that all of it can be checked at once.

    Args:
        source: as for `load_workflow`.
        env: as for `load_workflow`.

    Returns:
        The draft; validating it reports its `problems` together with all others, and `finished` gives the
        workflow when there are none.

    Raises:
        ValidationFailedError: nothing of it can be read: there is no such file, or it is not YAML or JSON.
    """
    if isinstance(source, str) and ("\n" in source or source.lstrip().startswith("{")):
        return _draft(_parsed_text(source, None, None), None, env)
    path = FilePath(source)
    parsed = read_file(path)
    follow_files(parsed, path)
    return _draft(parsed, str(path), env)


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
    return _finished(_draft(_parsed_text(text, format, file), file, env), params, bind=bind)


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
    form = SUFFIXES.get(target.suffix.lower())
    if form is None:
        remedy = f"end it with {', '.join(SUFFIXES)}"
        message = f"cannot tell the format of {shown(str(path))}"
        raise ValidationFailedError(
            [Problem(path="workflow", message=message, remedy=remedy, file=str(target))]
        )
    text = dump_workflow(workflow, format=form, local_types=local_types)
    beside = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)


def _draft(parsed: Parsed, file: str | None, env: Mapping[str, str] | None) -> Draft:
    return read_document(
        parsed.data,
        env=os.environ if env is None else env,
        marks=parsed.marks,
        file=file,
        faults=parsed.faults,
    )


def _finished(draft: Draft, params: Mapping[str, object] | None, *, bind: bool) -> Workflow:
    bound = bind_draft(draft, params) if bind or params is not None else draft
    return bound.finished()


def _parsed_text(text: str | bytes, format: Format | None, file: str | None) -> Parsed:
    raw = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    return parse_bytes(raw, format, file)
