"""LLM calls, the six scenarios GraphBit measures itself by, at 50 ms a call, with the same prompts.

One call; a chain of four; four at once; content -> solution -> {cost, risk} -> recommendation; one prompt of
20 KB; ten calls that are requests of their own. Each contender asks a server of its own on loopback, in
another process; every answer is a hash of the prompt that was asked, and is checked.
"""

from __future__ import annotations

import sys

from benchmarks import prompts
from benchmarks.command import main
from benchmarks.environment import Environment
from benchmarks.harness import Benchmark, Contender, Match, Params, Row
from benchmarks.process import Sample
from benchmarks.summary import Bar

TITLES = {
    "one": "one LLM call",
    "chain": "chain of 4 LLM calls",
    "parallel": "4 LLM calls at once",
    "graph": "LLM graph of 5 nodes",
    "large": "one LLM call with a prompt of 20 KB",
    "independent": "10 independent LLM calls",
}


def ms(sample: Sample, params: Params) -> float:
    """Wall time of one scenario."""
    return sample.seconds / params["times"] * 1e3


def cpu_ms(sample: Sample, params: Params) -> float:
    """CPU time of one scenario in the contender's process; the server's is not in it."""
    return sample.cpu_s / params["times"] * 1e3


def ideal_ms(params: Params) -> float:
    """The calls on the longest path, and nothing else."""
    return prompts.SCENARIOS[params["scenario"]].levels * params["delay_s"] * 1e3


OURS = Contender("FlowRx", "benchmarks.ours.llm:scenario", Environment.OURS)
BARE = Contender(
    "bare aiohttp", "benchmarks.peers.bare_http:scenario", Environment.OURS, note="no engine: plain asyncio"
)
ENGINES = (
    Contender(
        "GraphBit",
        "benchmarks.peers.graphbit_llm:scenario",
        note="its engine, an agent a call, through the ByteDance configuration, which takes an address",
    ),
    Contender(
        "LangGraph",
        "benchmarks.peers.langgraph_llm:scenario",
        note="nodes call langchain-openai's ChatOpenAI",
    ),
    Contender(
        "LlamaIndex Workflows",
        "benchmarks.peers.llama_index_llm:scenario",
        note="steps call the openai client, which LlamaIndex's own LLM package wraps",
    ),
    Contender(
        "PydanticAI",
        "benchmarks.peers.pydantic_ai:scenario",
        note="a run of an agent a call, plain asyncio between the runs",
    ),
)
CLIENT = Contender(
    "GraphBit's client",
    "benchmarks.peers.graphbit_llm:client_scenario",
    note="without the engine: plain asyncio between its calls",
)


def _match(scenario: str) -> Match:
    title = f"{TITLES[scenario]} x 50 ms"
    ahead = tuple(Bar("<=", 1, engine.name) for engine in ENGINES)
    return Match(
        contenders=(OURS, BARE, CLIENT, *ENGINES),
        rows=(
            Row(title, "ms", ms, ideal=ideal_ms, bars=(Bar("<=", 1.08, BARE.name), *ahead)),
            Row(f"{title}: CPU", "ms", cpu_ms),
        ),
        expected=prompts.scenario_result,
        params={"scenario": scenario, "times": 3, "delay_s": 0.05},
        quick={"times": 1, "delay_s": 0.01},
    )


BENCHMARK = Benchmark("llm_scenarios", tuple(_match(scenario) for scenario in prompts.SCENARIOS))

if __name__ == "__main__":
    sys.exit(main(BENCHMARK))
