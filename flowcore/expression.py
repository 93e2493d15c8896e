"""Configuration fields that hold an expression (CEL) or a template of expressions.

Owns: the types a node's configuration names; a node calls them like a function of its input ports.
Does not own: parsing, checking, compiling (flowruntime.compile.expressions).

Always holds: an expression that cannot be evaluated raises; it is never true or false by accident.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


class Expression:
    """A compiled CEL expression over a node's input ports.

    In a test, build one from a function: `Expression("value > 1", lambda value: value > 1)`.
    """

    __slots__ = ("compiled", "evaluate", "text")

    def __init__(self, text: str, evaluate: Callable[..., Any], compiled: Any = None) -> None:
        self.text = text
        self.evaluate = evaluate
        self.compiled = compiled
        """The compiler's own form, from which it inlines Python source; None when built by hand."""

    def __call__(self, **variables: object) -> Any:
        """The value for these variables.

        Raises:
            ExpressionEvaluationError: a missing field, a type mismatch, an overflow, ...
        """
        return self.evaluate(**variables)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.text!r})"


class Template(Expression):
    """A nested mapping or list whose string leaves are expressions.

    Evaluates to the same shape with their values.
    """

    __slots__ = ("shape",)

    def __init__(
        self,
        text: str,
        evaluate: Callable[..., Any],
        compiled: Any = None,
        shape: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(text, evaluate, compiled)
        self.shape = shape
