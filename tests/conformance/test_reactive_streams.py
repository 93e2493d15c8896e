"""The table of Reactive Streams rules is complete, and every test it names is there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TABLE = (ROOT / "docs" / "specs" / "reactive-streams.md").read_text()
RULES = {1: 11, 2: 13, 3: 17, 4: 2}


def test_every_rule_has_its_row_with_a_test_or_a_reason() -> None:
    rows = {
        rule: (text, held)
        for rule, text, held in re.findall(r"^\| (\d\.\d+) \|(.*)\|(.*)\|$", TABLE, re.MULTILINE)
    }
    assert list(rows) == [f"{part}.{number}" for part, most in RULES.items() for number in range(1, most + 1)]
    for rule, (text, held) in rows.items():
        assert held.strip() or "does not apply:" in text, f"rule {rule} has neither a test nor a reason"


def test_every_test_it_names_exists() -> None:
    files = [*ROOT.glob("tests/**/*.py"), *ROOT.glob("flowruntime/testing/conformance/*.py")]
    defined = {name for file in files for name in re.findall(r"def (test_\w+)", file.read_text())}
    named = set(re.findall(r"`(test_\w+)`", TABLE))
    assert len(named) > 20
    assert not named - defined
