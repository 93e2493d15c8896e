"""Rows into lines: JSON, CSV and plain text, lossless or refused.

Owns: `JsonLinesEncoder`, `LinesEncoder`, `CsvEncoder`, `encode_all`.
Does not own: where the bytes go (the sinks).

Always holds: a row becomes exactly one line (CSV: one record), or its error says why not; nothing is
changed in silence: NaN is never null, bytes are never text, whole numbers of any size are exact.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from itertools import islice
from typing import Final, Literal, Protocol, cast
from uuid import UUID

import msgspec
import orjson

from flowcore.errors import FlowError, SinkError
from flowcore.findings import shown
from flowcore.plain import to_plain
from flowcore.values import Json, ValueFormError

_STRICT: Final = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_SUBCLASS
_BINARY: Final = (bytes, bytearray)
_NON_FINITE: Final = ("nan", "inf")


class LineEncoder(Protocol):
    """One row as bytes, newline included."""

    def encode(self, row: object) -> bytes:
        """The row's line.

        Raises:
            SinkError, ValueFormError: the row has no such form.
        """
        ...


def encode_all(encoder: LineEncoder, rows: Sequence[object]) -> tuple[list[bytes], dict[int, Exception]]:
    """The lines of the rows that have one, and why the others have none, by index."""
    encode: Callable[[object], bytes] = encoder.encode
    try:
        return list(map(encode, rows)), {}
    except Exception:  # noqa: BLE001, S110 - a row's own code may raise anything; the rows are taken one by one below
        pass
    lines: list[bytes] = []
    errors: dict[int, Exception] = {}
    for index, row in enumerate(rows):
        try:
            lines.append(encode(row))
        except FlowError as fault:
            errors[index] = fault
        except Exception as fault:  # noqa: BLE001 - as above
            errors[index] = _refused(row, f"{type(fault).__name__}: {fault}", fault)
    return lines, errors


class JsonLinesEncoder:
    """One JSON value a line; structs, dataclasses, dates, UUIDs and enums as the JSON msgspec gives them.

    With `lossless`, what JSON cannot say is written in the `$` forms of FlowRx; without, it is refused.
    """

    def __init__(self, *, lossless: bool = False) -> None:
        self._lossless = lossless

    def encode(self, row: object) -> bytes:
        if self._lossless:
            return orjson.dumps(to_plain(row), option=orjson.OPT_APPEND_NEWLINE)
        return to_json(row) + b"\n"


def to_json(value: object) -> bytes:
    """Compact JSON of a value, on one line.

    Raises:
        SinkError, ValueFormError: it holds something JSON has no form for.
    """
    try:
        encoded = orjson.dumps(value, default=_builtin, option=_STRICT)
    except (TypeError, RecursionError) as fault:
        return _exact(value, fault)
    if b"null" in encoded and _may_be_non_finite(value):
        _refuse_non_finite(value)
    return encoded


def _exact(value: object, fault: Exception) -> bytes:
    """What orjson refuses: whole numbers beyond 64 bits are fine, the rest is an error that says where."""
    cause = fault.__cause__
    if isinstance(cause, FlowError):
        raise cause
    try:
        return Json.of(value).raw
    except ValueFormError as refused:
        raise SinkError(
            f"the row cannot be written as JSON: {refused}; set values: lossless, or convert it before",
        ) from refused
    except RecursionError as refused:
        raise SinkError("the row is nested too deep to be written as JSON") from refused


def _builtin(value: object) -> object:
    if isinstance(value, Json):
        return value.parse()
    if isinstance(value, _BINARY):
        raise SinkError(
            f"the row holds bytes ({shown(value)}), which JSON has no form for; "
            f"set values: lossless, or encode them"
        )
    plain: object = msgspec.to_builtins(value, builtin_types=_BINARY, str_keys=True)
    if plain is value:
        raise SinkError(
            f"the row holds a {type(value).__name__} ({shown(value)}), which JSON has no form for"
        )
    return plain


def _may_be_non_finite(value: object) -> bool:
    text = repr(value)  # far cheaper than looking at every number in Python
    return any(word in text for word in _NON_FINITE)


def _refuse_non_finite(value: object) -> None:
    try:
        json.dumps(value, allow_nan=False, default=_portable)
    except ValueError as fault:
        where = _where_non_finite(value)
        raise SinkError(
            f"the row holds a number that is not finite{where}, which JSON has no form for; "
            f"set values: lossless, or replace it by null before"
        ) from fault


def _portable(value: object) -> object:
    if isinstance(value, datetime | date | time | UUID | Decimal | Enum):
        return str(value)
    return _builtin(value)


def _where_non_finite(value: object) -> str:
    try:
        Json.of(value)
    except ValueFormError as found:
        return f" ({found})"
    return ""


class LinesEncoder:
    """Text as it is, one line a row."""

    def encode(self, row: object) -> bytes:
        if not isinstance(row, str):
            raise _refused(row, f"it is a {type(row).__name__}, format lines takes text; use format: jsonl")
        if "\n" in row or row.endswith("\r"):
            raise _refused(
                row, "it holds a line break and would be read back as another text; use format: jsonl"
            )
        try:
            return row.encode() + b"\n"
        except UnicodeEncodeError as fault:
            raise _refused(row, "it holds a lone surrogate, which UTF-8 cannot write", fault) from fault


class _Writer(Protocol):
    def writerow(self, row: Sequence[object], /) -> object: ...


class CsvEncoder:
    """Records of fixed columns. None is an empty cell, a list or dict is its JSON, True is `true`.

    The columns are those given, else those of the first row. A row with other columns is refused.
    """

    def __init__(self, *, delimiter: str = ",", columns: Sequence[str] | None = None) -> None:
        self._delimiter = delimiter
        self._buffer = io.StringIO()
        self._writer = csv.writer(self._buffer, delimiter=delimiter, lineterminator="\n")
        # The csv module quotes no lone carriage return, and readers take it for the end of the record.
        self._quoting = csv.writer(
            self._buffer, delimiter=delimiter, lineterminator="\n", quoting=csv.QUOTE_ALL
        )
        self.columns: tuple[str, ...] | None = tuple(columns) if columns is not None else None

    def header(self) -> bytes:
        return self._line(list(self.columns or ()))

    def names_in(self, beginning: bytes) -> tuple[str, ...] | None:
        """The columns that the first record of a file names; None: it cannot be read."""
        text = beginning.removeprefix(codecs.BOM_UTF8).decode(errors="surrogateescape")
        try:
            reader = csv.reader(io.StringIO(text, newline=""), delimiter=self._delimiter, strict=True)
            first = list(islice(reader, 1))
            names = first[0] if first else []
            "".join(names).encode()
        except (csv.Error, UnicodeEncodeError):
            return None
        return tuple(names)

    def adopt(self, row: object) -> None:
        """Take the columns from a row, if none are known yet and the row has names."""
        fields = _fields(row)
        if self.columns is None and fields:
            self.columns = tuple(fields)

    def encode(self, row: object) -> bytes:
        fields = _fields(row)
        columns = self.columns
        if fields is None or columns is None:
            raise _refused(row, f"it is a {type(row).__name__}, format csv takes an object with named fields")
        if len(fields) > len(columns) or any(name not in columns for name in fields):
            extra = [name for name in fields if name not in columns]
            raise _refused(
                row,
                f"its fields {extra} are none of the columns ({', '.join(columns)}); set columns, "
                f"or pick fields before",
            )
        return self._line([_cell(fields.get(name), name) for name in columns])

    def _line(self, cells: Sequence[object]) -> bytes:
        text = self._written(self._writer, cells)
        if "\r" in text:
            text = self._written(self._quoting, cells)
        try:
            return text.encode()
        except UnicodeEncodeError as fault:
            raise _refused(cells, "it holds a lone surrogate, which UTF-8 cannot write", fault) from fault

    def _written(self, writer: _Writer, cells: Sequence[object]) -> str:
        buffer = self._buffer
        buffer.seek(0)
        buffer.truncate()
        writer.writerow(cells)
        return buffer.getvalue()


def _fields(row: object) -> Mapping[str, object] | None:
    if isinstance(row, Mapping):
        return cast("Mapping[str, object]", row)
    if isinstance(row, msgspec.Struct):
        return msgspec.structs.asdict(row)
    return None


def _cell(value: object, name: str) -> object:
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, _BINARY):
        raise SinkError(
            f"column {name!r} holds bytes ({shown(value)}), which CSV has no form for; encode them"
        )
    return to_json(value).decode()


def _refused(row: object, why: str, cause: Exception | None = None) -> SinkError:
    error = SinkError(f"the row {shown(row)} cannot be written: {why}", value=shown(row))
    error.__cause__ = cause
    return error


OutputFormat = Literal["jsonl", "csv", "lines"]


def encoder_of(
    format: OutputFormat,
    *,
    lossless: bool,
    delimiter: str,
    columns: Sequence[str] | None,
) -> LineEncoder:
    """The encoder of a format."""
    if format == "csv":
        return CsvEncoder(delimiter=delimiter, columns=columns)
    return LinesEncoder() if format == "lines" else JsonLinesEncoder(lossless=lossless)
