"""Scripts: what the provider `scripted` answers, and when.

Owns: `Script` and its parts, reading one from options or from a file.
Does not own: playing it (provider).

Always holds: a script that exists is valid; what is wrong with one is told with its file and path, all of it
at once.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import yaml
from msgspec import UNSET, Meta, Struct, UnsetType

from flowcore import findings
from flowcore.config import read_config
from flowcore.errors import ConfigError
from flowcore.findings import Findings, shown
from flowcore.llm.answers import Finish, Usage

ErrorName = Literal[
    "RateLimitedError", "ProviderUnavailableError", "ProviderTimeoutError", "AuthenticationError",
    "RequestRefusedError", "ModelNotFoundError", "RequestTooLargeError", "QuotaExhaustedError",
    "BadAnswerError", "BrokenStreamError", "AnswerTooLargeError", "ContentRefusedError",
]  # fmt: skip

_MAX_BYTES: Final = 16 * 1024 * 1024
_Count = Annotated[int, Meta(ge=1)]


class ScriptedError(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A call fails."""

    kind: ErrorName
    retry_after: timedelta | None = None
    status: Annotated[int | None, Meta(ge=100, le=599)] = None
    message: str = "scripted"


class ScriptedToolCall(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The model asks for a tool."""

    name: str
    arguments: dict[str, Any] | str = {}
    """A text is taken as it is, whether it is JSON or not."""


class Rule(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One answer. Rules are looked through in order; the first that fits answers."""

    when: Annotated[
        str | None, Meta(description="text in the last message of the user; left out: fits any", min_length=1)
    ] = None
    matches: Annotated[str | None, Meta(description="regular expression, in place of `when`")] = None
    model: str | None = None
    times: Annotated[int | None, Meta(ge=1, description="fits so often, then no more")] = None
    text: str | None = None
    expand: Annotated[bool, Meta(description="put groups of `matches` into the text: \\1, \\g<name>")] = False
    json: Any | UnsetType = UNSET
    tool_calls: tuple[ScriptedToolCall, ...] = ()
    finish: Finish | None = None
    usage: Usage | None = None
    latency: timedelta | None = None
    error: ScriptedError | None = None
    pieces: Annotated[_Count, Meta(description="of a streamed answer")] = 4
    delay: Annotated[timedelta, Meta(description="before each piece")] = timedelta(0)
    stall_after: Annotated[int | None, Meta(ge=0, description="pieces, then silence for ever")] = None
    break_after: Annotated[int | None, Meta(ge=0, description="pieces, then the stream breaks")] = None

    def __post_init__(self) -> None:
        said = [
            name
            for name, given in (
                ("text", self.text is not None),
                ("json", self.json is not UNSET),
                ("tool_calls", bool(self.tool_calls)),
                ("error", self.error is not None),
            )
            if given
        ]
        if len(said) > 1 and said != ["text", "tool_calls"]:
            raise ConfigError(f"{' and '.join(said)} exclude each other; keep one", field=said[1])
        if self.when is not None and self.matches is not None:
            raise ConfigError("when and matches exclude each other; keep one", field="matches")
        if self.expand and (self.matches is None or self.text is None):
            raise ConfigError("expand puts groups of matches into text; it needs both", field="expand")
        if self.matches is not None:
            _check_expression(self.matches)


def _check_expression(text: str) -> None:
    try:
        re.compile(text)
    except re.error as fault:
        raise ConfigError(f"{shown(text)} is no regular expression: {fault}", field="matches") from fault


class Script(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a scripted provider says."""

    answers: tuple[Rule, ...] = ()
    otherwise: Annotated[
        Literal["echo", "fail"], Meta(description="when no rule fits: say what was asked, or fail")
    ] = "echo"
    latency: Annotated[timedelta, Meta(description="of calls whose rule says none")] = timedelta(0)
    dimensions: Annotated[int, Meta(ge=1, le=65_536, description="of vectors")] = 64
    max_embed_texts: _Count = 128


def script_of(options: Mapping[str, Any]) -> Script:
    """The script in the options of an endpoint, or in the file they name.

    Raises:
        ConfigError: it cannot be read, or is none; every problem is listed.
    """
    if "script" not in options:
        return _read(options, "options")
    others = sorted(set(options) - {"script"})
    if others:
        raise ConfigError(
            f"options: {', '.join(others)} belong into the script; remove them here", field="options"
        )
    path = options["script"]
    if not isinstance(path, str):
        raise ConfigError(f"options.script: must be the path of a file, not {shown(path)}", field="script")
    return _read(_loaded(path), path)


def _loaded(path: str) -> object:
    try:
        content = Path(path).read_bytes()
    except OSError as fault:
        raise ConfigError(f"script {path!r} cannot be read: {fault.strerror}", field="script") from fault
    if len(content) > _MAX_BYTES:
        raise ConfigError(
            f"script {path!r} has {len(content):,} bytes, more than {_MAX_BYTES:,}", field="script"
        )
    try:
        return yaml.load(content, Loader=yaml.CSafeLoader)
    except (yaml.YAMLError, RecursionError, ValueError) as fault:
        mark = getattr(fault, "problem_mark", None)
        line = "" if mark is None else f":{mark.line + 1}"
        problem = getattr(fault, "problem", None) or fault
        raise ConfigError(f"{path}{line}: not YAML: {problem}", field="script") from fault


def _read(data: object, where: str) -> Script:
    found = Findings()
    read = read_config(Script, {} if data is None else data, path=(), findings=found, hook=_no_hook)
    if isinstance(read, Script):
        return read
    problems = "\n".join(f"  {problem}" for problem in found.problems)
    raise ConfigError(
        f"script {where} is invalid\n{problems}", field="script", problems=tuple(found.problems)
    )


def _no_hook(kind: type, value: object, path: findings.Path) -> object:
    del value, path
    raise ConfigError(f"a script holds no {kind.__name__}")
