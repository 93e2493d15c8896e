"""Our embeddings over HTTP, text by text or batched: nodes on the runtime's client, `embedding.embed`."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta

from benchmarks import data
from benchmarks.calls import measured
from benchmarks.loopback import loopback
from benchmarks.ours.llm import endpoint
from benchmarks.work import AsyncRun, Measured
from flowcore import Batch, BatchContext, HttpRequest, NodeContext, Workflow, node
from flowcore.context import HttpClient
from flowcore.llm.policy import CallPolicy, ModelLimits
from flowcore.vectors import floats_of
from flowruntime import FlowRuntime

MAX_ITEMS = 128
LINGER = timedelta(milliseconds=5)


async def _embed(http: HttpClient, url: str, texts: Sequence[str]) -> list[list[float]]:
    """One request of the OpenAI form."""
    body = json.dumps({"model": "loopback", "input": list(texts)}).encode()
    headers = {"content-type": "application/json"}
    response = await http.send(
        HttpRequest(url=f"{url}/v1/embeddings", method="POST", headers=headers, body=body)
    )
    return [item["embedding"] for item in json.loads(response.body)["data"]]


@node("benchmark.embed")
async def embed(text: str, ctx: NodeContext, *, url: str) -> list[float]:
    """One text, one request."""
    (vector,) = await _embed(ctx.http, url, [text])
    return vector


@node("benchmark.embed_many", batch=Batch(max_items=MAX_ITEMS, linger=LINGER))
async def embed_many(texts: Sequence[str], ctx: BatchContext, *, url: str) -> Sequence[list[float]]:
    """As many texts as the runtime has put together, one request."""
    return await _embed(ctx.http, url, texts)


@asynccontextmanager
async def one_by_one(count: int, limit: int, delay_s: float) -> AsyncGenerator[AsyncRun]:
    """`limit` requests in flight."""
    with loopback(delay_s=delay_s) as server:
        workflow = Workflow("embeddings")
        workflow.add(embed, id="embed", config={"url": server.url}, concurrency=limit)
        texts = data.texts(count)
        async with FlowRuntime(allow_private_networks=True) as runtime:

            async def run() -> list[object]:
                return [outcome.value async for outcome in runtime.stream(workflow, texts, order="input")]

            yield run


@asynccontextmanager
async def batched(count: int, limit: int, delay_s: float) -> AsyncGenerator[AsyncRun]:
    """`limit` requests of up to 128 texts in flight."""
    with loopback(delay_s=delay_s) as server:
        workflow = Workflow("embeddings")
        workflow.add(embed_many, id="embed", config={"url": server.url}, concurrency=limit)
        texts = data.texts(count)
        async with FlowRuntime(allow_private_networks=True) as runtime:

            async def run() -> Measured:
                server.reset()
                start = time.perf_counter()
                vectors = [outcome.value async for outcome in runtime.stream(workflow, texts, order="input")]
                seconds = time.perf_counter() - start
                return Measured(vectors, seconds=seconds, facts={"requests": len(server.calls())})

            yield run


@asynccontextmanager
async def embed_node(count: int, limit: int, delay_s: float, max_items: int) -> AsyncGenerator[AsyncRun]:
    """The node `embedding.embed`: `limit` requests of up to `max_items` texts in flight."""
    with loopback(delay_s=delay_s) as server:
        workflow = Workflow("embeddings")
        policy = CallPolicy(limits=ModelLimits(concurrency=limit))
        workflow.add(
            "embedding.embed",
            id="embed",
            config={**endpoint(server), "calls": policy},
            batch=Batch(max_items=max_items, linger=LINGER),
            concurrency=limit,
        )
        texts = data.texts(count)
        async with FlowRuntime(allow_private_networks=True) as runtime:

            async def work() -> list[list[float]]:
                outcomes = runtime.stream(workflow, texts, order="input")
                return [floats_of(outcome.value) async for outcome in outcomes]

            async def run() -> Measured:
                return await measured(server, work, limit=limit)

            yield run
