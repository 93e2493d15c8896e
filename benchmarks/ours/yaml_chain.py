"""Our pipeline twice, declared in YAML and of Python functions; beside them the CEL library alone."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from cel_expr_python import cel

from benchmarks import data
from benchmarks.ours.memory import Box, given, kept
from benchmarks.work import AsyncRun, Run
from flowcore import Workflow, node
from flowruntime import FlowRuntime
from flowruntime.definition.load import load_text

YAML = f"""
name: bills
nodes:
  orders: {{type: benchmark.given}}
  bill:
    type: transform.map
    config: {{fields: {{id: value.id, total: value.amount * 2, name: value.customer.name}}}}
  client: {{type: transform.rename, config: {{fields: {{name: client}}}}}}
  cheap: {{type: transform.filter, config: {{where: value.total < {data.CHEAP}}}}}
  bills: {{type: benchmark.kept}}
connections:
  - {{from: orders, to: bill, when: value.amount >= {data.MANY}}}
  - bill -> client
  - client -> cheap
  - cheap -> bills
"""

is_many = node("benchmark.is_many", kind="filter")(data.is_many)
to_bill = node("benchmark.to_bill")(data.to_bill)
to_client = node("benchmark.to_client")(data.to_client)
is_cheap = node("benchmark.is_cheap", kind="filter")(data.is_cheap)


@asynccontextmanager
async def _running(workflow: Workflow, results: Box, types: list[object]) -> AsyncGenerator[AsyncRun]:
    async with FlowRuntime(nodes=types) as runtime:

        async def run() -> list[Any]:
            started = await runtime.start(workflow)
            (await started.wait()).raise_for_state()
            return results.taken()

        yield run


def declared(records: int) -> Any:
    """From YAML."""
    results = Box()
    types: list[object] = [given(data.orders(records)), kept(results)]
    return _running(load_text(YAML), results, types)


def coded(records: int) -> Any:
    """From functions."""
    results = Box()
    workflow = Workflow("bills")
    workflow.chain(
        workflow.add(given(data.orders(records)), id="orders"),
        workflow.add(is_many),
        workflow.add(to_bill),
        workflow.add(to_client),
        workflow.add(is_cheap),
        workflow.add(kept(results), id="bills"),
    )
    return _running(workflow, results, [])


@contextmanager
def interpreted(records: int) -> Generator[Run]:
    """The condition alone, by the library."""
    orders = data.orders(records)
    environment = cel.NewEnv(variables={"value": cel.Type.DYN})
    program = environment.compile(f"value.amount >= {data.MANY}")

    def run() -> list[int]:
        return [order["id"] for order in orders if program.eval(data={"value": order}).value()]

    yield run
