"""flow nodes, flow schema, flow doctor."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flowcore.schema import workflow_schema
from flowruntime.cli import doctor as doctor_module

Flow = Callable[..., Any]


def test_types_are_listed_by_category(flow: Flow) -> None:
    out = flow("nodes").out
    assert "\ntext\n  text.clean " in out
    assert "files.source  source  " in out


def test_one_type_shows_ports_configuration_and_description(flow: Flow) -> None:
    out = flow("nodes", "text.clean").out
    assert out.startswith("text.clean  (map)\n")
    assert "Inputs\n  text  str" in out
    assert 'default "NFC"' in out
    assert "Fails when" in out


def test_an_unknown_type_is_refused_with_the_nearest(flow: Flow) -> None:
    ran = flow("nodes", "text.claen")
    assert ran.code == 2
    assert "did you mean 'text.clean'" in ran.err


def test_types_as_json_are_their_metadata(flow: Flow) -> None:
    assert json.loads(flow("nodes", "text.clean", "--json").out)["type"] == "text.clean"
    assert {each["type"] for each in json.loads(flow("nodes", "--json").out)} >= {"text.clean", "files.sink"}


def test_the_schema_is_printed(flow: Flow) -> None:
    assert json.loads(flow("schema").out) == workflow_schema()


def test_the_doctor_finds_this_installation_well(flow: Flow) -> None:
    ran = flow("doctor")
    assert ran.code == 0
    assert "everything needed is here" in ran.out
    assert "package connectors" in ran.out


def test_the_doctor_says_what_is_broken_and_exits_with_1(flow: Flow, tmp_path: Path) -> None:
    (tmp_path / "flow.toml").write_text('nodes = ["nowhere.to_be_found"]\n')
    ran = flow("doctor")
    assert ran.code == 1
    assert "broken" in ran.out
    assert "'nowhere.to_be_found' cannot be imported" in ran.out


def test_the_doctor_sees_a_clock_that_is_behind(flow: Flow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_module.time, "time", lambda: 0.0)
    ran = flow("doctor")
    assert ran.code == 1
    assert "the clock is behind" in ran.out
