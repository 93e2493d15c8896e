"""Profiles: what each stands for, and who wins when several speak."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from flowcore.durations import format_duration
from flowcore.errors import DefinitionError, ValidationFailedError
from flowcore.policies import NodePolicies
from flowcore.profiles import PROFILE_NAMES, PROFILES, Profile, check_profile
from flowcore.settings import Settings
from flowcore.workflow import Workflow


def test_without_a_profile_everything_is_as_balanced_says() -> None:
    tuning = Settings().tuned()
    assert tuning.profile == "balanced"
    assert tuning.chosen_by == "the default"
    assert tuning.values == PROFILES["balanced"]
    assert tuning.source("max_frame") == "the default"


@pytest.mark.parametrize("name", PROFILE_NAMES)
def test_a_profile_sets_what_the_workflow_does_not_say(name: Any) -> None:
    tuning = Settings(profile=name, max_frame=7).tuned()
    assert tuning.max_frame == 7
    assert tuning.source("max_frame") == "settings.max_frame"
    assert tuning.max_bytes == PROFILES[name].max_bytes
    assert tuning.source("max_bytes") == f"profile {name}"
    assert msgspec.structs.replace(tuning.values, max_frame=PROFILES[name].max_frame) == PROFILES[name]


def test_saying_the_default_is_saying_something() -> None:
    """A workflow that asks for frames of 2,048 rows gets them under every profile."""
    balanced = PROFILES["balanced"]
    settings = Settings(profile="low_latency", max_frame=balanced.max_frame, linger=timedelta(0))
    assert settings.tuned().max_frame == 2_048
    assert settings.tuned().said == {"max_frame", "linger"}


@pytest.mark.parametrize(
    ("said", "default", "override", "profile", "chosen_by"),
    [
        (None, None, None, "balanced", "the default"),
        (None, "low_latency", None, "low_latency", "the runtime"),
        ("high_throughput", "low_latency", None, "high_throughput", "settings.profile"),
        ("balanced", "low_latency", None, "balanced", "settings.profile"),
        ("high_throughput", "low_latency", "memory_optimized", "memory_optimized", "the run"),
    ],
)
def test_the_run_wins_over_the_workflow_and_that_over_the_runtime(
    said: Any, default: Any, override: Any, profile: str, chosen_by: str
) -> None:
    tuning = Settings(profile=said).tuned(default, override)
    assert (tuning.profile, tuning.chosen_by) == (profile, chosen_by)


def test_profiles_trade_in_the_direction_of_their_names() -> None:
    balanced, high = PROFILES["balanced"], PROFILES["high_throughput"]
    quick, small = PROFILES["low_latency"], PROFILES["memory_optimized"]
    assert quick.max_frame < balanced.max_frame < high.max_frame
    assert small.max_bytes < balanced.max_bytes < high.max_bytes
    assert small.concurrency < balanced.concurrency < high.concurrency
    assert small.max_requests < balanced.max_requests < high.max_requests
    assert high.commit_interval > balanced.commit_interval
    assert high.linger > balanced.linger == quick.linger == timedelta(0)


def test_no_profile_decides_what_can_fail_a_row() -> None:
    decides_outcomes = {
        "max_output_bytes", "max_children", "timeout", "on_error", "delivery", "max_redelivery", "retry",
        *NodePolicies.shapes,
    } - {"concurrency"}  # fmt: skip
    assert not decides_outcomes & set(Profile.__struct_fields__)


def test_a_profile_is_a_setting_of_the_file_and_written_back() -> None:
    wf = Workflow("w", settings={"profile": "low_latency", "linger": "5ms", "concurrency": 8})
    assert wf.settings.plain() == {"profile": "low_latency", "linger": "5ms", "concurrency": 8}
    assert Workflow("w", settings=wf.settings.plain()).settings == wf.settings


def test_a_profile_nobody_knows_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValidationFailedError, match="balanced, high_throughput, low_latency"):
        Workflow("w", settings={"profile": "fast"})
    with pytest.raises(DefinitionError, match="no profile 'fast'; profiles are balanced"):
        check_profile("fast")  # type: ignore[arg-type] - wrong on purpose


def test_an_asynchronous_generator_has_a_quarter_of_the_others_rows_and_at_least_one() -> None:
    assert [Settings(concurrency=n).tuned().expanding for n in (1, 4, 64)] == [1, 1, 16]


def test_the_guide_shows_the_values_profiles_have() -> None:
    """A table people choose by must not drift from what they get."""
    page = Path(__file__).resolve().parents[2] / "docs" / "guide" / "profiles.md"
    guide = page.read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in guide.splitlines() if "|" in line]
    shown = {row[0].split(":")[0].strip("`"): row[1:] for row in rows if len(row) == 5}
    assert shown[""] == [f"`{name}`" for name in PROFILE_NAMES]
    profiles = [PROFILES[name] for name in PROFILE_NAMES]
    assert shown["max_frame"] == [f"{each.max_frame:,}" for each in profiles]
    assert shown["max_bytes"] == [f"{each.max_bytes >> 20} MiB" for each in profiles]
    assert shown["concurrency"] == [f"{each.concurrency}" for each in profiles]
    assert shown["linger"] == [format_duration(each.linger) for each in profiles]
    assert shown["commit_interval"] == [format_duration(each.commit_interval) for each in profiles]
    assert shown["requests at once"] == [f"{each.max_requests:,}" for each in profiles]
