"""The demo with a model, as a user runs it: with the script that stands in where none is configured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from examples.triage_llm.demo import QUEUES, chosen

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 300


def demo(out: Path, *options: str) -> tuple[subprocess.CompletedProcess[str], dict[str, list[Any]]]:
    """Run it without any key; gives what it printed and what it wrote."""
    names = ("ANTHROPIC_API_KEY", "OPENAI_API_KEY", "OLLAMA_HOST")
    environment = {name: value for name, value in os.environ.items() if name not in names}
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "examples.triage_llm.demo",
            "--out",
            str(out),
            "--limit",
            str(LIMIT),
            *options,
        ],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=55,
        check=False,
    )
    written = {
        queue: [json.loads(line) for line in (out / f"{queue}.jsonl").read_text().splitlines()]
        for queue in QUEUES
    }
    return done, written


def test_every_query_is_sure_drafted_or_for_people(tmp_path: Path) -> None:
    done, written = demo(tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "no model is asked: a script answers in its place" in done.stderr
    assert sum(map(len, written.values())) == LIMIT
    assert written["for_people"] == []
    assert len(written["drafts"]) > 5
    assert all(draft["answer"].startswith("Thank you") for draft in written["drafts"])
    assert all(draft["intent"] == draft["guess"] for draft in written["drafts"])
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["records"] == LIMIT
    assert summary["right_after"] == summary["right_before"]
    assert summary["tokens"] > 0


def test_what_the_budget_does_not_allow_is_for_people_with_the_reason(tmp_path: Path) -> None:
    done, written = demo(tmp_path / "out", "--tokens", "1500")
    assert done.returncode == 0, done.stderr
    assert sum(map(len, written.values())) == LIMIT
    assert written["for_people"]
    assert "BudgetExceededError" in json.dumps(written["for_people"][0])


@pytest.mark.parametrize(
    ("environment", "provider", "expected"),
    [
        ({"OPENAI_API_KEY": "k", "OLLAMA_HOST": "h"}, None, "openai"),
        ({"ANTHROPIC_API_KEY": "k", "OPENAI_API_KEY": "k"}, None, "anthropic"),
        ({"OLLAMA_HOST": "h"}, None, "ollama"),
        ({"OPENAI_API_KEY": ""}, None, "scripted"),
        ({"OPENAI_API_KEY": "k"}, "scripted", "scripted"),
        ({}, "groq", "groq"),
    ],
)
def test_who_is_asked_is_who_is_configured(
    environment: dict[str, str], provider: str | None, expected: str
) -> None:
    assert chosen(environment, provider, None).provider == expected
