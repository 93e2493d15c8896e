"""Haystack: components in a pipeline, run by `Pipeline.run`."""

# No `from __future__ import annotations`: Haystack loses `Variadic` where an annotation is a string.

from collections.abc import Generator
from contextlib import contextmanager

from haystack import Pipeline, component
from haystack.core.component.types import Variadic

from benchmarks import data
from benchmarks.work import Run


@component
class Add:
    """One node of the DAG: the sum of its inputs and its own number."""

    def __init__(self, number: int) -> None:
        self.number = number

    @component.output_types(out=int)
    def run(self, inputs: Variadic[int]) -> dict[str, int]:
        """Answer on the port `out`."""
        return {"out": data.dag_value(self.number, list(inputs))}


@contextmanager
def dag(requests: int) -> Generator[Run]:
    """The ten-node DAG, one request after the other. Haystack has no events besides tracing, which is off."""
    pipeline = Pipeline()
    for number in data.DAG_PARENTS:
        pipeline.add_component(f"n{number}", Add(number))
    for number, parents in data.DAG_PARENTS.items():
        for parent in parents:
            pipeline.connect(f"n{parent}.out", f"n{number}.inputs")
    last = f"n{max(data.DAG_PARENTS)}"

    def run() -> list[int]:
        return [pipeline.run({"n0": {"inputs": value}})[last]["out"] for value in range(requests)]

    yield run
