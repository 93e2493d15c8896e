"""transform.json_stringify."""

import math

import pytest

from flowcore.values import Json, ValueFormError
from flownodes.transform.json_stringify import json_stringify


def test_text_is_written_as_it_is_and_in_one_line() -> None:
    assert json_stringify({"a": ["ä", 1, 1.0, None]}) == '{"a":["ä",1,1.0,null]}'
    assert json_stringify({"b": 1, "a": 2}, indent=1, sort_keys=True) == '{\n "a": 2,\n "b": 1\n}'
    assert json_stringify(Json(b"[1, 2]")) == "[1,2]"


@pytest.mark.parametrize("value", [b"x", math.nan, math.inf, "\ud800", {1: 2}, (1,), object()])
def test_what_json_has_no_form_for_is_an_error_with_its_path(value: object) -> None:
    for indent in (None, 2):
        with pytest.raises(ValueFormError, match=r"a\.b\[1\]"):
            json_stringify({"a": {"b": [1, value]}}, indent=indent)


def test_lossless_writes_the_dollar_forms() -> None:
    assert (
        json_stringify({"a": b"x", "$b": math.inf}, form="lossless")
        == '{"a":{"$bytes":"eA=="},"$$b":{"$float":"inf"}}'
    )
    with pytest.raises(ValueFormError):
        json_stringify(object(), form="lossless")
