"""Payloads are in events only where the workflow asks for it."""

from __future__ import annotations

import msgspec
import pytest

from flowcore import NodeCompleted, Workflow, node
from flowruntime import FlowRuntime
from flowruntime.testing import recorded, run_virtual


@node("capture.double")
def double(x: int) -> int:
    return 2 * x


@node("capture.late")
async def late(x: int) -> int:
    return x + 1


@pytest.mark.parametrize("capture", [True, False])
def test_what_nodes_gave_is_in_events_when_asked_for_and_only_then(capture: bool) -> None:
    workflow = Workflow("capture", settings={"capture": capture})
    workflow.chain(workflow.add(double, id="double"), workflow.add(late, id="late"))

    async def run() -> dict[str, object]:
        async with FlowRuntime(state_dir=None) as runtime:
            with recorded(runtime.events) as seen:
                await runtime.execute(workflow, {"double": {"x": 4}})
            return {event.node: event.outputs for event in seen.of(NodeCompleted)}

    wanted = (
        {"double": {"out": 8}, "late": {"out": 9}}
        if capture
        else dict.fromkeys(("double", "late"), msgspec.UNSET)
    )
    assert run_virtual(run()) == wanted
