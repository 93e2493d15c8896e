"""Fields: read pieces of a definition with their references resolved, noting whatever is wrong.

Owns: texts, flags, expressions and configuration values as they stand in a document.
Does not own: which fields a workflow has (flowcore.document).

Always holds: nothing raises; what is refused has its finding, exactly one, and reads as `NOTHING` or a
default.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, cast

import msgspec

from flowcore.binding import config_params, expression_params
from flowcore.findings import NOTHING, Findings, Path, near_words, shown
from flowcore.plain import from_plain
from flowcore.references import (
    FromEnvironment,
    ParamText,
    ReferenceFault,
    Unquoted,
    plain_scalar,
    reference_faults,
    substitute,
)
from flowcore.settings import ParamSpec
from flowcore.shapes import NO_UNICODE, NO_UNICODE_REMEDY, Flag, type_name
from flowcore.values import MAX_DEPTH, ValueFormError, encodable

_CLOSE: Final = 0.75
"""How much an unknown field resembles a known one that it is meant rather than what the hint says."""
_PARAM_PLACES = (
    "params can stand in config, key and when; elsewhere use ${NAME:-default} from the environment"
)


def _or_else(name: str, known: tuple[str, ...], hint: str) -> str:
    """The remedy for an unknown field where it may belong elsewhere; empty where a known one is meant."""
    if not hint or near_words(name, known, cutoff=_CLOSE):
        return ""
    elsewhere = hint.replace("{}", name)
    near = near_words(name, known)
    return f"did you mean {near[0]!r}? {elsewhere[0].upper()}{elsewhere[1:]}" if near else elsewhere


class Params(msgspec.Struct, frozen=True):
    """The params a workflow declares, and where."""

    specs: Mapping[str, ParamSpec]
    at: Path


class FieldReader:
    """Reads pieces of one document; its findings carry path and line."""

    def __init__(self, findings: Findings, env: Mapping[str, str]) -> None:
        self.findings: Final = findings
        self._env: Final = env

    def mapping(
        self,
        data: object,
        at: Path,
        known: tuple[str, ...] | None = None,
        *,
        what: str = "",
        hint: str = "",
        keep_empty: bool = False,
    ) -> dict[str, object]:
        """`data` as a mapping of its known fields, those left empty left out; anything else is noted.

        Args:
            data: what stands there.
            at: where.
            known: names of fields; None: any.
            what: a field is called in messages.
            hint: what to do about an unknown field that resembles no known one; `{}` is its name.
            keep_empty: keep the fields that are null.
        """
        if not isinstance(data, dict):
            if not self.findings.refuses(at):
                self.findings.add(at, f"must be a mapping, not {type_name(data)}", value=data)
            return {}
        fields: dict[str, object] = {}
        for name, value in cast("dict[object, object]", data).items():
            if not isinstance(name, str):
                self.findings.add(
                    at, f"has the key {shown(name)}, which is not text", remedy="put it in quotes"
                )
            elif known is None and not encodable(name):
                self.findings.add(
                    at, f"has the key {shown(name)}, which {NO_UNICODE}", remedy=NO_UNICODE_REMEDY
                )
            elif known is not None and name not in known:
                self.findings.add_unknown(at, name, known, what=what, remedy=_or_else(name, known, hint))
            elif known is None or keep_empty or value is not None:
                fields[name] = value
        return fields

    def text(
        self,
        fields: Mapping[str, object],
        name: str,
        at: Path,
        *,
        required: bool = False,
        empty: bool = False,
    ) -> str | None:
        """The text of a field; None when it is not there or was refused."""
        here = (*at, name)
        if name not in fields:
            if required and not self.findings.refuses(here):
                self.findings.add(here, "is missing", remedy=f"add it: {name}: ...")
            return None
        value = self.plain(fields[name], here)
        if value is NOTHING:
            return None
        if not isinstance(value, str):
            remedy = "put it in quotes" if isinstance(value, bool | int | float) else ""
            self.findings.add(here, f"must be text, not {type_name(value)}", value=value, remedy=remedy)
            return None
        if not value.strip() and not empty:
            self.findings.add(here, "must not be empty", value=value)
            return None
        if not encodable(value):
            self.findings.add(here, NO_UNICODE, value=value, remedy=NO_UNICODE_REMEDY)
            return None
        return str.__str__(value)

    def flag(self, fields: Mapping[str, object], name: str, at: Path, *, default: bool) -> bool:
        """A true-or-false field."""
        given = self.plain(fields.get(name, default), (*at, name))
        read = given if given is NOTHING else Flag().read(given, (*at, name), self.findings)
        return read if isinstance(read, bool) else default

    def expression(self, data: object, at: Path, params: Params) -> object:
        """Text with its environment references resolved and those to params kept as they are."""
        text = self._resolved(data, at) if isinstance(data, str) else data
        if isinstance(text, ParamText):
            parts = (p if isinstance(p, str) else f"${{params.{p.name}}}" for p in text.parts)
            text = "".join(parts)
        if isinstance(text, str) and not encodable(text):
            self.findings.add(at, NO_UNICODE, value=text, remedy=NO_UNICODE_REMEDY)
            return NOTHING
        if isinstance(text, str):
            self.declared([(at, name) for name in expression_params(text)], params)
        return text

    def declared(self, references: Iterable[tuple[Path, str]], params: Params) -> None:
        """Note the references to params that are not declared."""
        for at, name in dict.fromkeys(references):
            if name not in params.specs and not self.findings.refuses((*params.at, name)):
                self.findings.add_undeclared(at, name, params.specs)

    def constant(self, data: object, at: Path) -> object:
        """A value without references to params."""
        value = self.value(data, at)
        if config_params(value):
            self.findings.add(at, "cannot refer to params", remedy=_PARAM_PLACES, value=data)
        return value

    def value(self, data: object, at: Path) -> object:
        """A configuration value: references resolved, `$` forms read."""
        if self._too_deep(at):
            return None
        if isinstance(data, str):
            return self._config_text(data, at)
        if isinstance(data, list):
            return [self.value(item, (*at, index)) for index, item in enumerate(cast("list[object]", data))]
        if isinstance(data, dict) and not self.is_form(cast("object", data)):
            pairs = self.mapping(cast("object", data), at).items()
            return {name.removeprefix("$"): self.value(item, (*at, name)) for name, item in pairs}
        form = self.plain(cast("object", data), at)
        try:
            return None if form is NOTHING else from_plain(form)
        except ValueFormError as fault:
            self.findings.add(at, str(fault).removeprefix("value "), value=form)
            return None

    def plain(self, data: object, at: Path) -> object:
        """Plain data with environment references resolved; params are refused."""
        if self._too_deep(at):
            return NOTHING
        if isinstance(data, str):
            resolved = self._resolved(data, at)
            if isinstance(resolved, ParamText):
                self.findings.add(at, "cannot refer to params", remedy=_PARAM_PLACES, value=data)
                return NOTHING
            return resolved
        if isinstance(data, list):
            items = [self.plain(item, (*at, index)) for index, item in enumerate(cast("list[object]", data))]
            return [item for item in items if item is not NOTHING]  # what is left out here has its finding
        if isinstance(data, dict):
            pairs = self.mapping(cast("object", data), at).items()
            read = {name: self.plain(item, (*at, name)) for name, item in pairs}
            return {name: item for name, item in read.items() if item is not NOTHING}
        return data

    def _config_text(self, text: str, at: Path) -> object:
        resolved = self._resolved(text, at)
        if not isinstance(resolved, FromEnvironment):
            return None if resolved is NOTHING else resolved
        try:
            return plain_scalar(resolved) if isinstance(text, Unquoted) else str.__str__(resolved)
        except ValueError as fault:
            self.findings.add(at, f"cannot be read: {fault}", value=str(text))
            return None

    def _resolved(self, text: str, at: Path) -> str | ParamText | msgspec.UnsetType:
        try:
            return substitute(text, self._env)
        except ReferenceFault:
            for fault in reference_faults(text, self._env):
                self.findings.add(at, str(fault), value=str(text), remedy=fault.remedy)
            return NOTHING

    def _too_deep(self, at: Path) -> bool:
        if len(at) <= MAX_DEPTH:
            return False
        self.findings.add(at[:6], f"is nested deeper than {MAX_DEPTH} levels")
        return True

    @staticmethod
    def is_form(data: object) -> bool:
        """Whether `data` is a `$` form such as `{$secret: NAME}`, well made or not."""
        if not isinstance(data, dict):
            return False
        keys = cast("dict[object, object]", data)
        return any(isinstance(key, str) and key[:1] == "$" and key[:2] != "$$" for key in keys)
