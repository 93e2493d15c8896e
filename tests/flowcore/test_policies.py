"""Policies: checked when made, equal in code and file, merged by precedence."""

from __future__ import annotations

from datetime import timedelta

import pytest

from flowcore.errors import ValidationFailedError
from flowcore.findings import Findings
from flowcore.on_error import ON_ERROR_WORDS
from flowcore.policies import (
    Batch,
    Concurrency,
    NodePolicies,
    RetryPolicy,
    merge_policies,
)
from flowcore.settings import Limits, Settings
from flowcore.shapes import read_declared


def _problems(**fields: object) -> list[str]:
    with pytest.raises(ValidationFailedError) as caught:
        NodePolicies(**fields)  # type: ignore[arg-type] - wrong on purpose
    return [f"{problem.path}: {problem.message}" for problem in caught.value.problems]


def test_plain_and_native_forms_make_the_same_policies() -> None:
    plain = {"concurrency": 8, "timeout": "2s", "retry": {"max_attempts": 5, "initial": "1s"}, "batch": 4}
    findings = Findings()
    read = read_declared(NodePolicies, plain, (), findings)
    assert not findings.problems
    assert read == NodePolicies(
        concurrency=Concurrency(max=8),
        timeout=timedelta(seconds=2),
        retry=RetryPolicy(max_attempts=5, initial=timedelta(seconds=1)),
        batch=Batch(max_items=4),
    )
    assert read != NodePolicies()
    assert read.plain() == plain  # type: ignore[union-attr]


def test_every_wrong_field_is_named_at_once() -> None:
    assert _problems(
        concurrency=0, timeout=3, retry={"max_atempts": 5, "jitter": 2}, on_error="retry", max_children=True
    ) == [
        "concurrency: must be a whole number from 1 to 1000000",
        "timeout: must be a duration with a unit",
        "retry.max_atempts: unknown retry policy field 'max_atempts'",
        "retry.jitter: must be a number, from 0.0 to 1.0",
        f"on_error: must be one of {', '.join(ON_ERROR_WORDS)}, retry_workflow, or {{fallback: VALUE}}",
        "max_children: must be a whole number of at least 1",
    ]


@pytest.mark.parametrize("field", ["dead_letter", "adaptive", "retry_workflow", "fallback"])
def test_policies_that_do_not_exist_are_unknown_fields(field: str) -> None:
    findings = Findings()
    read_declared(NodePolicies, {field: {}}, (), findings)
    assert [problem.message for problem in findings.problems] == [f"unknown policy field {field!r}"]
    assert findings.problems[0].remedy


def test_a_retry_policy_checks_its_fields_together() -> None:
    with pytest.raises(ValidationFailedError, match="must not be longer than max_delay"):
        RetryPolicy(initial=timedelta(minutes=1))


@pytest.mark.parametrize("jitter", [-0.1, 1.1, float("nan"), "0.5", True])
def test_jitter_is_a_share(jitter: object) -> None:
    with pytest.raises(ValidationFailedError, match="jitter"):
        RetryPolicy(jitter=jitter)  # type: ignore[arg-type] - wrong on purpose


def test_the_first_layer_that_speaks_wins_field_by_field() -> None:
    file = NodePolicies(timeout=timedelta(seconds=1))
    node = NodePolicies(timeout=timedelta(seconds=9), retry=RetryPolicy(max_attempts=2))
    merged = merge_policies(file, node, Settings(max_children=5, max_output_bytes=16 << 20).as_policies())
    assert merged.timeout == timedelta(seconds=1)
    assert merged.retry == RetryPolicy(max_attempts=2)
    assert (merged.on_error, merged.max_children, merged.max_output_bytes) == ("stop_workflow", 5, 16 << 20)


def test_a_struct_is_taken_whole_never_mixed() -> None:
    merged = merge_policies(
        NodePolicies(concurrency=Concurrency(order="by_key")), NodePolicies(concurrency=Concurrency(max=64))
    )
    assert merged.concurrency == Concurrency(order="by_key")


def test_settings_read_sizes_durations_and_limits() -> None:
    findings = Findings()
    plain = {"max_bytes": "1MiB", "timeout": "1m30s", "limits": {"types": {"http.request": 3}}}
    read = read_declared(Settings, plain, ("settings",), findings)
    assert read == Settings(
        max_bytes=1 << 20, timeout=timedelta(seconds=90), limits=Limits(types={"http.request": 3})
    )


def test_wrong_settings_carry_their_path() -> None:
    findings = Findings()
    plain = {"max_byte": 1, "delivery": "exactly_once", "limits": {"types": {"a": 0}}}
    read_declared(Settings, plain, ("settings",), findings)
    assert [problem.path for problem in findings.problems] == [
        "settings.max_byte",
        "settings.delivery",
        "settings.limits.types.a",
    ]
