"""transform.pick, rename and coerce: nodes that work on some fields of a dict."""

from typing import Any

import pytest

from flowcore.errors import CoercionError, ConflictError, MissingFieldError, WrongKindError
from flowcore.values import same_value
from flownodes.transform.coerce import coerce
from flownodes.transform.pick import pick
from flownodes.transform.rename import rename

ROW = {"id": 7, "customer": {"name": "Ann", "age": "41"}, "items": [1], "none": None}


def test_pick_keeps_fields_where_they_were_and_in_the_order_asked_for() -> None:
    picked = pick(ROW, fields=["customer.name", "id"])
    assert list(picked.items()) == [("customer", {"name": "Ann"}), ("id", 7)]


def test_picking_a_dict_and_a_field_of_it_leaves_the_row_alone() -> None:
    picked = pick(ROW, fields=["customer", "customer.age"])
    assert picked == {"customer": {"name": "Ann", "age": "41"}}
    picked["customer"]["age"] = 0
    assert ROW["customer"] == {"name": "Ann", "age": "41"}


def test_pick_answers_a_missing_field_as_told() -> None:
    with pytest.raises(MissingFieldError, match="known here: age, name"):
        pick(ROW, fields=["customer.phone"])
    assert pick(ROW, fields=["customer.phone", "none.deep"], missing="null") == {
        "customer": {"phone": None},
        "none": {"deep": None},
    }
    assert pick(ROW, fields=["id", "customer.phone"], missing="skip") == {"id": 7}


def test_pick_does_not_go_through_lists() -> None:
    with pytest.raises(WrongKindError, match=r"use transform\.map"):
        pick(ROW, fields=["items[0]"])


def test_rename_keeps_the_order_and_lets_names_swap() -> None:
    assert list(rename({"a": 1, "b": 2, "c": 3}, fields={"a": "b", "b": "a"})) == ["b", "a", "c"]


def test_rename_never_loses_a_field() -> None:
    for fields in ({"a": "b"}, {"a": "c", "b": "c"}):
        with pytest.raises(ConflictError, match="would both be named"):
            rename({"a": 1, "b": 2}, fields=fields)


def test_rename_answers_a_missing_field_as_told() -> None:
    with pytest.raises(MissingFieldError):
        rename({"a": 1}, fields={"b": "c"})
    assert rename({"a": 1}, fields={"b": "c"}, missing="skip") == {"a": 1}


def test_coerce_changes_kinds_at_any_depth_and_copies_the_way() -> None:
    changed = coerce(ROW, fields={"customer.age": "int", "id": "str"})
    assert same_value(changed["customer"], {"name": "Ann", "age": 41})
    assert changed["id"] == "7"
    assert ROW["customer"] == {"name": "Ann", "age": "41"}


def test_coerce_says_which_field_does_not_convert() -> None:
    with pytest.raises(CoercionError, match=r"'Ann' at customer\.name into int"):
        coerce(ROW, fields={"customer.name": "int"})


def test_coerce_answers_missing_and_null_fields_as_told() -> None:
    with pytest.raises(MissingFieldError):
        coerce(ROW, fields={"phone": "int"})
    assert coerce(ROW, fields={"phone": "int"}, missing="null")["phone"] is None
    assert "phone" not in coerce(ROW, fields={"phone": "int"}, missing="skip")
    with pytest.raises(CoercionError):
        coerce(ROW, fields={"none": "int"})
    assert coerce(ROW, fields={"none": "int"}, null="keep")["none"] is None


@pytest.mark.parametrize("value", [[1], "text", None])
def test_what_is_no_dict_is_refused(value: Any) -> None:
    for node in (pick, rename, coerce):
        with pytest.raises(WrongKindError, match="needs a dict"):
            node(value, fields={})  # pyright: ignore[reportArgumentType] - never looked at
