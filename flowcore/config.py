"""Configurations: plain data read into a node's configuration struct, every problem found at once.

Owns: the conversion field by field: durations as text, bounds, nested structs, unions; secrets by reference.
Does not own: expressions and secrets themselves (the caller's hook), types in words (flowcore.config_types),
JSON Schema (flowcore.config_schema), where the data was written (findings).

Always holds: no value changes its kind in silence (whole numbers become floats only where they are exact); a
field that was refused is named with its path; the struct is made only when nothing was refused.
"""

from __future__ import annotations

import enum
import typing
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import timedelta
from types import NoneType
from typing import (
    Annotated,
    Any,
    Final,
    Literal,
    NotRequired,
    Required,
    TypeVar,
    cast,
    get_args,
    get_origin,
)

import msgspec

from flowcore.config_bounds import bound_fault
from flowcore.config_types import (
    HOOKED,
    ITEM_CONTAINERS,
    MAPPINGS,
    UNIONS,
    describe_type,
    mentions,
    rank,
    resembles,
)
from flowcore.errors import ConfigError, FlowError, ValidationFailedError
from flowcore.findings import NOTHING, Findings, Path, did_you_mean, near_words, shown
from flowcore.plain import from_plain
from flowcore.shapes import Declared, Duration, read_declared, truth_remedy, type_name
from flowcore.values import Secret, SecretRef

S = TypeVar("S", bound=msgspec.Struct)

ConfigHook = Callable[[type, object, Path], object]
"""`hook(type, value, path)` reads a field of type Expression, Template or Secret; it may raise FlowError."""

_NATIVE: Final = (list, tuple, set, frozenset)
_EXACT_FLOAT: Final = 1 << 53
_DURATION: Final = Duration(zero=True)


def decode_config(
    config_type: type[S] | None, data: object, *, path: Path = ("config",), hook: ConfigHook
) -> S | None:
    """`data` as a `config_type`; None when the type takes no configuration.

    Args:
        config_type: the struct, or None for a node type without configuration.
        data: a mapping in plain form, or an instance of `config_type`, whose fields are then checked.
        path: where the configuration stands, for messages.
        hook: reads fields of type Expression, Template and Secret.

    Raises:
        ConfigError: attribute `problems` holds every finding.
    """
    findings = Findings()
    read = read_config(config_type, data, path=path, findings=findings, hook=hook)
    if read is NOTHING:
        lines = "\n".join(f"  {problem}" for problem in findings.problems)
        raise ConfigError(f"configuration is invalid\n{lines}", problems=tuple(findings.problems))
    return cast("S | None", read)


def read_config(
    config_type: type[Any] | None,
    data: object,
    *,
    path: Path,
    findings: Findings,
    hook: ConfigHook,
) -> msgspec.Struct | msgspec.UnsetType | None:
    """As `decode_config`, but problems go to `findings` and `NOTHING` comes back."""
    if config_type is None or not issubclass(config_type, msgspec.Struct):  # Sink[None, T] says NoneType
        if data is None or data == {}:
            return None
        findings.add(path, "this node type takes no configuration", remedy="remove it", value=data)
        return NOTHING
    given: object = cast("object", {}) if data is None else data
    read = _Reader(findings, hook).struct(config_type, given, path)
    return cast("msgspec.Struct | msgspec.UnsetType", read)


def read_secret(value: object) -> Secret | SecretRef:
    """What a field of type Secret holds until the runtime resolves it: for use in a hook.

    Raises:
        ValueError: the value is neither `{$secret: NAME}` nor a Secret made in code.
    """
    if isinstance(value, Secret | SecretRef):
        return value
    if isinstance(value, Mapping):
        named = cast("Mapping[object, object]", value)
        name = named.get("$secret")
        if len(named) == 1 and isinstance(name, str) and name:
            return SecretRef(name)
    raise ValueError(
        "must be a secret by name, as in {$secret: OPENAI_API_KEY}; never write the secret itself"
    )


def with_secrets(config: Any, resolve: Callable[[str], Secret]) -> Any:
    """The configuration with every SecretRef in it replaced by `resolve(name)`; the original is unchanged."""
    if isinstance(config, SecretRef):
        return resolve(config.name)
    if isinstance(config, msgspec.Struct):
        names = config.__struct_fields__
        return msgspec.structs.replace(
            config, **{name: with_secrets(getattr(config, name), resolve) for name in names}
        )
    if type(config) is dict:
        return {key: with_secrets(item, resolve) for key, item in cast("dict[object, Any]", config).items()}
    if type(config) in (list, tuple):
        found = [with_secrets(item, resolve) for item in cast("Sequence[Any]", config)]
        return found if type(config) is list else tuple(found)
    return config


class _Reader:
    """One configuration being read; each method returns the native value, or NOTHING after noting why not."""

    def __init__(self, findings: Findings, hook: ConfigHook) -> None:
        self._findings = findings
        self._hook = hook

    # --- containers of fields ---

    def struct(self, struct: type[msgspec.Struct], value: Any, path: Path) -> object:
        if issubclass(struct, Declared):  # checked when it is made
            return value if isinstance(value, struct) else read_declared(struct, value, path, self._findings)
        entries = self._entries(_fields_of(value) if isinstance(value, struct) else value, path)
        if entries is None:
            return NOTHING
        tag, word = struct.__struct_config__.tag_field, struct.__struct_config__.tag
        if tag is not None and entries.pop(tag, word) != word:
            return self._refuse((*path, tag), NOTHING, f"must be {word!r}")
        known = {field.encode_name: field for field in msgspec.structs.fields(struct)}
        before = len(self._findings.problems)
        read: dict[str, object] = {}
        for name, given in entries.items():
            if name in known:
                read[known[name].name] = self.value(known[name].type, given, (*path, name))
            else:
                self._findings.add_unknown(path, name, known, what="configuration field")
        meant = self._meant(entries, known)
        for name, field in known.items():
            if name not in entries and name not in meant:
                self._absent(field, read, (*path, name))
        return NOTHING if len(self._findings.problems) > before else self._make(struct, read, path)

    @staticmethod
    def _meant(entries: Iterable[str], known: Collection[str]) -> set[str]:
        """Known names the unknown ones were probably meant for: that these are missing follows from it."""
        return {near for name in entries if name not in known for near in near_words(name, known)}

    def _absent(self, field: msgspec.structs.FieldInfo, read: dict[str, object], path: Path) -> None:
        if field.required:
            self._findings.add(
                path, "is required and missing", remedy=f"add {path[-1]}: {describe_type(field.type)}"
            )
        elif field.default not in (None, msgspec.NODEFAULT, msgspec.UNSET) and mentions(field.type, HOOKED):
            read[field.name] = self.value(
                field.type, field.default, path
            )  # a default in plain form is compiled too

    def _make(self, struct: type[msgspec.Struct], fields: dict[str, object], path: Path) -> object:
        try:
            return struct(**fields)
        except ValidationFailedError as failed:
            self._findings.include(failed.problems, path)
        except Exception as fault:  # noqa: BLE001 - a struct's __post_init__ may raise anything; it is reported
            self._findings.add(path, str(fault) or repr(fault))
        return NOTHING

    def _entries(self, value: Any, path: Path) -> dict[str, object] | None:
        if not isinstance(value, Mapping):
            self._findings.add(path, f"must be a mapping of fields, not {type_name(value)}", value=value)
            return None
        entries = cast("Mapping[object, object]", value)
        for key in entries:
            if not isinstance(key, str):
                self._findings.add(path, "must have text as keys", value=key)
                return None
        return cast("dict[str, object]", dict(entries))

    def _typed_dict(self, annotation: Any, value: Any, path: Path) -> object:
        entries = self._entries(value, path)
        if entries is None:
            return NOTHING
        hints = typing.get_type_hints(annotation, include_extras=True)
        required: frozenset[str] = annotation.__required_keys__
        before = len(self._findings.problems)
        read: dict[str, object] = {}
        for name, given in entries.items():
            if name in hints:
                read[name] = self.value(hints[name], given, (*path, name))
            else:
                self._findings.add_unknown(path, name, hints, what="configuration field")
        for name in sorted(required - entries.keys() - self._meant(entries, hints)):
            self._findings.add((*path, name), "is required and missing")
        return NOTHING if len(self._findings.problems) > before else read

    # --- one value ---

    def value(self, annotation: Any, value: Any, path: Path) -> object:
        metadata: list[object] = []
        while get_origin(annotation) in (Annotated, Required, NotRequired):
            if get_origin(annotation) is Annotated:
                metadata.extend(annotation.__metadata__)
            annotation = get_args(annotation)[0]
        annotation = getattr(annotation, "__supertype__", annotation)  # NewType
        read = self._bare(annotation, value, path)
        for meta in metadata:
            if read is not NOTHING and isinstance(meta, msgspec.Meta):
                fault = bound_fault(meta, read)
                if fault is not None:
                    read = self._refuse(path, value, fault)
        return read

    def _bare(self, annotation: Any, value: Any, path: Path) -> object:  # noqa: PLR0911 - one return per kind
        origin = get_origin(annotation) or annotation
        if annotation in (Any, object) or isinstance(annotation, TypeVar | str):
            return value
        if origin in UNIONS:
            return self._union(annotation, value, path)
        if origin is Literal:
            return self._one_of(get_args(annotation), value, path)
        if origin in ITEM_CONTAINERS:
            return self._items(annotation, origin, value, path)
        if origin in MAPPINGS:
            return self._mapping(annotation, value, path)
        if not isinstance(origin, type):
            return self._converted(annotation, value, path)
        return self._of_class(origin, value, path)

    def _of_class(self, cls: type[Any], value: Any, path: Path) -> object:  # noqa: PLR0911 - one return per class
        if issubclass(cls, HOOKED):
            return self._hooked(cls, value, path)
        if typing.is_typeddict(cls):
            return self._typed_dict(cls, value, path)
        if issubclass(cls, msgspec.Struct):
            return self.struct(cls, value, path)
        if cls is timedelta:
            return _DURATION.read(value, path, self._findings)
        if issubclass(cls, enum.Enum):
            return value if isinstance(value, cls) else self._enum(cls, value, path)
        if cls is float and type(value) is int and abs(value) <= _EXACT_FLOAT:
            return float(value)
        if cls in (bool, int, float, str, bytes, NoneType):
            return value if type(value) is cls else self._scalar(cls, value, path)
        if isinstance(value, cls):
            return value
        return self._converted(cls, value, path)

    def _scalar(self, cls: type[Any], value: Any, path: Path) -> object:
        if cls is bytes and isinstance(value, Mapping) and "$bytes" in value:
            return self._guarded(lambda: from_plain(cast("object", value)), value, path)
        remedy = "put it in quotes" if cls is str and isinstance(value, bool | int | float) else ""
        if cls is bool:
            remedy = truth_remedy(cast("object", value))
        if isinstance(value, SecretRef) or (isinstance(value, Mapping) and "$secret" in value):
            remedy = "no secret can stand here; only fields declared as Secret take one"
        given = type_name(cast("object", value))
        return self._refuse(path, value, f"must be {describe_type(cls)}, not {given}", remedy)

    def _hooked(self, cls: type[Any], value: Any, path: Path) -> object:
        told = NOTHING if issubclass(cls, Secret) else value  # a secret written by mistake is not repeated
        return self._guarded(lambda: self._hook(cls, value, path), told, path)

    def _guarded(self, read: Callable[[], object], value: Any, path: Path) -> object:
        try:
            return read()
        except ValidationFailedError as failed:
            self._findings.include(failed.problems, path)
        except (FlowError, ValueError, TypeError) as fault:
            parts: Sequence[tuple[Path, Exception]] = getattr(fault, "faults", ())
            for place, part in parts:  # of a value with several expressions in it
                self._findings.add((*path, *place), str(part))
            message = str(fault)
            repeated = value is not NOTHING and shown(value) in message
            if not parts:
                self._findings.add(path, message, value=NOTHING if repeated else value)
        return NOTHING

    def _converted(self, annotation: Any, value: Any, path: Path) -> object:
        """What msgspec can make of it: dates, UUIDs, decimals, dataclasses and the like."""
        try:
            return msgspec.convert(value, annotation)
        except msgspec.ValidationError as fault:
            return self._refuse(path, value, f"must be {describe_type(annotation)}: {fault}")
        except (TypeError, ValueError) as fault:  # a class msgspec does not know: only an instance would do
            del fault
            return self._refuse(path, value, f"must be {describe_type(annotation)}, not {type_name(value)}")

    def _enum(self, cls: type[enum.Enum], value: Any, path: Path) -> object:
        found = [member for member in cls if type(member.value) is type(value) and member.value == value]
        return found[0] if found else self._one_of([member.value for member in cls], value, path)

    def _one_of(self, choices: Iterable[object], value: Any, path: Path) -> object:
        words = list(choices)
        if any(type(word) is type(value) and word == value for word in words):
            return value
        near = (
            did_you_mean(value, [word for word in words if isinstance(word, str)])
            if isinstance(value, str)
            else ""
        )
        remedy = near if near.startswith("did you mean") else ""
        return self._refuse(path, value, f"must be one of {', '.join(map(repr, words))}", remedy)

    def _items(self, annotation: Any, origin: Any, value: Any, path: Path) -> object:
        if type(value) not in _NATIVE:
            return self._refuse(path, value, f"must be a list, not {type_name(value)}")
        items = list(cast("Iterable[object]", value))
        types = get_args(annotation) or (Any,)
        if origin is tuple and Ellipsis not in types and get_args(annotation):
            if len(items) != len(types):
                return self._refuse(path, value, f"must have exactly {len(types)} items")
        else:
            types = (types[0],) * len(items)
        pairs = enumerate(zip(types, items, strict=True))
        read = [self.value(kind, item, (*path, index)) for index, (kind, item) in pairs]
        if any(item is NOTHING for item in read):
            return NOTHING
        make = cast("Callable[[list[object]], object]", origin if origin in _NATIVE else list)
        return self._guarded(lambda: make(read), value, path)

    def _mapping(self, annotation: Any, value: Any, path: Path) -> object:
        if not isinstance(value, Mapping):
            return self._refuse(path, value, f"must be a mapping, not {type_name(value)}")
        key_type, item_type = get_args(annotation) or (Any, Any)
        read: dict[object, object] = {}
        for key, item in cast("Mapping[object, object]", value).items():
            step = (*path, key if isinstance(key, str | int) else repr(key))
            read[self.value(key_type, key, step)] = self.value(item_type, item, step)
        refused = NOTHING in read or any(item is NOTHING for item in read.values())
        return NOTHING if refused else read

    def _union(self, annotation: Any, value: Any, path: Path) -> object:
        members = [member for member in get_args(annotation) if member is not msgspec.UnsetType]
        if value is None and NoneType in members:
            return None
        members = sorted(
            (member for member in members if member is not NoneType), key=lambda member: rank(member, value)
        )
        attempts: list[tuple[Any, Findings]] = []
        for member in members:
            attempt = self._findings.branch()
            read = _Reader(attempt, self._hook).value(member, value, path)
            if read is not NOTHING:
                return read
            attempts.append((member, attempt))
        likely = [attempt for member, attempt in attempts if len(members) == 1 or resembles(member, value)]
        if len(likely) == 1:
            self._findings.problems.extend(likely[0].problems)
            return NOTHING
        return self._refuse(path, value, f"must be {describe_type(annotation)}, not {type_name(value)}")

    def _refuse(self, path: Path, value: Any, message: str, remedy: str = "") -> msgspec.UnsetType:
        self._findings.add(path, message, remedy=remedy, value=value)
        return NOTHING


def _fields_of(struct: msgspec.Struct) -> dict[str, object]:
    """A struct's fields by encoded name, so that one made in code is checked like one read from a file."""
    return {field.encode_name: getattr(struct, field.name) for field in msgspec.structs.fields(struct)}
