"""GraphBit 0.6.8: workflows of agents, each of which makes one LLM call to a server on loopback.

A GraphBit workflow needs an agent and an agent needs an LLM; its other nodes (transform) leave no output to
check. So every node here is an agent that calls a server of ours in another process, and the time includes
that call. How much of it is the call shows in `bare_client`: the same number of calls by GraphBit's own
client without its engine.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from graphbit import EmbeddingClient, EmbeddingConfig, Executor, LlmClient, LlmConfig, Node, Workflow

from benchmarks import data
from benchmarks.calls import KEY, watched
from benchmarks.loopback import loopback, peak
from benchmarks.work import Measured

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from benchmarks.loopback import Loopback
    from benchmarks.work import Run


def _executor(server: Loopback) -> Executor:
    return Executor(LlmConfig.bytedance(KEY, "loopback", server.url))


class Graph:
    """A GraphBit workflow by node name."""

    def __init__(self, name: str) -> None:
        self.workflow = Workflow(name)
        self._ids: dict[str, str] = {}

    def add(self, name: str, *, seconds: float = 0.0, after: Sequence[str] = ()) -> None:
        """An agent called `name` whose LLM call takes `seconds`."""
        node = Node.agent(name, f"node={name} sleep={seconds}", output_name=name)
        self._ids[name] = self.workflow.add_node(node)
        for parent in after:
            self.workflow.connect(self._ids[parent], self._ids[name])


def _run(executor: Executor, graph: Graph, names: Sequence[str]) -> dict[str, str]:
    """Outputs of the nodes in `names`; raises when GraphBit says that the run failed."""
    result = executor.execute(graph.workflow)
    if not result.is_success():
        message = f"GraphBit's run failed: {result.state()}"
        raise RuntimeError(message)
    outputs = result.get_all_node_outputs()
    return {name: outputs[name] for name in names}


def _check_order(server: Loopback) -> None:
    """Raise unless every node's call began after its parents' had ended."""
    calls = {call.name: call for call in server.calls()}
    for number, parents in data.DAG_PARENTS.items():
        for parent in parents:
            if calls[f"n{number}"].start < calls[f"n{parent}"].end:
                message = f"GraphBit called n{number} before its parent n{parent} had answered"
                raise RuntimeError(message)


@contextmanager
def dag(requests: int) -> Generator[Run]:
    """The ten-node DAG, one request after the other."""
    with loopback() as server:
        executor = _executor(server)
        names = data.names("n", len(data.DAG_PARENTS))
        graph = Graph("dag")
        for number, parents in data.DAG_PARENTS.items():
            graph.add(f"n{number}", after=[f"n{parent}" for parent in parents])
        graph.workflow.validate()
        server.reset()
        _run(executor, graph, names)
        _check_order(server)

        def run() -> list[dict[str, str]]:
            return [_run(executor, graph, names) for _ in range(requests)]

        yield run


@contextmanager
def bare_client(requests: int) -> Generator[Run]:
    """The DAG's ten calls by the client alone, one after the other."""
    with loopback() as server:
        client = LlmClient(LlmConfig.bytedance(KEY, "loopback", server.url))
        names = data.names("n", len(data.DAG_PARENTS))

        def run() -> list[dict[str, str]]:
            return [
                {name: client.complete(f"node={name} sleep=0.0") for name in names} for _ in range(requests)
            ]

        yield run


@contextmanager
def fan_out(width: int) -> Generator[Run]:
    """One agent, `width` agents after it, one agent after them all."""
    with loopback() as server:
        executor = _executor(server)
        names = data.names("x", width)
        graph = Graph("fan-out")
        graph.add("start")
        for name in names:
            graph.add(name, after=["start"])
        graph.add("total", after=names)
        graph.workflow.validate()

        def run() -> dict[str, str]:
            return _run(executor, graph, ["start", *names, "total"])

        yield run


@contextmanager
def independent(width: int, delay_s: float, limit: int) -> Generator[Run]:
    """`width` agents with no edge between them. GraphBit's limit cannot be set: `limit` is ignored."""
    del limit
    with loopback() as server:
        executor = _executor(server)
        names = data.names("x", width)
        graph = Graph("independent")
        for name in names:
            graph.add(name, seconds=delay_s)
        graph.workflow.validate()

        def run() -> Measured:
            server.reset()
            start = time.perf_counter()
            outputs = _run(executor, graph, names)
            seconds = time.perf_counter() - start
            return Measured(outputs, seconds=seconds, facts={"peak": peak(server.calls())})

        yield run


@contextmanager
def sibling(fast_s: float, slow_s: float) -> Generator[Run]:
    """A fast and a slow agent and a child of the fast one; timed until the child's call is there."""
    with loopback() as server:
        executor = _executor(server)
        graph = Graph("sibling")
        graph.add("slow", seconds=slow_s)
        graph.add("fast", seconds=fast_s)
        graph.add("child", after=["fast"])
        graph.workflow.validate()

        def run() -> Measured:
            server.reset()
            start = time.monotonic()
            outputs = _run(executor, graph, ["slow", "fast", "child"])
            child = next(call for call in server.calls() if call.name == "child")
            return Measured(outputs, seconds=child.start - start)

        yield run


@contextmanager
def embeddings(count: int, limit: int, delay_s: float, max_items: int = 1) -> Generator[Run]:
    """`count` texts, `max_items` a request, `limit` requests at a time.

    Only the Azure configuration takes an address.
    """
    with loopback(delay_s=delay_s) as server:
        client = EmbeddingClient(EmbeddingConfig.azure(KEY, "loopback", server.url, "loopback", "2024-02-01"))
        texts = data.texts(count)
        batches = [texts[start : start + max_items] for start in range(0, count, max_items)]

        def run() -> Measured:
            server.reset()
            with watched() as watch:
                answer = client.embed_batch_parallel(batches, max_concurrency=limit)
                vectors = [vector for batch in answer["embeddings"] for vector in batch]
            facts = {"calls": len(server.calls())}
            return Measured(vectors, seconds=watch.seconds, cpu_s=watch.cpu_s, facts=facts)

        yield run
