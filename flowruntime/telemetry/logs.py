"""Log lines: one form for ours and everybody else's, secrets masked, on standard error.

Owns: `configure_logging`, `write_line`.
Does not own: what is logged. The bus logs through the standard library, under `flowrx`; nodes and the engine
through structlog, as `flow`. An application that has its own set-up simply never calls `configure_logging`.
structlog is imported when a line is written, not before.

Always holds: results go to standard output, so no log line does, unless the application says so; what is
masked is masked after the traceback was rendered, so it is in no traceback either. Calling twice leaves one
handler, the second's.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, Literal, TextIO, TypeAlias

from flowcore.errors import ConfigError
from flowruntime.telemetry.redaction import Redactor

if TYPE_CHECKING:
    from structlog.types import Processor

LogFormat: TypeAlias = Literal["console", "json"]
LogLevelName: TypeAlias = Literal["debug", "info", "warning", "error"]

_HANDLER = "flowrx"
_LOGGER = "flow"


def configure_logging(
    format: LogFormat = "console",
    level: LogLevelName = "info",
    *,
    redactor: Redactor | None = None,
    stream: TextIO | None = None,
) -> None:
    """Write log lines of `level` and above of the whole process in one form.

    Args:
        format: `console` for people, coloured on a terminal; `json` for machines, one object per line with
        `event`,
            `level`, `logger`, `timestamp` (ISO, UTC) and the fields given with `extra=` or by structlog.
        level: the least one that is written.
        redactor: masks secrets; None masks by field name only.
        stream: where to; standard error by default.

    Raises:
        ConfigError: an unknown format or level.
    """
    if format not in ("console", "json"):
        raise ConfigError(f"unknown log format {format!r}; one of console, json", value=format)
    if level not in ("debug", "info", "warning", "error"):
        raise ConfigError(f"unknown log level {level!r}; one of debug, info, warning, error", value=level)
    import structlog

    target = sys.stderr if stream is None else stream
    shared = _shared()
    handler = logging.StreamHandler(target)
    handler.name = _HANDLER
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, _without_leftovers],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                _Masked(redactor or Redactor()),
                _renderer(format, colours=_shows_colours(target)),
            ],
        )
    )
    root = logging.getLogger()
    for old in [old for old in root.handlers if old.name == _HANDLER]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,  # a later call must reach loggers already in use
    )


def write_line(message: str, level: LogLevelName, fields: Mapping[str, object]) -> None:
    """Log a line of a node or the engine: by structlog where the application configured it, else on stderr.

    Never raises: what cannot be logged must not fail the row it is about. Then standard error says so.
    """
    import structlog

    try:
        logger: Any = (
            structlog.get_logger(_LOGGER)
            if structlog.is_configured()
            else structlog.wrap_logger(structlog.PrintLogger(sys.stderr))
        )
        getattr(logger, level)(message, **fields)
    except Exception as error:  # noqa: BLE001 - of the application's processors and handlers, or of a value
        told = f"a log line could not be written: {type(error).__name__}; it was {message!r}"
        sys.stderr.write(told.encode("ascii", "backslashreplace").decode() + "\n")


def _shows_colours(target: TextIO) -> bool:
    """Whether a terminal is written to that shows colours, and nobody asked for none (no-color.org)."""
    return target.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


class _Masked:
    """A structlog processor that takes secrets out of all fields."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor

    def __call__(self, _: Any, __: str, fields: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        return self._redactor.value(fields)


def _without_leftovers(
    _: Any,
    __: str,
    fields: MutableMapping[str, Any],
) -> MutableMapping[str, Any]:
    """Drop what another handler's formatter left on the record; `extra=` cannot set these two."""
    fields.pop("message", None)
    fields.pop("asctime", None)
    return fields


def _shared() -> list[Processor]:
    import structlog

    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]


def _renderer(format: LogFormat, *, colours: bool) -> Processor:
    import structlog

    if format == "console":
        return structlog.dev.ConsoleRenderer(
            colors=colours, exception_formatter=structlog.dev.plain_traceback
        )
    return structlog.processors.JSONRenderer(serializer=_json)


def _json(fields: object, **_: object) -> str:
    import msgspec

    from flowcore.event_codec import plain_payload

    return msgspec.json.encode(plain_payload(fields)).decode()
