"""References in a definition's texts: `${params.x}`, `${NAME:-default}`, and the escape `$${`.

Before a `{`, each pair of `$` stands for one: `$${` is a literal `${`, `$$${NAME}` a `$` and a reference.

Owns: their grammar, `ParamText` (a configuration value that waits for its params), and what a plain scalar
is.
Does not own: reading the environment (the runtime passes it in), filling params (flowcore.binding).

Always holds: after `substitute` no environment reference is left, and text from the environment is never
scanned for references again; `escape` undoes what `substitute` would do to a literal text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import msgspec

PARAM_NAME_PATTERN: Final = r"[A-Za-z_][A-Za-z0-9_]*"

_REFERENCE_TO_PARAM = rf"\$\{{params\.(?P<param>{PARAM_NAME_PATTERN})\}}"
_TOKEN = re.compile(
    rf"(?P<pairs>(?:\$\$)*)(?:{_REFERENCE_TO_PARAM}"
    r"|\$\{(?P<env>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^{}]*))?\}"
    r"|(?P<bad>\$\{)|(?P<brace>(?<=\$)\{))"
)
_PARAM = re.compile(rf"(?P<pairs>(?:\$\$)*)(?:{_REFERENCE_TO_PARAM}|(?P<brace>(?<=\$)\{{params\.))")
_DOLLARS = re.compile(r"\$+(?=\{)")
_DOLLARS_AT_END = re.compile(r"\$+\Z")
_AFTER_DOLLARS = re.compile(rf"\{{params\.{PARAM_NAME_PATTERN}\}}")
_WHOLE = re.compile(r"\$\{[^{}]*\}")
_INT = re.compile(r"[-+]?(?:0|[1-9][0-9]*)|0x[0-9a-fA-F]+|0o[0-7]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_WORDS: Final = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
    ".nan": float("nan"), ".NaN": float("nan"), ".NAN": float("nan"),
    ".inf": float("inf"), ".Inf": float("inf"), ".INF": float("inf"), "+.inf": float("inf"),
    "-.inf": float("-inf"), "-.Inf": float("-inf"), "-.INF": float("-inf"),
}  # fmt: skip


class ReferenceFault(ValueError):  # noqa: N818 - never leaves the loader, which reports it as a finding
    """A reference cannot be resolved; the message says why, `remedy` what to do."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy


class ParamRef(msgspec.Struct, frozen=True):
    """`${params.name}`."""

    name: str


class ParamText(msgspec.Struct, frozen=True):
    """A configuration value that waits for its params: literal texts and references in turn.

    A single reference takes the param's value with its kind; mixed with text, the value is written into it.
    """

    parts: tuple[str | ParamRef, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Params this value waits for, in order, repeated if used twice."""
        return tuple(part.name for part in self.parts if isinstance(part, ParamRef))

    def source(self) -> str:
        """The text a file would hold."""
        written = ""
        for part in self.parts:
            if isinstance(part, ParamRef):
                written = _DOLLARS_AT_END.sub(_doubled, written) + f"${{params.{part.name}}}"
            else:
                written += escape(part)
        return written

    def __str__(self) -> str:
        return self.source()


class Unquoted(str):
    """A text written without quotes in YAML: one whole `${NAME}` is typed as a plain scalar."""

    __slots__ = ()


class FromEnvironment(str):
    """The text one whole `${NAME}` resolved to: a field that is no text may type it like a plain scalar."""

    __slots__ = ()


def param(name: str) -> ParamText:
    """A reference to the param of that name, for a configuration written in code."""
    return ParamText((ParamRef(name),))


def parse_params(text: str) -> str | ParamText:
    """`text` with its `${params.x}` found; other `${` stay literal, `$${params.x}` is one too."""
    if "${params." not in text:
        return text
    parts: list[str | ParamRef] = []
    end = 0
    for match in _PARAM.finditer(text):
        parts.append(text[end : match.start()] + _halved(match))
        parts.append(ParamRef(match["param"]) if match["param"] else match["brace"])
        end = match.end()
    parts.append(text[end:])
    return _joined(parts)


def substitute(text: str, env: Mapping[str, str]) -> str | ParamText:
    """Resolve the references of one text of a file.

    Returns:
        The text; a ParamText when it refers to params; a FromEnvironment when the text is one whole
        reference.

    Raises:
        ReferenceFault: a variable is not set and has no default, or `${` starts no reference.
    """
    if "${" not in text:
        return str(text)
    parts: list[str | ParamRef] = []
    end = 0
    for match in _TOKEN.finditer(text):
        parts.append(text[end : match.start()] + _halved(match))
        parts.append(_resolve(match, env))
        end = match.end()
    parts.append(text[end:])
    joined = _joined(parts)
    return FromEnvironment(joined) if isinstance(joined, str) and _WHOLE.fullmatch(text) else joined


def reference_faults(text: str, env: Mapping[str, str]) -> list[ReferenceFault]:
    """Why `substitute` refuses a text: each fault once, in order."""
    faults: dict[str, ReferenceFault] = {}
    for match in _TOKEN.finditer(text):
        try:
            _resolve(match, env)
        except ReferenceFault as fault:
            faults.setdefault(str(fault), fault)
    return list(faults.values())


def escape(text: str) -> str:
    """`text` written so that `substitute` gives it back unchanged."""
    return _DOLLARS.sub(_doubled, text)


def escape_but_params(text: str) -> str:
    """Like `escape`, with `${params.x}` left as the reference it is (expressions)."""

    def written(match: re.Match[str]) -> str:
        if _AFTER_DOLLARS.match(text, match.end()):
            return match[0][:-1] * 2 + "$"
        return match[0] * 2

    return _DOLLARS.sub(written, text)


def plain_scalar(text: str) -> bool | int | float | str | None:
    """The value of an unquoted scalar, as in YAML 1.2's core schema: `no`, `012`, `1:30`, dates are text."""
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        return int(text, 0) if text[:2] in {"0x", "0o"} else int(text)
    return float(text) if _FLOAT.fullmatch(text) else text


def _resolve(match: re.Match[str], env: Mapping[str, str]) -> str | ParamRef:
    if match["param"]:
        return ParamRef(match["param"])
    name = match["env"]
    if name:
        value = env.get(name) or match["default"]
        if value is None:
            value = env.get(name)
        if value is None:
            raise ReferenceFault(
                f"environment variable {name} is not set", f"set it, or give a default: ${{{name}:-...}}"
            )
        return value
    if match["bad"]:
        raise ReferenceFault(
            "'${' starts no reference", "write ${NAME}, ${NAME:-default}, ${params.name}, or $${ for '${'"
        )
    return str(match["brace"])


def _halved(match: re.Match[str]) -> str:
    return "$" * (len(match["pairs"]) // 2)


def _doubled(match: re.Match[str]) -> str:
    return match[0] * 2


def _joined(parts: list[str | ParamRef]) -> str | ParamText:
    """Neighbouring texts made one, empty ones left out."""
    merged: list[str | ParamRef] = []
    for part in parts:
        if isinstance(part, str) and merged and isinstance(merged[-1], str):
            merged[-1] += part
        elif part != "":
            merged.append(part)
    if all(isinstance(part, str) for part in merged):
        return "".join(str(part) for part in merged)
    return ParamText(tuple(merged))
