"""The program whose process is killed while its records' calls are being paid.

    python paying.py FOLDER

Owns: a file of records, a node that makes two calls for each of them, a provider that writes down what it is
asked. Does not own: when it is killed, what must hold (test_paid_once).
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

from flowcore import Workflow, node
from flowcore.context import NodeContext
from flowcore.llm.answers import Delta, Embeddings, Generation, Usage
from flowcore.llm.calls import Target
from flowcore.llm.endpoint import Endpoint
from flowcore.llm.messages import user
from flowcore.llm.policy import CallPolicy, ModelLimits
from flowcore.llm.requests import EmbedRequest, GenerateRequest
from flowruntime.runtime import FlowRuntime

RECORDS = 60
CONCURRENCY = 4


class Paid:
    """Each request is a line `call NAME`; what is asked for nothing twice is paid twice."""

    name = "paid"
    max_embed_texts = 1

    def __init__(self, folder: Path) -> None:
        self.log = os.open(folder / "calls.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def write(self, what: str, name: str) -> None:
        os.write(self.log, f"{what} {name}\n".encode())

    def __call__(self, endpoint: Endpoint, ctx: Any) -> Paid:
        del endpoint, ctx
        return self

    async def generate(self, request: GenerateRequest, ctx: Any) -> Generation:
        del ctx
        name = request.messages[0].text
        self.write("call", name)
        await asyncio.sleep(random.random() * 0.02)
        return Generation(text=f"answer to {name}", usage=Usage(input_tokens=1, output_tokens=1))

    async def stream(self, request: GenerateRequest, ctx: Any) -> AsyncGenerator[Delta, None]:
        answer = await self.generate(request, ctx)
        yield Delta(text=answer.text)
        yield Delta(finish="stop")

    async def embed(self, request: EmbedRequest, ctx: Any) -> Embeddings:
        raise NotImplementedError

    def count_tokens(self, request: Any) -> int:
        del request
        return 1


def workflow(folder: Path, provider: Paid) -> Workflow:
    policy = CallPolicy(journal=True, limits=ModelLimits(concurrency=CONCURRENCY))
    target = Target(endpoints=(Endpoint(provider="paid"),), policy=policy)

    @node("pay.twice", concurrency=CONCURRENCY)
    async def twice(record: dict[str, Any], ctx: NodeContext) -> dict[str, Any]:
        found: list[str] = []
        for part in ("first", "second"):
            name = f"{record['seq']}/{part}"
            request = GenerateRequest(model="m", messages=(user(name),))
            if part == "first":
                answer = (await ctx.models.generate(request, target)).text
            else:
                answer = "".join([piece.text async for piece in ctx.models.stream(request, target)])
            provider.write("got", name)
            found.append(answer)
        return {"seq": record["seq"], "answers": found}

    wf = Workflow("paying", settings={"max_frame": 4, "max_in_flight": 12, "commit_interval": "5ms"})
    source = wf.add("files.source", id="s", config={"path": str(folder / "in.jsonl"), "format": "jsonl"})
    sink = wf.add("files.sink", id="k", config={"path": str(folder / "out.jsonl")})
    wf.chain(source, wf.add(twice, id="n"), sink)
    return wf


async def main(folder: Path) -> None:
    """One run, to its end."""
    provider = Paid(folder)
    state = str(folder / ".flow")
    async with FlowRuntime(llm_providers={"paid": provider}, state_dir=state, watchdog=None) as rt:
        run = await rt.start(workflow(folder, provider))
        result = await run.wait()
        result.raise_for_state()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
