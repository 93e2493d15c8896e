"""Marbles: a workflow's or operator's behaviour in time, drawn as two lines of text.

Owns: `assert_marbles` and the notation. Does not own: running (flowruntime.testing.running), virtual time
    (virtual).

    -    one tick passes
    a    a row; adjacent letters come, or leave, in one tick: `ab` is one frame of two rows
    |    the source ends; the run has ended
    #    the source fails; the run has failed

Letters, `|` and `#` take no time. Always holds: nothing sleeps for real; the same text gives the same run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final, NamedTuple

from flowcore.settings import Settings
from flowcore.states import Failed
from flowcore.workflow import Workflow
from flowruntime.testing.collected import CollectedSink
from flowruntime.testing.running import run_workflow
from flowruntime.testing.scripted import CRASH, ScriptedSource, delay, scripted
from flowruntime.testing.virtual import run_virtual

TICK: Final = timedelta(seconds=1)
_STRANGERS: Final = "αβγδεζηθικλμνξπρστυφχψω"
_ENDS: Final = ("|", "#")


class _Marble(NamedTuple):
    tick: int
    sign: str


def assert_marbles(
    subject: Workflow | Callable[..., Any],
    *,
    source: str,
    result: str | Mapping[str, str],
    elements: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = None,
    replace: Mapping[str, Any] | None = None,
    tick: timedelta = TICK,
    seed: int | None = None,
) -> None:
    """Push `source` through on virtual time and compare what comes out, and when, with `result`.

        assert_marbles(keep_twice, source="a-b|", result="aa-bb|")
        assert_marbles(workflow, source="ab|", result={"alerts": "A|", "rest": "b|"}, elements={"A": 1})

    Args:
        subject: a workflow, or a function or class declared by `@node` or `@operator`.
        source: the rows and when they come; ends with `|` or `#`.
        result: the rows that leave and when; by sink, or end node, when there are several.
        elements: the value of a letter; a letter without one stands for itself.
        config: of a node or operator given as `subject`.
        replace: functions or values in the place of nodes.
        tick: what one `-` lasts.
        seed: draws the order of tasks ready at once.

    Raises:
        AssertionError: something else came out, or at another time; shows both lines and the values behind
            letters.
        ValueError: a text is no marble diagram.

    A plain test calls this; it makes a loop of its own.
    """
    values = dict(elements or {})
    script = _script(_read(source), values, tick)
    workflow = subject if isinstance(subject, Workflow) else _workflow_of(subject, config)
    sinks, failed, ended_s = run_virtual(_run(workflow, script, replace), seed=seed)
    expected = result if isinstance(result, Mapping) else _only(result, sinks)
    letters = _Letters(values)
    got = {
        name: _draw([*_marbles(sink, letters, tick), _Marble(_ticks(ended_s, tick), "#" if failed else "|")])
        for name, sink in sinks.items()
    }
    wanted = {name: _draw(_read(text)) for name, text in expected.items()}
    if wanted != {name: got[name] for name in wanted if name in got}:
        raise AssertionError(_difference(source, wanted, got, letters))


async def _run(
    workflow: Workflow, script: ScriptedSource, replace: Mapping[str, Any] | None
) -> tuple[dict[str, CollectedSink], bool, float]:
    run = await run_workflow(workflow, script, replace=replace)
    return run.sinks, isinstance(run.result.state, Failed), asyncio.get_running_loop().time()


def _workflow_of(subject: Callable[..., Any], config: Mapping[str, Any] | None) -> Workflow:
    # An operator that settles on entry is refused where more than at most once is promised.
    workflow = Workflow("marbles", settings=Settings(delivery="at_most_once"))
    workflow.add(subject, id="subject", config=config)
    return workflow


# --- reading and drawing ----------------------------------------------------------------------------------


def _read(text: str) -> list[_Marble]:
    """The signs of a diagram with their ticks.

    Raises:
        ValueError: it does not end with `|` or `#`, or goes on behind it.
    """
    marbles: list[_Marble] = []
    tick = 0
    for sign in text.replace(" ", ""):
        if sign == "-":
            tick += 1
        else:
            marbles.append(_Marble(tick, sign))
    if sum(marble.sign in _ENDS for marble in marbles) != 1 or text.rstrip()[-1:] not in _ENDS:
        raise ValueError(f"{text!r} is no marble diagram: it ends with one '|' (the end) or '#' (a failure)")
    return marbles


def _draw(marbles: Sequence[_Marble]) -> str:
    """One line; signs of one tick stand together."""
    line: list[str] = []
    tick = 0
    for marble in marbles:
        line.append("-" * (marble.tick - tick) + marble.sign)
        tick = marble.tick
    return "".join(line)


def _script(marbles: Sequence[_Marble], values: Mapping[str, Any], tick: timedelta) -> ScriptedSource:
    elements: list[Any] = []
    now = 0
    for marble in marbles:
        if marble.tick > now:
            elements.append(delay((marble.tick - now) * tick.total_seconds()))
            now = marble.tick
        if marble.sign == "#":
            elements.append(CRASH)
        elif marble.sign != "|":
            elements.append(values.get(marble.sign, marble.sign))
    return scripted(*elements)


class _Letters:
    """Signs for values: those of the test, and Greek ones for values it did not expect."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.known = dict(values)
        self._free = iter(_STRANGERS)

    def of(self, value: Any) -> str:
        for letter, known in self.known.items():
            if type(known) is type(value) and known == value:
                return letter
        if isinstance(value, str) and len(value) == 1 and value not in self.known and value not in "-|#":
            return value
        letter = next(self._free, "?")
        self.known[letter] = value
        return letter


def _marbles(sink: CollectedSink, letters: _Letters, tick: timedelta) -> list[_Marble]:
    return [_Marble(_ticks(row.at_s, tick), letters.of(row.value)) for row in sink.rows]


def _ticks(seconds: float, tick: timedelta) -> int:
    return int(seconds / tick.total_seconds() + 1e-6)


def _only(result: str, sinks: Mapping[str, CollectedSink]) -> dict[str, str]:
    if len(sinks) != 1:
        raise ValueError(f"the workflow ends in {', '.join(sinks)}; give result={{name: diagram}}")
    return {next(iter(sinks)): result}


def _difference(source: str, wanted: Mapping[str, str], got: Mapping[str, str], letters: _Letters) -> str:
    lines = [f"marbles differ\n  source    {source.replace(' ', '')}"]
    for name, text in wanted.items():
        if name not in got:
            lines.append(f"  {name!r}: there is no such sink or end; there are {', '.join(map(repr, got))}")
        elif got[name] == text:
            lines.append(f"  {name!r} is as expected: {text}")
        else:
            at = next((i for i, (a, b) in enumerate(zip(text, got[name], strict=False)) if a != b), None)
            at = min(len(text), len(got[name])) if at is None else at
            lines.append(f"  {name!r}\n  expected  {text}\n  got       {got[name]}\n            {' ' * at}^")
    shown = {letter for text in (*wanted.values(), *got.values()) for letter in text} & letters.known.keys()
    lines += [f"  where {letter} is {letters.known[letter]!r}" for letter in sorted(shown)]
    return "\n".join(lines)
