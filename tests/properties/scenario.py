"""One seed, one story: a random workflow, random faults, random times, and what must hold whatever happens.

Owns: `story_of`; `play_stream` and `play_requests`, which run a story on the running (virtual) loop and
return what was wrong; `play`, which does both.
Does not own: instruments, the palette and reference of cases (tests.differential).
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, cast

from flowcore.dead_letters import DeadLetter
from flowcore.errors import DeadLetterError, FlowError
from flowcore.events import (
    TERMINAL_KINDS,
    ExecutionEvent,
    NodeCompleted,
    NodeFailed,
    NodeStarted,
    WorkflowStarted,
)
from flowcore.states import Completed, Failed, Partial
from flowruntime.execute.result import RunResult
from flowruntime.runtime import FlowRuntime
from flowruntime.testing.letters import CollectedLetters
from flowruntime.testing.virtual import run_virtual, wall_clock
from tests.differential.case import SOURCE, Case, workflow_of
from tests.differential.check import bag, compare_request, compare_stream
from tests.differential.generate import random_case
from tests.differential.palette import OUTSIDE, PALETTE, CaseLetters, Outside, record_of
from tests.differential.reference import Reference
from tests.properties.instruments import Watch

_MS = 0.001
_AFTERWARDS_S = 10.0
_HANGS_S = 120.0
"""Of virtual time: no story takes as long."""
_MOST_NO_ROOM = 100
"""Runs that may end because their dead letters could not be written."""


@dataclass
class Story:
    """What is to happen."""

    seed: int
    case: Case
    chance: random.Random
    watch_nodes: bool
    actions: list[tuple[float, str]] = field(default_factory=list[tuple[float, str]])
    sink_failures: float = 0.0
    again: bool = False
    """A record one of whose rows failed goes through the workflow a second time; it fails there, too."""
    letter_failures: float = 0.0
    """Share of writes of dead letters that raise; each ends its run, and the next one goes on."""


class StoryLetters(CollectedLetters):
    """Dead letters that take a while to be written, and sometimes cannot be."""

    def __init__(self, seed: int, failures: float) -> None:
        super().__init__()
        self._chance = random.Random(seed * 13 + 5)
        self._failures = failures

    async def write(self, letters: Sequence[DeadLetter]) -> None:
        if letters:
            await asyncio.sleep(self._chance.randrange(6) * _MS)
            if self._chance.random() < self._failures:
                raise OSError("no room for dead letters")
        await super().write(letters)


def story_of(seed: int, *, most_records: int = 30) -> Story:
    """The story of a seed."""
    chance = random.Random(seed * 7 + 1)
    case = random_case(seed, most_nodes=8, most_records=1, stops=chance.random() < 0.15)
    # What a thread takes is real time, and no seed decides it.
    nodes = tuple(node._replace(kind="slow") if node.kind == "thread" else node for node in case.nodes)
    count = chance.choice((1, 3, 10, most_records))
    records = tuple(chance.randrange(10_000) for _ in range(chance.randint(1, count)))
    case = case._replace(
        nodes=nodes,
        records=records,
        undecodable=frozenset(index for index in range(len(records)) if chance.random() < 0.03),
        settings=tuple(
            {
                "max_frame": chance.choice((1, 2, 5, 100)),
                "commit_interval": chance.choice(("2ms", "10ms", "1s")),
                **({"max_in_flight": chance.randint(4, 9)} if chance.random() < 0.6 else {}),
                **({"max_redelivery": chance.randint(1, 12)} if chance.random() < 0.3 else {}),
                **({"max_parallel": chance.randint(1, 4)} if chance.random() < 0.3 else {}),
                **_few_bytes(seed),
            }.items()
        ),
    )
    story = Story(seed, case, chance, chance.random() < 0.5)
    for _ in range(chance.choice((0, 0, 1, 2))):
        start = chance.random() * 0.05
        story.actions += [(start, "pause"), (start + chance.random() * 0.05, "resume")]
    if chance.random() < 0.6:
        story.actions.append(
            (chance.random() * 0.06, chance.choice(("stop", "stop_now", "drain", "cancel", "aclose")))
        )
    story.actions.sort()
    if chance.random() < 0.2:
        story.sink_failures = 0.15
    apart = random.Random(seed * 11 + 3)  # so that a seed tells what it told before there were letters
    if apart.random() < 0.5:
        story.case = case._replace(letters=True)
        story.letter_failures = apart.choice((0.0, 0.0, 0.1))
    elif case.on_error == "continue" and random.Random(seed * 19 + 7).random() < 0.5:
        story.again = True
        twice = {"retry_workflow": {"max_attempts": 2, "then": "continue"}}
        story.case = case._replace(settings=(*case.settings, ("on_error", twice)))
    return story


def _few_bytes(seed: int) -> dict[str, int]:
    """For every third story, bytes in flight that a few values overdraw; drawn apart from all else."""
    chance = random.Random(seed * 11 + 3)
    return {"max_bytes": chance.choice((1, 60, 200, 500))} if chance.random() < 0.33 else {}


class Events:
    """Counts of what a bus told."""

    def __init__(self, runtime: FlowRuntime, *, nodes: bool) -> None:
        self.ended: Counter[str | None] = Counter()
        self.begun: Counter[str | None] = Counter()
        self.nodes: dict[type[ExecutionEvent], Counter[str | None]] = {
            NodeStarted: Counter(), NodeCompleted: Counter(), NodeFailed: Counter()
        }  # fmt: skip
        self.count = 0
        kinds: list[Any] = [*TERMINAL_KINDS, WorkflowStarted, *(self.nodes if nodes else ())]
        runtime.events.listen(self._take, kinds)

    def _take(self, event: Any) -> None:
        self.count += 1
        if isinstance(event, TERMINAL_KINDS):
            self.ended[event.execution_id] += 1
        elif isinstance(event, WorkflowStarted):
            self.begun[event.execution_id] += 1
        else:
            self.nodes[type(event)][event.node] += 1

    def faults(self) -> list[str]:
        if self.ended == self.begun and set(self.ended.values()) <= {1}:
            return []
        return [f"started {dict(self.begun)}, ended {dict(self.ended)}: each must be once"]

    def balance(self, case: Case) -> list[str]:
        """Every node that began a row ended it."""
        started, completed, failed = (self.nodes[kind] for kind in (NodeStarted, NodeCompleted, NodeFailed))
        return [
            f"{node.id} started {started[node.id]}, completed {completed[node.id]}, failed {failed[node.id]}"
            for node in case.nodes
            if PALETTE[node.kind].role not in ("source", "sink")
            and not completed[node.id] <= started[node.id] <= completed[node.id] + failed[node.id]
        ]


def _runtime(seed: int) -> FlowRuntime:
    return FlowRuntime([CaseLetters], watchdog=None, state_dir=None, clock=wall_clock(), seed=seed)


async def _left_over() -> list[str]:
    """Tasks of the engine that are still there."""
    await asyncio.sleep(0)
    others = asyncio.all_tasks() - {asyncio.current_task()}
    return [f"task {task.get_name()} is left" for task in others if task.get_name().startswith("flow ")]


# --- streams --------------------------------------------------------------------------------------------


class _Commits:
    """The rule of commits: never beyond what is settled and in the sinks, never backwards."""

    def __init__(self, story: Story, outside: Outside, watch: Watch, faults: list[str]) -> None:
        self._outside = outside
        self._watch = watch
        self._faults = faults
        case, reference = story.case, Reference(story.case)
        expected = [
            reference.run(index=index, undecodable=index in case.undecodable)
            for index in range(len(case.records))
        ]
        self._promised = [each.sinks for each in expected]
        lettered = [node.id for node in case.nodes if case.lettered(node.id)]
        self._letters = [sum(map(each.left, lettered)) for each in expected]
        """By record: how many of its rows fail where they become dead letters."""
        self.start = outside.position

    def __call__(self, position: int) -> None:
        outside = self._outside
        if position < outside.position:
            self._faults.append(f"committed {position} after {outside.position}")
        settled = {
            cast("int", opened.positions[row]) - 1
            for opened, rows in self._watch.settled.items()
            if opened.positions is not None
            for row, times in enumerate(rows)
            if times
        }
        missing = [index for index in range(self.start, position) if index not in settled]
        if missing:
            self._faults.append(f"committed {position} while records {missing} are not settled")
        self._faults += [f"at commit {position}: {fault}" for fault in self.missing(position)]

    def missing(self, position: int) -> list[str]:
        """What of the records before `position` no sink was given."""
        faults: list[str] = []
        promised: dict[str, list[Any]] = {}
        for sinks in self._promised[:position]:
            for sink, values in sinks.items():
                promised.setdefault(sink, []).extend(values)
        for sink, values in promised.items():
            outside = self._outside
            lost = bag(values) - bag((*outside.written.get(sink, ()), *outside.refused.get(sink, ())))
            if lost:
                faults.append(f"sink {sink} lacks {sum(lost.values())} rows")
        kept = Counter(cast("int", letter.origin.position) - 1 for letter in self._outside.letters.letters)
        faults += [
            f"record {index} has {kept[index]} letters of {wanted}"
            for index, wanted in enumerate(self._letters[:position])
            if kept[index] < wanted
        ]
        return faults


async def play_stream(story: Story, trace: list[Any] | None = None) -> list[str]:
    """A continuous run with all that may happen to it, then restarts until the source is at its end."""
    case, faults = story.case, list[str]()
    commits: _Commits | None = None
    outside = Outside(case.records, case.undecodable, chance=story.chance)
    outside.slow_source, outside.slow_sinks = story.chance.random() < 0.5, story.chance.random() < 0.5
    outside.sink_failures = story.sink_failures
    outside.letters = StoryLetters(story.seed, story.letter_failures)
    OUTSIDE.set(outside)
    for attempt in range(len(case.records) + 2 + (_MOST_NO_ROOM if story.letter_failures else 0)):
        with Watch(trace) as watch:
            commits = outside.on_commit = _Commits(story, outside, watch, faults)
            actions = story.actions if attempt == 0 else []
            result = await _one_run(story, outside, faults, actions)
        faults += watch.faults + watch.permits_returned() + watch.credit_returned() + await _left_over()
        whole = attempt == 0 and not actions
        if isinstance(result.state, Completed | Partial) and not result.abandoned:
            faults += watch.all_settled()
        no_room = isinstance(result.cause, DeadLetterError)
        if (
            whole and not story.sink_failures and not no_room and not story.again
        ):  # counts are of all attempts
            faults += compare_stream(case, result, outside)
        stops = any(case.stops(node.id) for node in case.nodes)
        if isinstance(result.state, Failed) and not stops and not no_room:
            faults.append(f"the run failed though no node stops it: {result.cause!r}")
        if (isinstance(result.state, Failed) and not no_room) or (
            isinstance(result.state, Completed | Partial) and outside.position == len(case.records)
        ):
            break
    else:
        faults.append(f"the source never came to its end; it is at {outside.position} of {len(case.records)}")
    outside.on_commit = lambda _: None
    if commits is not None and outside.position == len(case.records):
        faults += [f"after all restarts: {fault}" for fault in commits.missing(len(case.records))]
    return faults


async def _one_run(
    story: Story, outside: Outside, faults: list[str], actions: list[tuple[float, str]]
) -> RunResult:
    given = {sink: (len(rows), len(outside.refused.get(sink, ()))) for sink, rows in _sinks(outside).items()}
    begun = asyncio.get_running_loop().time()
    runtime = _runtime(story.seed)
    events = Events(runtime, nodes=story.watch_nodes)
    async with runtime:
        run = await runtime.start(workflow_of(story.case))
        result: RunResult | None = None
        for at, action in actions:
            await asyncio.sleep(max(0.0, begun + at - asyncio.get_running_loop().time()))
            if action == "aclose":
                break
            result = await _act(run, action) or result
        if actions and actions[-1][1] == "aclose":
            await runtime.aclose()
        elif result is None:
            await _act(run, "resume")
        async with asyncio.timeout(_HANGS_S):
            result = await run.wait()
        if actions:
            before = (events.count, sum(map(len, outside.written.values())), len(outside.commits))
            await asyncio.sleep(_AFTERWARDS_S)
            after = (events.count, sum(map(len, outside.written.values())), len(outside.commits))
            if before != after:
                faults.append(f"after the end: events, rows written, commits went from {before} to {after}")
    faults += events.faults()
    if isinstance(result.state, Completed | Partial):
        faults += _sink_counts(story, result, outside, given)
    if story.watch_nodes and isinstance(result.state, Completed | Partial):
        faults += events.balance(story.case)
    if result.abandoned and isinstance(result.state, Completed | Partial):
        faults.append(f"{result.abandoned} records were abandoned, and the run is {result.state}")
    return result


def _sinks(outside: Outside) -> dict[str, list[Any]]:
    return {sink: outside.written.get(sink, []) for sink in {*outside.written, *outside.refused}}


def _sink_counts(
    story: Story, result: RunResult, outside: Outside, before: dict[str, tuple[int, int]]
) -> list[str]:
    """What a sink refused is failed in the result, or was tried again, and what it took is completed."""
    faults: list[str] = []
    for sink in [node.id for node in story.case.nodes if node.kind == "sink"]:
        taken, refused = before.get(sink, (0, 0))
        taken = len(outside.written.get(sink, ())) - taken
        refused = len(outside.refused.get(sink, ())) - refused
        counts = result.counts[sink]
        if counts.completed != taken or counts.failed + counts.retried < refused:
            faults.append(f"sink {sink} took {taken} and refused {refused}, the result says {counts}")
        if refused and isinstance(result.state, Completed) and not story.again:
            faults.append(f"sink {sink} refused {refused} rows, and the run is completed")
    return faults


async def _act(run: Any, action: str) -> RunResult | None:
    try:
        match action:
            case "pause":
                await run.pause()
            case "resume":
                await run.resume()
            case "drain":
                return await run.drain()
            case "stop":
                return await run.stop(timedelta(seconds=100))
            case "stop_now":
                return await run.stop(timedelta(0))
            case _:
                return await run.cancel("the story says so")
    except FlowError:
        pass  # it has ended, or was paused or running already
    return None


# --- requests -------------------------------------------------------------------------------------------


async def play_requests(story: Story, trace: list[Any] | None = None) -> list[str]:
    """All records as requests at once, some cancelled, some with little time."""
    case, chance, faults = story.case, story.chance, list[str]()
    reference, workflow = Reference(case), workflow_of(case)
    OUTSIDE.set(Outside(chance=chance))

    async def one(runtime: FlowRuntime, index: int) -> None:
        fate = chance.choice(("run", "run", "run", "cancel", "timeout"))
        await asyncio.sleep(chance.randrange(30) * _MS)
        given = {SOURCE: {"out": record_of(case.records[index])}}
        timeout = timedelta(seconds=chance.randrange(1, 30) * _MS) if fate == "timeout" else None
        asked = asyncio.create_task(
            runtime.execute(workflow, given, timeout=timeout), name=f"request {index}"
        )
        if fate == "cancel":
            await asyncio.sleep(chance.randrange(20) * _MS)
            cancelled_at = asyncio.get_running_loop().time()
            asked.cancel()
            await asyncio.wait({asked})
            if asyncio.get_running_loop().time() - cancelled_at > 0.05:
                faults.append(f"request {index} took longer than 50 ms to be cancelled")
            if asked.cancelled():
                return
        result = await asked
        if fate == "timeout" and isinstance(result.state, Failed):
            return
        faults.extend(
            f"request {index}: {fault}"
            for fault in compare_request(case, reference, reference.run(index=index), result)
        )

    with Watch(trace) as watch:
        runtime = _runtime(story.seed)
        events = Events(runtime, nodes=story.watch_nodes)
        async with runtime, asyncio.timeout(_HANGS_S):
            async with asyncio.TaskGroup() as group:
                for index in range(len(case.records)):
                    group.create_task(one(runtime, index), name=f"caller {index}")
            faults += watch.all_settled() + watch.credit_returned()
    return faults + watch.faults + watch.permits_returned() + events.faults() + await _left_over()


# --- a seed ---------------------------------------------------------------------------------------------


def play(seed: int, trace: list[Any] | None = None) -> list[str]:
    """Everything that was wrong in the story of a seed, as a stream and as requests; a hang is wrong, too.

    The seed decides the workflow, the records, the faults and the order of task steps, the same every time.
    """
    faults: list[str] = []
    for tell in (play_stream, play_requests):
        try:
            faults += run_virtual(tell(story_of(seed), trace), seed=seed)
        except Exception as error:  # noqa: BLE001 - whatever escaped is a finding
            faults.append(f"{tell.__name__}: {type(error).__name__}: {error}")
        except BaseExceptionGroup as errors:
            faults.append(f"{tell.__name__}: {errors!r}")
    return faults


def explain(seed: int, faults: list[str]) -> str:
    """How to see it again."""
    story = story_of(seed)
    shown = "\n  ".join(faults[:10])
    return (
        f"seed {seed}: {len(faults)} faults\n  {shown}\nstory: {story}\nReproduce with:\n"
        f"from tests.properties.scenario import play\nprint(play({seed}))"
    )
