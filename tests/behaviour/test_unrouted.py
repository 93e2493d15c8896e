"""Rows that go where nothing is connected are counted, never lost in silence."""

from __future__ import annotations

from flowcore import Workflow
from tests.behaviour.harness import Script, kept, runtime, virtual


@virtual
async def test_a_condition_with_one_branch_connected_counts_the_other_rows_as_unrouted() -> None:
    sink = kept()
    wf = Workflow("condition")
    way = wf.add("control.condition", id="way", config={"when": "value > 1"})
    wf.chain(wf.add(Script, id="s"), way)
    wf.connect(way["true"], wf.add(sink, id="k"))
    async with runtime() as rt:
        result = await (await rt.start(wf, sources={"s": Script([[1, 2, 3]])})).wait()
    assert sink.rows == [2, 3]
    assert result.counts["way"].unrouted == 1
