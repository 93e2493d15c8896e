"""Log lines in both forms, with secrets masked."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from flowcore.errors import ConfigError
from flowcore.values import Secret
from flowruntime.telemetry.logs import configure_logging, write_line
from flowruntime.telemetry.redaction import Redactor

KEY = "sk-live-42"


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()


def knowing_key() -> Redactor:
    redactor = Redactor()
    redactor.add(Secret(KEY))
    return redactor


def test_json_lines_carry_level_logger_time_and_fields() -> None:
    out = io.StringIO()
    configure_logging("json", stream=out)
    logging.getLogger("flowrx.events").warning("%d lost", 3, extra={"node": "a", "odd": float("nan")})
    structlog.get_logger("mine").info("hello", size=2**70)
    first, second = (json.loads(line) for line in out.getvalue().splitlines())
    assert first.pop("timestamp").endswith("Z")
    assert first == {
        "event": "3 lost",
        "level": "warning",
        "logger": "flowrx.events",
        "node": "a",
        "odd": {"$float": "nan"},
    }
    assert (second["event"], second["size"]) == ("hello", {"$int": str(2**70)})


@pytest.mark.parametrize("form", ["console", "json"])
def test_secrets_are_masked_in_message_fields_and_traceback(form: str) -> None:
    out = io.StringIO()
    configure_logging("json" if form == "json" else "console", redactor=knowing_key(), stream=out)
    try:
        int(f"{KEY}")
    except ValueError:
        logging.getLogger("flowrx").exception(
            "calling with %s", KEY, extra={"api_key": "unknown", "url": KEY}
        )
    text = out.getvalue()
    assert KEY not in text
    assert "unknown" not in text
    assert "ValueError: invalid literal for int() with base 10: '***'" in text


def test_lines_below_the_level_are_left_out_and_a_second_call_replaces_the_first() -> None:
    first, second = io.StringIO(), io.StringIO()
    configure_logging("console", "debug", stream=first)
    configure_logging("console", "warning", stream=second)
    logging.getLogger("flowrx").info("quiet")
    structlog.get_logger("flowrx").info("quiet")
    logging.getLogger("flowrx").warning("loud")
    assert first.getvalue() == ""
    assert second.getvalue().count("loud") == 1
    assert "quiet" not in second.getvalue()


def test_console_lines_have_no_colours_outside_a_terminal() -> None:
    out = io.StringIO()
    configure_logging(stream=out)
    logging.getLogger("flowrx").warning("plain")
    assert "\x1b" not in out.getvalue()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("xml",), "unknown log format 'xml'"), (("json", "loud"), "unknown log level")],
)
def test_unknown_forms_and_levels_are_refused(arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        configure_logging(*arguments)  # pyright: ignore[reportArgumentType] - wrong on purpose


def test_lines_of_nodes_go_to_standard_error_when_nobody_configured_logging(
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_line("hello", "warning", {"node": "a", "value": "lone \ud800"})
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "hello" in shown.err
    assert "node=a" in shown.err


def test_lines_of_nodes_follow_a_configuration_made_later(capsys: pytest.CaptureFixture[str]) -> None:
    write_line("before", "info", {})
    out = io.StringIO()
    configure_logging("json", stream=out)
    write_line("after", "info", {"node": "a"})
    assert "after" not in capsys.readouterr().err
    assert json.loads(out.getvalue())["event"] == "after"


def test_what_cannot_be_logged_harms_nobody(capsys: pytest.CaptureFixture[str]) -> None:
    class Unprintable:
        def __repr__(self) -> str:
            raise ValueError("no")

    write_line("hello \ud800", "info", {"value": Unprintable()})
    assert "could not be written: ValueError; it was 'hello" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("environment", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)]
)
def test_colours_are_for_terminals_that_want_them(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], *, coloured: bool
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    out = Terminal()
    configure_logging("console", stream=out)
    logging.getLogger("mine").warning("hello")
    assert ("\x1b[" in out.getvalue()) is coloured
