"""What `flow plan` says of nodes that call models."""

from __future__ import annotations

from typing import Any

from flowcore import Workflow
from flowruntime.compile.description import describe
from flowruntime.compile.explain import explain
from flowruntime.compile.lower import lower
from flowruntime.compile.validate import validate
from flowruntime.registry import Registry


def plan_of(**config: Any) -> str:
    wf = Workflow("asks")
    source = wf.add("memory.source", id="s", config={"values": ["1"]})
    ask = wf.add("llm.generate", id="ask", config={"provider": "openai", "model": "m", **config})
    wf.chain(source, ask, wf.add("memory.sink", id="k"))
    return explain(describe(lower(validate(wf, Registry()), mode="stream")))


def test_the_plan_says_who_is_asked_and_under_which_rules() -> None:
    text = plan_of(
        fallback=[{"provider": "anthropic", "model": "c"}],
        calls={
            "limits": {"concurrency": 8, "requests_per_minute": 500, "tokens_per_minute": 90_000},
            "hedge": {},
            "cache": {"store": "sqlite"},
            "journal": True,
            "lane": "background",
            "budgets": [{"name": "day", "usd": 5, "window": "24h", "reaction": "defer"}],
        },
    )
    assert (
        "asks openai m, then anthropic c; at most 8 calls at once; 500 requests a minute; "
        "90,000 tokens a minute; 4 attempts a call; hedged after the slowest 5 %; cache in sqlite; "
        "journaled; lane background; budget day $5 per 1d, then defer"
    ) in text
    assert "paid again" not in text


def test_a_run_whose_calls_are_not_kept_says_what_a_crash_costs() -> None:
    text = plan_of()
    assert "calls at once follow its latency, up to 1,000; 4 attempts a call" in text
    assert (
        "weaker: node 'ask': what openai answered is not kept: a record that comes again is paid again"
        in text
    )
    assert "paid again" not in plan_of(provider="ollama")
    fallback = [{"provider": "openai", "model": "m"}]
    assert "what openai answered is not kept" in plan_of(provider="ollama", fallback=fallback)
