"""text.clean."""

from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowcore.errors import WrongKindError
from flownodes.text.clean import clean


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("  My\tcard \n was  stolen ", "My card was stolen"),
        ("e\u0301", "\u00e9"),
        ("\ufeffzero\u200bwidth\u00ad", "zerowidth"),
        ("no\u00a0break", "no break"),
        ("a\x1fb\x00c", "a bc"),
        ("   ", ""),
        ("", ""),
        ("\u2468 \ufb01", "\u2468 \ufb01"),
    ],
)
def test_accidents_go_and_meaning_stays(text: str, cleaned: str) -> None:
    assert clean(text) == cleaned


def test_each_step_can_be_chosen() -> None:
    assert clean("\u2468 \ufb01", unicode="NFKC") == "9 fi"
    assert clean("A\nB", lower=True) == "a b"
    assert clean(" a  b \n c\r\n", whitespace="lines") == "a b\nc"
    assert clean(" a\x00 ", whitespace="keep", controls=False, unicode="keep") == " a\x00 "


@given(
    st.text(),
    st.sampled_from(["NFC", "NFKC", "keep"]),
    st.sampled_from(["collapse", "lines", "keep"]),
    st.booleans(),
    st.booleans(),
)
def test_cleaning_twice_changes_nothing_more(
    text: str, unicode: str, whitespace: str, lower: bool, controls: bool
) -> None:
    def once(text: str) -> str:
        return clean(text, unicode=unicode, whitespace=whitespace, lower=lower, controls=controls)  # pyright: ignore[reportArgumentType] - drawn from the literals

    assert once(once(text)) == once(text)


@pytest.mark.parametrize("value", [None, 5, b"text", ["text"]])
def test_what_is_no_text_is_refused(value: object) -> None:
    with pytest.raises(WrongKindError, match="needs text"):
        clean(value)  # pyright: ignore[reportArgumentType] - on purpose


@pytest.mark.parametrize("form", ["NFC", "NFKC", "keep"])
def test_no_single_character_changes_when_it_is_cleaned_again(form: Literal["NFC", "NFKC", "keep"]) -> None:
    """Mathematical letters have no lower case of their own; the letters they stand for have."""
    unstable = [
        point
        for point in range(0x110000)
        if not 0xD800 <= point <= 0xDFFF
        and clean(once := clean(chr(point), unicode=form, lower=True), unicode=form, lower=True) != once
    ]
    assert unstable == []
