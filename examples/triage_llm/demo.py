"""The demo with a model: unsure queries get an intent and a drafted answer, within a budget.

    python -m examples.triage_llm.demo                      # or: make demo-llm
    python -m examples.triage_llm.demo --limit 300 --tokens 20000

Who is asked: Anthropic where ANTHROPIC_API_KEY is set, OpenAI where OPENAI_API_KEY is, Ollama where
OLLAMA_HOST is; else the provider `scripted`, which stands in for a model and says so.

Owns: choosing the provider, a fresh folder, the closing summary.
Does not own: the workflow (triage_llm.yaml), measuring and drawing progress (flowruntime).

Always holds: every query read is in exactly one of the three files, or the exit code is 1.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from flowruntime.cli.progress import ModelTotals
    from flowruntime.execute.result import RunResult

HERE: Final = Path(__file__).resolve().parent
QUEUES: Final = ("sure", "drafts", "for_people")
FAILED: Final = 1
USAGE: Final = 2


class Asked(NamedTuple):
    """Who is asked."""

    provider: str
    model: str
    said: str
    """Why, for the user."""


_CHOICES: Final = (
    ("ANTHROPIC_API_KEY", "anthropic", "claude-haiku-4-5"),
    ("OPENAI_API_KEY", "openai", "gpt-4o-mini"),
    ("OLLAMA_HOST", "ollama", "llama3.2"),
)


def chosen(environment: Mapping[str, str], provider: str | None, model: str | None) -> Asked:
    """The provider named, or the first one that is configured."""
    for variable, name, usual in _CHOICES:
        if name == provider or (provider is None and environment.get(variable)):
            why = f"because {variable} is set" if provider is None else "as you said"
            return Asked(name, model or usual, f"{name} is asked ({model or usual}), {why}")
    if provider not in (None, "scripted"):
        return Asked(provider, model or "", f"{provider} is asked ({model}), as you said")
    variables = ", ".join(variable for variable, _, _ in _CHOICES)
    return Asked(
        "scripted", "demo", f"no model is asked: a script answers in its place (set one of {variables})"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.triage_llm.demo", description="Triage with a model for what is unsure."
    )
    parser.add_argument("--out", type=Path, help="new folder for the results")
    parser.add_argument("--limit", type=int, help="take only the first queries")
    parser.add_argument("--tokens", type=int, default=500_000, help="what all calls together may use")
    parser.add_argument("--provider", help="who is asked; left out: who is configured")
    parser.add_argument("--model", help="as the provider names it")
    options = parser.parse_args(arguments)
    out: Path = options.out or HERE / "out" / datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    try:
        out.mkdir(parents=True)
    except OSError as error:
        print(f"demo: cannot make {str(out)!r}: {error.strerror}; name a new folder: --out", file=sys.stderr)
        return USAGE
    asked = chosen(os.environ, options.provider, options.model)
    print(f"demo: {asked.said}", file=sys.stderr)
    return asyncio.run(_demo(out, asked, options.tokens, options.limit))


async def _demo(out: Path, asked: Asked, tokens: int, limit: int | None) -> int:
    from flowruntime.cli.summary import stream_summary
    from flowruntime.telemetry.logs import configure_logging

    configure_logging("console")
    result, models = await _run(out, asked, tokens, limit)
    written = {queue: _lines(out / f"{queue}.jsonl") for queue in QUEUES}
    count = sum(map(len, written.values()))
    if result.records != count or result.cause is not None:
        print(stream_summary(result), file=sys.stderr)
        print(f"demo: WRONG: {result.records:,} queries read, {count:,} written", file=sys.stderr)
        return FAILED
    summary = _summary(written, models, asked)
    (out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    print(_table(summary, out))
    return 0


async def _run(out: Path, asked: Asked, tokens: int, limit: int | None) -> tuple[RunResult, ModelTotals]:
    from flowruntime import FlowRuntime
    from flowruntime.cli.display import Display
    from flowruntime.cli.progress import Progress
    from flowruntime.cli.signals import Interrupts
    from flowruntime.cli.target import load_target

    params = {
        "home": HERE.parent, "out": out, "tokens": tokens, "provider": asked.provider, "model": asked.model,
    }  # fmt: skip
    workflow = load_target(
        str(HERE / "triage_llm.yaml"),
        params=[f"{name}={value}" for name, value in params.items()],
        overrides=[] if asked.provider == "scripted" else ["ask.options={}"],
    ).workflow
    hosts = ("127.0.0.1", "localhost") if asked.provider == "ollama" else ()
    async with FlowRuntime(state_dir=None, allowed_hosts=hosts) as runtime:
        display = Display(runtime.events, Progress(["queries"], QUEUES))
        try:
            run = await runtime.start(workflow, limit=limit)
            async with Interrupts(drain=run.stop, abort=run.cancel):
                return await run.wait(), display.models
        finally:
            await display.stop()


def _lines(path: Path) -> list[Any]:
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return [json.loads(line) for line in text.splitlines()]


def _summary(written: Mapping[str, list[Any]], models: ModelTotals, asked: Asked) -> dict[str, Any]:
    drafts = written["drafts"]
    return {
        "records": sum(map(len, written.values())),
        **{queue: len(lines) for queue, lines in written.items()},
        "provider": asked.provider,
        "model": asked.model,
        "right_before": _share(draft["guess"] == draft["label"] for draft in drafts),
        "right_after": _share(draft["intent"] == draft["label"] for draft in drafts),
        "calls": models.calls,
        "answered_from_cache": models.kept,
        "tokens": models.tokens,
        "cost_usd": None if models.unpriced else round(models.cost_usd, 6),
    }


def _share(found: Any) -> float | None:
    values = list(found)
    return round(sum(values) / len(values), 4) if values else None


def _table(summary: dict[str, Any], out: Path) -> str:
    from flowruntime.cli.tables import table

    cost = summary["cost_usd"]
    before, after = summary["right_before"], summary["right_after"]
    rows: list[Sequence[str]] = [
        ["records", f"{summary['records']:,}", "= sure + drafts + for people"],
        ["sure", f"{summary['sure']:,}", "the nearest labelled queries agree"],
        ["drafts", f"{summary['drafts']:,}", f"by {summary['provider']} {summary['model']}"],
        ["for people", f"{summary['for_people']:,}", "no answer, or beyond the budget"],
        [
            "right before",
            "-" if before is None else f"{before:.1%}",
            "intent of the drafts, by the neighbours",
        ],
        ["right after", "-" if after is None else f"{after:.1%}", "intent of the drafts, by the model"],
        ["calls", f"{summary['calls']:,}", f"{summary['answered_from_cache']:,} answered from the cache"],
        ["tokens", f"{summary['tokens']:,}", ""],
        ["cost", "not known" if cost is None else f"${cost:,.4f}", ""],
    ]
    return f"{table(rows, numbers={1})}\n\nwritten to {out}"


if __name__ == "__main__":
    sys.exit(main())
