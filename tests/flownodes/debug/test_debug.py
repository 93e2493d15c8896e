"""debug.log, tap and sample."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowcore.errors import ConfigError, ValidationFailedError
from flowcore.expression import Expression, Template
from flownodes.debug.log import log
from flownodes.debug.sample import Sample, SampleConfig, SampleIn
from flownodes.debug.tap import tap
from flowruntime.testing.contexts import Emitted, Logged, StandaloneNodeContext

CTX = StandaloneNodeContext()


def keyed(value: dict[str, object]) -> object:
    return value["key"]


def named(value: dict[str, object]) -> dict[str, object]:
    return {"name": value["name"], "password": value["password"]}


def test_log_passes_the_value_on_and_logs_it_redacted() -> None:
    ctx, value = StandaloneNodeContext(), {"name": "x" * 600, "password": "p", "card": 1}
    assert log(value, ctx, message="seen", level="warning", redact=["card"]) is value
    shown = {"name": "x" * 500 + "...", "password": "***", "card": "***"}
    assert ctx.logs == [Logged("warning", "seen", {"value": shown})]


def test_log_can_say_which_fields() -> None:
    ctx = StandaloneNodeContext()
    log({"name": "Ann", "password": "p"}, ctx, fields=Template("named", named))
    assert ctx.logs == [Logged("info", "row", {"fields": {"name": "Ann", "password": "***"}})]


def test_tap_publishes_a_copy() -> None:
    ctx, value = StandaloneNodeContext(), {"a": [1], "token": "t"}
    assert tap(value, ctx) is value
    assert ctx.events == [Emitted("data", {"a": [1], "token": "***"})]


def passed(config: SampleConfig, rows: int = 1_000) -> list[int]:
    sample = Sample(config)
    return [number for number in range(rows) if sample.execute(SampleIn({"key": number % 10}), CTX)]


def test_every_nth_row_passes_beginning_with_the_first() -> None:
    assert passed(SampleConfig(every=300)) == [0, 300, 600, 900]
    assert passed(SampleConfig(every=1), 3) == [0, 1, 2]


@given(st.integers(-(2**70), 2**70))
def test_a_fraction_is_the_same_rows_each_time(seed: int) -> None:
    chosen = passed(SampleConfig(fraction=0.25, seed=seed))
    assert chosen == passed(SampleConfig(fraction=0.25, seed=seed))
    assert 150 < len(chosen) < 350


def test_another_seed_chooses_other_rows() -> None:
    assert passed(SampleConfig(fraction=0.5, seed=1)) != passed(SampleConfig(fraction=0.5, seed=2))
    assert passed(SampleConfig(fraction=0.0)) == []
    assert len(passed(SampleConfig(fraction=1.0))) == 1_000


def test_rows_of_one_key_pass_or_drop_together() -> None:
    chosen = passed(SampleConfig(fraction=0.5, by=Expression("value.key", keyed)))
    keys = {number % 10 for number in chosen}
    assert 0 < len(keys) < 10
    assert len(chosen) == 100 * len(keys)


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"every": 2, "fraction": 0.1},
        {"every": 0},
        {"fraction": 1.5},
        {"every": 2, "by": Expression("1", keyed)},
    ],
)
def test_a_sample_says_one_thing(config: dict[str, object]) -> None:
    with pytest.raises((ConfigError, ValidationFailedError)):
        SampleConfig(**config)  # pyright: ignore[reportArgumentType] - wrong on purpose
