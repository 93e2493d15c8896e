"""Conditions: an expression that must be true or false for a value.

Owns: refusing every other answer. Does not own: expressions (flowcore.expression, the compiler).

Always holds: nothing is true or false by accident; 0, "" and null are errors here.
"""

from __future__ import annotations

from flowcore.errors import ExpressionEvaluationError
from flowcore.expression import Expression
from flowcore.findings import shown


def is_true(condition: Expression, value: object) -> bool:
    """Whether `condition` is true of `value`.

    Raises:
        ExpressionEvaluationError: it has no value, or one that is neither true nor false.
    """
    answer = condition(value=value)
    if answer is True or answer is False:
        return answer
    raise ExpressionEvaluationError(
        condition.text, reason=f"a condition must be true or false, and this is {shown(answer)}; compare it"
    )
