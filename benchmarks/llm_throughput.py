"""Many LLM calls: 5,000 at 50 ms, 64 and 512 in flight: throughput, CPU per call, peak memory.

Who needs milliseconds of CPU a call makes fewer of them, so that a run does not take minutes; figures are per
call. Their peak memory is that of fewer calls, too.
"""

from __future__ import annotations

import sys

from benchmarks import prompts
from benchmarks.async_stage import ideal
from benchmarks.command import main
from benchmarks.environment import Environment
from benchmarks.harness import Benchmark, Contender, Match, Params, Row
from benchmarks.process import Sample
from benchmarks.summary import Bar


def calls_per_s(sample: Sample, params: Params) -> float:
    """Answers over wall time."""
    return params["calls"] / sample.seconds


def cpu_us_per_call(sample: Sample, params: Params) -> float:
    """CPU time of the contender's process; the server's is not in it."""
    return sample.cpu_s / params["calls"] * 1e6


def rss_mib(sample: Sample, _: Params) -> float:
    """Most memory the contender's process has had since it started, its imports included."""
    return sample.facts["rss_mib"]


def contenders(few: int) -> tuple[Contender, ...]:
    """All sides; the engines of others make `few` calls."""
    fewer = {"calls": few}
    less = f"{few:,} calls"
    return (
        Contender("FlowRx", "benchmarks.ours.llm:calls", Environment.OURS, note="rt.stream, in input order"),
        Contender(
            "FlowRx's client",
            "benchmarks.ours.llm:client_calls",
            Environment.OURS,
            note="LlmClient.complete_batch, no workflow",
        ),
        Contender("bare aiohttp", "benchmarks.peers.bare_http:calls_by_aiohttp", Environment.OURS),
        Contender(
            "transport",
            "benchmarks.peers.bare_http:calls_by_transport",
            Environment.OURS,
            note="httpx-aiohttp's AiohttpTransport called directly, which ours ran on before; no engine",
        ),
        Contender(
            "GraphBit's client",
            "benchmarks.peers.graphbit_llm:client_calls",
            note="complete_async, no engine",
        ),
        Contender(
            "GraphBit's batch",
            "benchmarks.peers.graphbit_llm:batch_calls",
            expected=prompts.many_sorted,
            note="complete_batch, 1,000 prompts at a time, which is its most; it loses their order, so the "
            "answers are checked sorted",
        ),
        Contender(
            "GraphBit",
            "benchmarks.peers.graphbit_llm:calls",
            params=fewer,
            note=f"its engine, a workflow of one agent a call; {less}",
        ),
        Contender(
            "LangGraph",
            "benchmarks.peers.langgraph_llm:calls",
            params=fewer,
            note=f"abatch, ChatOpenAI; {less}",
        ),
        Contender(
            "LlamaIndex Workflows",
            "benchmarks.peers.llama_index_llm:calls",
            params=fewer,
            note=f"a step that calls the openai client; {less}",
        ),
        Contender(
            "PydanticAI",
            "benchmarks.peers.pydantic_ai:calls",
            params=fewer,
            note=f"a run of an agent; {less}",
        ),
    )


def _match(limit: int, few: int, throughput: tuple[Bar, ...], cpu: tuple[Bar, ...]) -> Match:
    title = f"5,000 LLM calls, {limit} in flight x 50 ms"
    return Match(
        contenders=contenders(few),
        rows=(
            Row(title, "calls/s", calls_per_s, higher_is_better=True, ideal=ideal, bars=throughput),
            Row(f"{title}: CPU", "us/call", cpu_us_per_call, bars=cpu),
            Row(f"{title}: peak memory", "MiB", rss_mib),
        ),
        expected=prompts.many_result,
        params={"calls": 5_000, "limit": limit, "delay_s": 0.05},
        quick={"calls": 128, "limit": 16, "delay_s": 0.01},
        warmups=1,
    )


BENCHMARK = Benchmark(
    "llm_throughput",
    (
        _match(64, 320, (Bar(">=", 0.95, "bare aiohttp"), Bar(">=", 1, "GraphBit's client")), ()),
        _match(512, 640, (), (Bar("<=", 150, beyond="transport"),)),
    ),
)

if __name__ == "__main__":
    sys.exit(main(BENCHMARK))
