"""--profile and flow.toml: which profile holds, which value is in effect, and who says so."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flowcore.profiles import PROFILES

Flow = Callable[..., Any]


def planned(flow: Flow, workflow: Path, *options: str) -> tuple[str, str, dict[str, tuple[float, str]]]:
    """Profile, who chose it, and each setting with its source."""
    profile = json.loads(flow("plan", str(workflow), "--format", "json", *options).out)["profile"]
    settings = {each["name"]: (each["amount"], each["source"]) for each in profile["settings"]}
    return profile["name"], profile["chosen_by"], settings


def test_the_plan_says_the_profile_and_where_each_value_comes_from(flow: Flow, workflow: Path) -> None:
    workflow.write_text(workflow.read_text() + "settings: {profile: low_latency, max_bytes: 1MiB}\n")
    lines = [" ".join(line.split()) for line in flow("plan", str(workflow)).out.splitlines()]
    start = lines.index("Profile low_latency (settings.profile)")
    assert lines[start + 1 : start + 7] == [
        "max_frame 64 rows profile low_latency",
        "max_bytes 1 MiB settings.max_bytes",
        "commit_interval 1s profile low_latency",
        "concurrency 64 rows profile low_latency",
        "linger 0s profile low_latency",
        "max_in_flight 128 rows derived from max_frame and concurrency",
    ]


def test_without_any_choice_balanced_holds_by_default(flow: Flow, workflow: Path) -> None:
    name, chosen_by, settings = planned(flow, workflow)
    assert (name, chosen_by) == ("balanced", "the default")
    assert settings["max_frame"] == (2_048, "the default")


def test_the_option_wins_over_the_workflow_that_over_flow_toml(flow: Flow, workflow: Path) -> None:
    (workflow.parent / "flow.toml").write_text('[settings]\nprofile = "memory_optimized"\n')
    assert planned(flow, workflow)[:2] == ("memory_optimized", "flow.toml")
    workflow.write_text(workflow.read_text() + "settings: {profile: low_latency}\n")
    assert planned(flow, workflow)[:2] == ("low_latency", "settings.profile")
    name, chosen_by, _ = planned(flow, workflow, "--profile", "high_throughput")
    assert (name, chosen_by) == ("high_throughput", "option --profile")


def test_a_setting_that_is_said_wins_over_every_profile_whoever_says_it(flow: Flow, workflow: Path) -> None:
    (workflow.parent / "flow.toml").write_text("[settings]\nmax_frame = 9\nconcurrency = 5\n")
    workflow.write_text(workflow.read_text() + "settings: {concurrency: 6, max_in_flight: 40}\n")
    _, _, settings = planned(flow, workflow, "--profile", "high_throughput")
    assert settings["max_frame"] == (9, "flow.toml")
    assert settings["concurrency"] == (6, "settings.concurrency")
    assert settings["max_in_flight"] == (40, "settings.max_in_flight")
    assert settings["max_bytes"] == (PROFILES["high_throughput"].max_bytes, "profile high_throughput")


def test_a_workflow_that_says_the_default_wins_over_flow_toml(flow: Flow, workflow: Path) -> None:
    (workflow.parent / "flow.toml").write_text('[settings]\nprofile = "low_latency"\nmax_frame = 9\n')
    workflow.write_text(workflow.read_text() + "settings: {profile: balanced, max_frame: 2048}\n")
    name, _, settings = planned(flow, workflow)
    assert (name, settings["max_frame"][0]) == ("balanced", 2_048)


def test_a_request_is_told_the_requests_at_once_of_its_profile(flow: Flow, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("name: r\nnodes: {clean: {type: text.clean}}\nconnections: []\n")
    _, _, settings = planned(flow, tmp_path / "r.yaml", "--profile", "memory_optimized")
    assert settings["max_in_flight"] == (256, "profile memory_optimized")
    assert "max_frame" not in settings
    assert "256 requests  profile memory_optimized; set max_in_flight" in " ".join(
        flow("plan", "r.yaml", "--profile", "memory_optimized").out.split(" " * 3)
    )


@pytest.mark.parametrize("command", ["run", "plan"])
def test_a_profile_nobody_knows_exits_2_and_names_those_there_are(
    flow: Flow, workflow: Path, command: str
) -> None:
    ran = flow(command, str(workflow), "--profile", "fast")
    assert ran.code == 2
    assert "low_latency" in ran.err


@pytest.mark.parametrize("profile", list(PROFILES))
def test_a_run_gives_the_same_result_under_every_profile(flow: Flow, workflow: Path, profile: str) -> None:
    ran = flow("run", str(workflow), "--fresh", "--profile", profile)
    assert ran.code == 0
    ids = [json.loads(line)["id"] for line in (workflow.parent / "even.jsonl").read_text().splitlines()]
    assert ids == [2, 4]
