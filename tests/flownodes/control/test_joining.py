"""control.merge, gather, collect and batch: many rows or connections, one way on."""

from datetime import timedelta

from flowcore.node import definition_of
from flownodes.control.batch import batch
from flownodes.control.collect import collect
from flownodes.control.gather import gather
from flownodes.control.merge import merge


def test_merge_passes_values_on_untouched() -> None:
    value = {"a": 1}
    assert merge(value) is value


def test_lists_are_new_ones_in_the_order_given() -> None:
    for node in (gather, collect, batch):
        items = [3, None, 1]
        assert node(items) == items
        assert node(items) is not items
        assert node([]) == []


def test_the_definition_tells_the_compiler_what_becomes_of_rows() -> None:
    kinds = {node: definition_of(node) for node in (merge, gather, collect, batch)}
    assert [found.kind for found in kinds.values() if found] == ["merge", "map", "collect", "batch"]
    gathers, batches = kinds[gather], kinds[batch]
    assert gathers is not None
    assert gathers.inputs[0].gather
    assert batches is not None
    assert batches.policies.batch is not None
    assert (batches.policies.batch.max_items, batches.policies.batch.linger) == (100, timedelta(seconds=1))
