"""Running a case for real and holding it against the reference.

Owns: `request_faults`, `stream_faults`: what a case shows that the reference does not expect, as lines.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any, cast

from flowcore.states import Completed, Failed, Partial
from flowruntime.execute.result import RunResult
from flowruntime.runtime import FlowRuntime
from tests.differential.case import SOURCE, Case, workflow_of
from tests.differential.palette import OUTSIDE, PALETTE, Outside, canonical, record_of
from tests.differential.reference import ROOT, Expected, Reference


def bag(values: Iterable[Any]) -> Counter[str]:
    return Counter(repr(canonical(value)) for value in values)


async def request_faults(case: Case, runtime: FlowRuntime) -> list[str]:
    """Every record as a request of its own, one after the other."""
    workflow, reference = workflow_of(case), Reference(case)
    faults: list[str] = []
    for index, number in enumerate(case.records):
        result = await runtime.execute(workflow, {SOURCE: {"out": record_of(number)}})
        expected = reference.run(index=index)
        faults += [f"record {index}: {fault}" for fault in compare_request(case, reference, expected, result)]
    return faults


def compare_request(case: Case, reference: Reference, expected: Expected, result: RunResult) -> Iterable[str]:
    """A request that came to its own end."""
    compare = _cut_short if _stops(case, expected) else _complete
    return compare(case, reference, expected, result)


def _stops(case: Case, expected: Expected) -> list[str]:
    """Nodes whose failure ends the run."""
    return [
        node.id
        for node in case.nodes
        if expected.left(node.id) and case.stops(node.id) and not case.handled(node.id)
    ]


def _complete(  # noqa: C901 - one clause per thing a result says
    case: Case, reference: Reference, expected: Expected, result: RunResult
) -> Iterable[str]:
    failures = sum(expected.failures(node.id) for node in case.nodes)
    if type(result.state) is not (Partial if failures else Completed):
        yield f"state {result.state}, expected {failures} failures; cause {result.cause!r}"
    handled = sum(_handled(case, expected, node.id) for node in case.nodes)
    if result.handled != (failures > 0 and handled == failures):
        yield f"handled is {result.handled}, of {failures} failures {handled} were taken"
    for node in case.nodes:
        kind, outcome = PALETTE[node.kind], result.outcomes[node.id]
        failed, ran = expected.failures(node.id), expected.completed[node.id]
        state = "failed" if failed else "completed" if ran else "skipped"
        replaced = expected.replaced[node.id]
        if (outcome.state, outcome.failed, outcome.replaced, outcome.rows) != (state, failed, replaced, ran):
            yield f"{node.id} is {outcome}, expected {state}, rows {ran}, failed {failed}"
        if state == "skipped" and not _explains(outcome.cause, expected.causes[node.id]):
            yield f"{node.id} is skipped by {outcome.cause}, expected one of {expected.causes[node.id]}"
        if len(result.errors.get(node.id, ())) != failed:
            yield f"{node.id} has errors {result.errors.get(node.id)}, expected {failed}"
        if kind.role == "sink":
            got = bag(result.captured.get(node.id, ()))
            if got != bag(expected.sinks[node.id]):
                yield f"sink {node.id} has {got}, expected {bag(expected.sinks[node.id])}"
            continue
        repeated = reference.scope_out[node.id] != ROOT
        for port in kind.outputs:
            values = expected.outputs[node.id][port]
            given = result.outputs.get(node.id, {}).get(port, ...)
            found = [] if given is ... else given if repeated else [given]
            if canonical(found) != canonical(values) and not (
                _unordered(reference, node.id) and bag(found) == bag(values)
            ):
                yield f"{node.id}.{port} gave {found}, expected {values}"


def _handled(case: Case, expected: Expected, node_id: str) -> int:
    """Failures that were taken: by an error connection or a dead letter, or by a fallback."""
    return expected.failures(node_id) if case.handled(node_id) else expected.replaced[node_id]


def _explains(cause: str | None, causes: set[str]) -> bool:
    return cause in causes or cause == "branch not taken"


def _unordered(reference: Reference, node_id: str) -> bool:
    """Rows of several connections of one port come in the order of time."""
    return any("." in opener for opener in reference.scope_out[node_id])


def _cut_short(case: Case, reference: Reference, expected: Expected, result: RunResult) -> Iterable[str]:
    """A failure ended it: no node shows more than it would have in full, and the run says so."""
    del reference
    stops = _stops(case, expected)
    if type(result.state) is not Failed:
        yield f"state {result.state}, expected failed by one of {stops}"
    if not any(result.errors.get(node) for node in stops):
        yield f"errors {result.errors}, expected one of {stops}"
    for node in case.nodes:
        outcome = result.outcomes[node.id]
        if outcome.failed > expected.failures(node.id) or outcome.rows > expected.completed[node.id]:
            yield f"{node.id} is {outcome}, more than expected"
        for port, given in result.outputs.get(node.id, {}).items():
            found = bag(cast("list[Any]", given) if isinstance(given, list) else [given])
            if found - bag(expected.outputs[node.id][port]):
                yield f"{node.id}.{port} gave {given}, which it never would have"
        if bag(result.captured.get(node.id, ())) - bag(expected.sinks[node.id]):
            yield f"sink {node.id} has more than expected"


async def stream_faults(case: Case, runtime: FlowRuntime, outside: Outside) -> list[str]:
    """All records as one continuous run."""
    outside.records, outside.undecodable = case.records, case.undecodable
    OUTSIDE.set(outside)
    run = await runtime.start(workflow_of(case))
    result = await run.wait()
    return list(compare_stream(case, result, outside))


def compare_stream(case: Case, result: RunResult, outside: Outside) -> Iterable[str]:
    """A run that came to its own end."""
    expected = Reference(case).total()
    stops = _stops(case, expected)
    failures = sum(expected.failures(node.id) for node in case.nodes)
    state = Failed if stops else Partial if failures else Completed
    if type(result.state) is not state:
        yield f"state {result.state}, expected {state.__name__}; cause {result.cause!r}"
        return
    for node in case.nodes:
        counts, failed = result.counts[node.id], expected.failures(node.id)
        got = (
            counts.completed,
            counts.failed,
            counts.handled,
            counts.replaced,
            counts.dropped,
            counts.unrouted,
        )
        wanted = (
            expected.completed[node.id],
            failed,
            _handled(case, expected, node.id),
            expected.replaced[node.id],
            expected.dropped[node.id],
            expected.unrouted[node.id],
        )
        if not stops and got != wanted:
            words = "completed failed handled replaced dropped unrouted"
            yield f"{node.id} counts {got}, expected {wanted} ({words})"
        written, all_of_it = bag(outside.written.get(node.id, ())), bag(expected.sinks[node.id])
        if written - all_of_it or (not stops and written != all_of_it):
            yield f"sink {node.id} has {written}, expected {all_of_it}"
    if not stops and result.records != len(case.records):
        yield f"{result.records} records settled of {len(case.records)}"
