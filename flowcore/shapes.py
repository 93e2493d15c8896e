"""Shapes: what one field of a definition may hold, said once for code, files and JSON Schema.

Owns: reading a field from its plain form (`"30s"`) or its native one (`timedelta`), writing it back, its
schema.
Does not own: which fields exist (policies, workflow) or where they were written (findings).

Always holds: `read` never raises and never changes a value in silence: it returns the native value, or notes
a finding and returns `NOTHING`; `read(write(native))` gives the native value back.
"""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import ClassVar, Final, Generic, TypeVar, cast

import msgspec

from flowcore.durations import format_duration, parse_duration, parse_size
from flowcore.errors import ValidationFailedError
from flowcore.findings import NOTHING, Findings, Path, did_you_mean, shown
from flowcore.references import FromEnvironment, plain_scalar
from flowcore.values import encodable

S = TypeVar("S", bound="Declared")

MAX_WHOLE: Final = (1 << 63) - 1
_OTHER_NAMES: Final = {"SecretRef": "a secret", "ParamText": "a reference to a param"}


class Shape(ABC):
    """What one field may hold; see the module for the contract of its three methods."""

    @abstractmethod
    def read(self, value: object, path: Path, findings: Findings) -> object:
        """The native value, or `NOTHING` after noting why not."""

    @abstractmethod
    def schema(self) -> dict[str, object]:
        """JSON Schema (draft 2020-12) of the plain form."""

    def write(self, value: object) -> object:
        """The plain form of a native value."""
        return value


NO_UNICODE: Final = "holds a lone surrogate, half a character, which no file can hold"
NO_UNICODE_REMEDY: Final = "write the whole character"


class Text(Shape):
    """Text; `max_length` counts code points."""

    def __init__(self, *, min_length: int = 1, max_length: int = 10_000) -> None:
        self._min, self._max = min_length, max_length

    def read(self, value: object, path: Path, findings: Findings) -> object:
        if not isinstance(value, str):
            return _refuse(findings, path, value, f"must be text, not {type_name(value)}", _quote_hint(value))
        if not self._min <= len(value) <= self._max:
            return _refuse(findings, path, value, f"must have {self._min} to {self._max} characters")
        if not encodable(value):
            return _refuse(findings, path, value, NO_UNICODE, NO_UNICODE_REMEDY)
        return str.__str__(value)

    def schema(self) -> dict[str, object]:
        return {"type": "string", "minLength": self._min, "maxLength": self._max}


class Whole(Shape):
    """A whole number within bounds; True and 1.0 are not whole numbers."""

    def __init__(self, *, least: int, most: int = MAX_WHOLE) -> None:
        self._least, self._most = least, most

    def read(self, value: object, path: Path, findings: Findings) -> object:
        value = _typed(value)
        if type(value) is not int or not self._least <= value <= self._most:
            return _refuse(findings, path, value, f"must be {self._expects()}")
        return value

    def _expects(self) -> str:
        if self._most == MAX_WHOLE:
            return f"a whole number of at least {self._least}"
        return f"a whole number from {self._least} to {self._most}"

    def schema(self) -> dict[str, object]:
        bound = {} if self._most == MAX_WHOLE else {"maximum": self._most}
        return {"type": "integer", "minimum": self._least, **bound}


class Number(Shape):
    """A finite number within bounds, read as a float; whole numbers are welcome where they are exact."""

    def __init__(self, *, least: float, most: float = math.inf) -> None:
        self._least, self._most = least, most

    def read(self, value: object, path: Path, findings: Findings) -> object:
        wanted = (
            f"at least {self._least}" if self._most == math.inf else f"from {self._least} to {self._most}"
        )
        value = _typed(value)
        if type(value) is int and abs(value) <= 1 << 53:
            value = float(value)
        if type(value) is not float or not math.isfinite(value) or not self._least <= value <= self._most:
            return _refuse(findings, path, value, f"must be a number, {wanted}")
        return value

    def schema(self) -> dict[str, object]:
        bound = {} if self._most == math.inf else {"maximum": self._most}
        return {"type": "number", "minimum": self._least, **bound}


class Flag(Shape):
    """True or False, nothing that merely looks like it."""

    def read(self, value: object, path: Path, findings: Findings) -> object:
        value = _typed(value)
        if type(value) is not bool:
            return _refuse(findings, path, value, "must be true or false", truth_remedy(value))
        return value

    def schema(self) -> dict[str, object]:
        return {"type": "boolean"}


class Duration(Shape):
    """A timedelta, written `30s`; a bare number is refused because its unit would be a guess."""

    def __init__(self, *, zero: bool = False) -> None:
        self._zero = zero

    def read(self, value: object, path: Path, findings: Findings) -> object:
        if isinstance(value, str):
            try:
                value = parse_duration(value)
            except ValueError as fault:
                return _refuse(findings, path, value, str(fault))
        if not isinstance(value, timedelta):
            number = isinstance(value, int | float) and not isinstance(value, bool)
            remedy = f"give it a unit: '{value}s' or '{value}ms'" if number else "write it as in '30s'"
            return _refuse(findings, path, value, "must be a duration with a unit", remedy)
        if value < timedelta(0) or (not value and not self._zero):
            return _refuse(
                findings, path, value, f"must {'not be negative' if self._zero else 'be longer than 0'}"
            )
        return value

    def write(self, value: object) -> object:
        return format_duration(cast("timedelta", value))

    def schema(self) -> dict[str, object]:
        return {
            "type": "string",
            "pattern": r"^([0-9]+(\.[0-9]+)?(d|h|ms|us|m|s))+$",
            "examples": ["30s", "1h30m"],
        }


class Size(Shape):
    """A number of bytes, at least `least`; files may say `64MiB`."""

    def __init__(self, *, least: int = 1) -> None:
        self._least = least

    def read(self, value: object, path: Path, findings: Findings) -> object:
        size = value = _typed(value)
        if isinstance(value, str):
            try:
                size = parse_size(value)
            except ValueError as fault:
                return _refuse(findings, path, value, str(fault))
        if type(size) is not int or not self._least <= size <= MAX_WHOLE:
            return _refuse(findings, path, value, f"must be a number of bytes, at least {self._least}")
        return size

    def schema(self) -> dict[str, object]:
        text = {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)? ?(B|kB|MB|GB|KiB|MiB|GiB)$"}
        return {"anyOf": [{"type": "integer", "minimum": self._least}, text]}


class Choice(Shape):
    """One of a closed set of words."""

    def __init__(self, *words: str) -> None:
        self._words = words

    def read(self, value: object, path: Path, findings: Findings) -> object:
        if not isinstance(value, str) or value not in self._words:
            near = did_you_mean(value, self._words) if isinstance(value, str) else ""
            remedy = near if near.startswith("did you") else ""
            return _refuse(findings, path, value, f"must be one of {', '.join(self._words)}", remedy)
        return str.__str__(value)

    def schema(self) -> dict[str, object]:
        return {"enum": list(self._words)}


class Maybe(Shape):
    """Another shape, or None for "not said here"."""

    def __init__(self, inner: Shape) -> None:
        self._inner = inner

    def read(self, value: object, path: Path, findings: Findings) -> object:
        return None if value is None else self._inner.read(value, path, findings)

    def write(self, value: object) -> object:
        return None if value is None else self._inner.write(value)

    def schema(self) -> dict[str, object]:
        return self._inner.schema()


class TextList(Shape):
    """A list of texts, kept as a tuple."""

    def read(self, value: object, path: Path, findings: Findings) -> object:
        if not isinstance(value, list | tuple):
            return _refuse(findings, path, value, f"must be a list of texts, not {type_name(value)}")
        items = cast("list[object]", value)
        read = [Text().read(item, (*path, index), findings) for index, item in enumerate(items)]
        return NOTHING if NOTHING in read else tuple(read)

    def write(self, value: object) -> object:
        return list(cast("tuple[str, ...]", value))

    def schema(self) -> dict[str, object]:
        return {"type": "array", "items": {"type": "string"}}


class ByName(Shape):
    """A mapping from names to values of one shape."""

    def __init__(self, each: Shape) -> None:
        self._each = each

    def read(self, value: object, path: Path, findings: Findings) -> object:
        if not isinstance(value, Mapping):
            return _refuse(findings, path, value, f"must be a mapping by name, not {type_name(value)}")
        read: dict[str, object] = {}
        for name, given in cast("Mapping[object, object]", value).items():
            if not isinstance(name, str) or not name:
                return _refuse(findings, path, name, "must have names as keys")
            if not encodable(name):
                return _refuse(findings, path, name, NO_UNICODE, NO_UNICODE_REMEDY)
            read[name] = self._each.read(given, (*path, name), findings)
        return NOTHING if any(each is NOTHING for each in read.values()) else read

    def write(self, value: object) -> object:
        return {name: self._each.write(each) for name, each in cast("Mapping[str, object]", value).items()}

    def schema(self) -> dict[str, object]:
        return {"type": "object", "additionalProperties": self._each.schema()}


class PlainMapping(Shape):
    """A mapping by name whose values are left to whoever knows them; nothing at all is an empty one."""

    def read(self, value: object, path: Path, findings: Findings) -> object:
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            return _refuse(findings, path, value, f"must be a mapping of fields, not {type_name(value)}")
        entries = cast("Mapping[object, object]", value)
        for name in entries:
            if not isinstance(name, str):
                return _refuse(findings, path, name, "must have names as keys")
        return entries

    def schema(self) -> dict[str, object]:
        return {"type": "object"}


class Declared(msgspec.Struct, frozen=True, kw_only=True):
    """A frozen struct whose fields are checked, and brought to their native form, when it is made.

    Raises:
        ValidationFailedError: when made with a wrong value; it lists every wrong field.
    """

    shapes: ClassVar[Mapping[str, Shape]] = {}
    title: ClassVar[str] = "declaration"

    def __post_init__(self) -> None:
        findings = Findings()
        for name, shape in self.shapes.items():
            given = getattr(self, name)
            read = shape.read(given, (name,), findings)
            if read is not given and read is not NOTHING:
                msgspec.structs.force_setattr(self, name, read)
        if not findings.problems:
            self.check(findings)
        if findings.problems:
            raise ValidationFailedError(findings.problems, what=self.title)

    def check(self, findings: Findings) -> None:
        """Rules across fields; called once every field is right by itself."""

    def plain(self) -> dict[str, object]:
        """The fields that differ from their defaults, in plain form."""
        defaults = {field.name: _default(field) for field in msgspec.structs.fields(self)}
        said = {name: getattr(self, name) for name in self.shapes}
        return {name: self.shapes[name].write(v) for name, v in said.items() if v != defaults[name]}


class Nested(Shape, Generic[S]):
    """A `Declared` struct, given as itself, as a mapping of its fields or, with `bare`, as one plain value.

    Args:
        bare: field that a value which is not a mapping stands for (`concurrency: 8`).
    """

    def __init__(self, struct: type[S], *, bare: str | None = None) -> None:
        self._struct, self._bare = struct, bare

    def read(self, value: object, path: Path, findings: Findings) -> object:
        if isinstance(value, self._struct):
            return value
        if self._bare is not None and value is not None and not isinstance(value, Mapping):
            read = self._struct.shapes[self._bare].read(value, path, findings)
            return NOTHING if read is NOTHING else self._struct(**{self._bare: read})
        return read_declared(self._struct, cast("object", value), path, findings)

    def write(self, value: object) -> object:
        plain = cast("S", value).plain()
        return plain[self._bare] if self._bare is not None and plain.keys() == {self._bare} else plain

    def schema(self) -> dict[str, object]:
        mapping = declared_schema(self._struct)
        if self._bare is None:
            return mapping
        return {"anyOf": [self._struct.shapes[self._bare].schema(), mapping]}


def read_declared(
    struct: Callable[..., S], value: object, path: Path, findings: Findings
) -> S | msgspec.UnsetType:
    """Read a mapping into `struct`; `NOTHING` when a field is unknown, wrong or missing, each noted."""
    before = len(findings.problems)
    fields = _fields(cast("type[S]", struct), value, path, findings)
    if fields is None:
        return NOTHING
    missing = [name for name in _required(cast("type[S]", struct)) if name not in fields]
    for name in missing:
        if not findings.refuses((*path, name)):
            findings.add((*path, name), "is missing", remedy=f"add it: {name}: ...")
    if missing or len(findings.problems) > before:
        return NOTHING
    try:
        return struct(**fields)
    except ValidationFailedError as failed:
        findings.include(failed.problems, path)
        return NOTHING


def read_sound(struct: type[S], value: object, path: Path, findings: Findings) -> S:
    """Read into `struct` the fields that are right, the others noted; every field has a default."""
    fields = _fields(struct, value, path, findings) or {}
    sound = {name: field for name, field in fields.items() if field is not NOTHING}
    try:
        return struct(**sound)
    except ValidationFailedError as failed:
        findings.include(failed.problems, path)
        return struct()


@functools.cache
def _required(struct: type[Declared]) -> list[str]:
    return [field.name for field in msgspec.structs.fields(struct) if field.required]


def _fields(struct: type[S], value: object, path: Path, findings: Findings) -> dict[str, object] | None:
    """The known fields of a mapping, each read; None when it is no mapping, which is noted."""
    if value is NOTHING:
        return None  # noted where it was refused
    if not isinstance(value, Mapping):
        findings.add(path, f"must be a mapping of {struct.title} fields, not {type_name(value)}", value=value)
        return None
    fields: dict[str, object] = {}
    for name, given in cast("Mapping[object, object]", value).items():
        if not isinstance(name, str) or name not in struct.shapes:
            findings.add_unknown(
                path,
                name if isinstance(name, str) else shown(name),
                struct.shapes,
                what=f"{struct.title} field",
            )
        elif given is not NOTHING:
            fields[name] = struct.shapes[name].read(given, (*path, name), findings)
    return fields


def declared_schema(struct: type[Declared]) -> dict[str, object]:
    """JSON Schema of the mapping form of `struct`; defaults are shown where a file could write them."""
    properties: dict[str, object] = {}
    for field in msgspec.structs.fields(struct):
        shape, default = struct.shapes[field.name], _default(field)
        shown_default = (
            {} if default is None or default is msgspec.NODEFAULT else {"default": shape.write(default)}
        )
        properties[field.name] = shape.schema() | shown_default
    required = _required(struct)
    return {
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
        **({"required": required} if required else {}),
    }


def truth_remedy(value: object) -> str:
    """What to write for a value meant to be true or false: other readers of YAML take `no` for one."""
    if not isinstance(value, str):
        return ""
    small = value.strip().casefold()
    if small in ("true", "false"):
        return f"leave the quotes out: {small}"
    meant = "true" if small in ("yes", "y", "on") else "false" if small in ("no", "n", "off") else ""
    return f"write {meant}" if meant else ""


def type_name(value: object) -> str:
    """What users call the type of a plain value."""
    names: dict[type, str] = {
        type(None): "null", bool: "true or false", int: "a whole number", float: "a number", str: "text",
        bytes: "bytes", list: "a list", dict: "a mapping",
    }  # fmt: skip
    return names.get(type(value)) or _OTHER_NAMES.get(type(value).__name__) or type(value).__name__


def _default(field: msgspec.structs.FieldInfo) -> object:
    return field.default_factory() if field.default_factory is not msgspec.NODEFAULT else field.default


def _refuse(
    findings: Findings, path: Path, value: object, message: str, remedy: str = ""
) -> msgspec.UnsetType:
    findings.add(path, message, remedy=remedy, value=value)
    return NOTHING


def _typed(value: object) -> object:
    """What a text from the environment says where no text is wanted: `8` is the number 8."""
    if not isinstance(value, FromEnvironment):
        return value
    try:
        return plain_scalar(value)
    except ValueError:  # thousands of digits
        return str.__str__(value)


def _quote_hint(value: object) -> str:
    return "put it in quotes" if isinstance(value, bool | int | float) else ""
