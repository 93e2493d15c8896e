"""Redaction: what may be shown of a value."""

import copy

import pytest

from flowcore.values import Json, Secret
from flownodes.redaction import MAX_PARTS, Redactor

SHOW = Redactor(["card"], max_characters=10)


def test_named_fields_are_hidden_at_any_depth_and_in_any_spelling() -> None:
    value = {
        "CARD": 1,
        "list": [{"api-key": "k", "Authorization": ["x"], "cards": 2}],
        "j": Json(b'{"token": 1}'),
    }
    before = copy.deepcopy(value)
    assert SHOW.copy(value) == {
        "CARD": "***",
        "list": [{"api-key": "***", "Authorization": "***", "cards": 2}],
        "j": {"token": "***"},
    }
    assert value == before


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("12345678901", "1234567890..."),
        ("1234567890", "1234567890"),
        (Secret("s"), "***"),
        (b"\x00", r"b'\x00'"),
        (Json(b"{"), "Json(b'{')"),
        (float("inf"), float("inf")),
    ],
)
def test_leaves_are_shown_short_and_plain(value: object, shown: object) -> None:
    assert SHOW.copy(value) == shown


def test_a_large_or_deep_value_is_cut_and_says_so() -> None:
    wide = SHOW.copy(list(range(5_000)))
    assert len(wide) <= MAX_PARTS + 1
    assert wide[-1] == f"... {5_000 - len(wide) + 1} more"
    assert "..." in SHOW.copy({str(number): number for number in range(5_000)})
    deep: object = 1
    for _ in range(500):
        deep = [deep]
    assert "..." in repr(SHOW.copy(deep))
