"""The closing summary of a run, and its result as JSON.

Owns: which columns are shown, the wording of what failed and what was left, the exit code of a result.
Does not own: the result (flowruntime.execute.result).

Always holds: a run with failed rows never reads like a success.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from flowcore.event_codec import plain_payload
from flowcore.states import Cancelled, Failed, Paused
from flowruntime.cli.eventlines import seconds
from flowruntime.cli.failures import FAILED, say
from flowruntime.cli.signals import INTERRUPTED
from flowruntime.cli.tables import table

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from flowruntime.compile.resolved import ResolvedGraph
    from flowruntime.execute.result import RunResult

_COUNTS: Final = (
    "completed", "failed", "handled", "replaced", "dead_lettered", "held", "dropped", "unrouted", "retried",
    "cancelled",
)  # fmt: skip
_ALWAYS: Final = ("completed", "failed")
_ERRORS_SHOWN: Final = 3
_ARTICLES: Final = {
    "approval": "an approval", "form": "a form", "signal": "a signal", "delay": "its time",
}  # fmt: skip
_SIMPLE_LIST: Final = re.compile(r"\[\n\s+([^\[\]{}\"]*?)\n\s+\]")


def exit_code(result: RunResult, *, interrupted: bool) -> int:
    """0 all succeeded, every failure was handled, or it waits; 130 a drain cut short; else 1."""
    if interrupted and isinstance(result.state, Cancelled):
        return INTERRUPTED
    waits = result.waits or (isinstance(result.state, Paused) and result.held)
    return 0 if result.ok or result.handled or waits else FAILED


def ends_of(graph: ResolvedGraph) -> list[str]:
    """The nodes nothing follows, but for what takes their failures."""
    senders = {connection.from_node for connection in graph.connections if connection.kind != "error"}
    return [node_id for node_id in graph.nodes if node_id not in senders]


def say_waits(result: RunResult) -> None:
    """What a paused request waits for, and the command that goes on, on standard error."""
    several = len(result.waits) > 1
    for wait in result.waits:
        until = "" if wait.expires_at is None else f", until {moment(wait.expires_at)}"
        title = f" {wait.title!r}" if wait.title else ""
        which = f" --wait {wait.id}" if several else ""
        answer = "true" if wait.wait_kind == "approval" else "JSON"
        say(
            f"paused: {wait.node} waits for {_ARTICLES[wait.wait_kind]}{title}{until}\n"
            f"  flow resume {result.execution_id}{which} --input {answer}"
        )


def moment(at: float) -> str:
    """A time as people read it, UTC."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def result_json(result: RunResult, ends: Collection[str] | None = None) -> str:
    """The result as JSON, by the plain rules of values: NaN, bytes and the like in their `$` forms.

    Args:
        result: of a request or a run.
        ends: the nodes whose outputs are wanted, with the outcomes of those that did not complete;
            None: everything.
    """
    whole = result.to_data()
    data = plain_payload(whole if ends is None else _brief(whole, ends))
    text = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False)
    # A vector of 384 numbers on as many lines helps nobody.
    return _SIMPLE_LIST.sub(lambda found: f"[{' '.join(found[1].split())}]", text)


def _brief(whole: dict[str, Any], ends: Collection[str]) -> dict[str, Any]:
    """What a person asked for: the answer, and what went wrong."""
    unfinished = {
        node: {key: value for key, value in found.items() if value}
        for node, found in whole["outcomes"].items()
        if found["state"] != "completed"
    }
    brief = {key: whole[key] for key in ("workflow_id", "execution_id", "state", "ok", "duration_s")}
    brief["outputs"] = {node: found for node, found in whole["outputs"].items() if node in ends}
    brief |= {key: whole[key] for key in ("captured", "errors", "waits") if whole.get(key)}
    return brief | ({"outcomes": unfinished} if unfinished else {})


def stream_summary(result: RunResult) -> str:
    """What a continuous run came to: rows by node, errors, what was left."""
    shown = [
        name for name in _COUNTS if name in _ALWAYS or any(getattr(c, name) for c in result.counts.values())
    ]
    rows: list[Sequence[str]] = [["node", *shown]]
    rows += [
        [node, *(f"{getattr(counts, name):,}" for name in shown)] for node, counts in result.counts.items()
    ]
    numbers = range(1, len(shown) + 1)
    duration = result.duration.total_seconds()
    rate = f", {result.records / duration:,.0f}/s" if duration > 0 and result.records else ""
    lines = [
        table(rows, numbers=numbers),
        *_errors(result),
        f"{_state(result)}: {result.records:,} records in {seconds(duration)}{rate}{_left(result)}",
        *_held(result),
    ]
    return "\n".join(lines)


def request_summary(result: RunResult) -> str:
    """What a request came to: the outcome of each node."""
    rows: list[Sequence[str]] = [["node", "outcome", "duration", ""]]
    for node, outcome in result.outcomes.items():
        took = None if outcome.duration is None else outcome.duration.total_seconds()
        notes = [
            f"because of {outcome.cause}" if outcome.cause else "",
            f"{outcome.rows:,} rows" if outcome.rows > 1 else "",
            f"{outcome.failed:,} failed" if outcome.failed else "",
            f"{outcome.attempts} attempts" if outcome.attempts > 1 else "",
        ]
        rows.append([node, outcome.state, seconds(took), ", ".join(note for note in notes if note)])
    duration = seconds(result.duration.total_seconds())
    return "\n".join([table(rows, numbers={2}), *_errors(result), f"{_state(result)} in {duration}"])


def _state(result: RunResult) -> str:
    state = result.state
    if isinstance(state, Cancelled):
        return f"{state.name} ({state.reason})"
    if isinstance(state, Paused):
        return f"{state.name} ({state.reason})"
    if isinstance(state, Failed) and result.cause is not None:
        return f"{state.name} ({_one_line(result.cause)})"
    return f"{state.name}, every failure was handled" if result.handled else state.name


def _left(result: RunResult) -> str:
    return (
        f"; {result.abandoned:,} records were left unfinished and not committed" if result.abandoned else ""
    )


def _held(result: RunResult) -> list[str]:
    """Rows that came back, and rows that wait, with the commands that answer them."""
    lines: list[str] = []
    if result.returned:
        which = "1 row" if result.returned == 1 else f"{result.returned:,} rows"
        lines.append(f"{which} that had waited came back")
    if result.held:
        which = "1 row waits" if result.held == 1 else f"{result.held:,} rows wait"
        lines.append(
            f"{which}, stored until the next run; `flow waits` lists what for, `flow resume ID` answers"
        )
    return lines


def _errors(result: RunResult) -> list[str]:
    lines: list[str] = []
    for node, errors in result.errors.items():
        lines += [f"{node}: {_one_line(error)}" for error in errors[:_ERRORS_SHOWN]]
        counts = result.counts.get(node)
        total = max(len(errors), 0 if counts is None else counts.failed)
        if total > _ERRORS_SHOWN:
            lines.append(f"{node}: and {total - _ERRORS_SHOWN:,} more failures")
    return lines


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def spoken_for(graph: Any) -> bool:
    """Whether the workflow itself writes to standard output, so that nothing else may."""
    return any(node.definition.type == "stdio.sink" for node in graph.nodes.values())
