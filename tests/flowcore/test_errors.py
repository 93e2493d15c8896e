"""Errors as plain data."""

from __future__ import annotations

import json
from datetime import timedelta

import msgspec

from flowcore.errors import RunFailedError, describe_error


class Holder(msgspec.Struct):
    error: BaseException
    waited: timedelta


def test_a_fact_that_holds_errors_is_told_with_them() -> None:
    error = RunFailedError("it failed", result=Holder(LookupError("no such city"), timedelta(seconds=1)))
    told = describe_error(error)
    assert told["result"] == {"error": {"kind": "LookupError", "message": "no such city"}, "waited": "PT1S"}
    json.dumps(told)
