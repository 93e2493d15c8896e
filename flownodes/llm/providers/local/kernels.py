"""The three elementwise steps of a transformer layer, in place, in float32.

Owns: GELU, layer norm and softmax over plain arrays.
Does not own: the model (minilm) or its weights.

Always holds: arguments are float32 and contiguous in the last axis; every function overwrites its first one.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from flownodes.llm.providers.local.weights import Array, Norm

GELU_ROWS: Final = 32
"""Rows of GELU worked on at once: three buffers of 32 x 1,536 x 4 bytes stay in a core's second cache."""

_EPSILON: Final = np.float32(1e-12)
_ONE: Final = np.float32(1.0)

# Phi(x) = 1 / (1 + exp(-x P(x^2))), where P is the polynomial nearest to logit(Phi(x)) / x for x in [0, 5.6],
# measured by the error it makes in GELU (weighted minimax by Lawson's iteration, in float64). Highest power
# first, sign of -P. Its leading coefficient is positive, so -x P runs to the right infinity outside.
_MINUS_P: Final = tuple(
    np.float32(-coefficient)
    for coefficient in (
        3.6112328478984718e-09,
        -2.668928194748146e-07,
        7.938218924863526e-06,
        -0.00011048031693861615,
        -6.62599878828687e-05,
        0.072668567029959,
        1.5957684322299093,
    )
)


def gelu(rows: Array) -> None:
    """Replace each x by x Phi(x), the exact GELU, by the error function and not by its tanh approximation.

    Error against float64: below 3e-7 max(1, |x|), of which rounding to float32 makes 1.2e-7 |x|. numpy has no
    erf, and this takes 17 passes over memory that is still in cache.

    Args:
        rows: shape (n, width); overwritten.
    """
    square = np.empty((min(GELU_ROWS, len(rows)), rows.shape[1]), np.float32)
    power = np.empty_like(square)
    with np.errstate(over="ignore", under="ignore"):  # exp overflows to infinity far left, where GELU is -0.0
        for start in range(0, len(rows), GELU_ROWS):
            x = rows[start : start + GELU_ROWS]
            u, p = square[: len(x)], power[: len(x)]
            np.multiply(x, x, out=u)
            np.multiply(u, _MINUS_P[0], out=p)
            for coefficient in _MINUS_P[1:-1]:
                p += coefficient
                p *= u
            p += _MINUS_P[-1]
            p *= x
            np.exp(p, out=p)
            p += _ONE
            x /= p


def layer_norm(rows: Array, norm: Norm) -> None:
    """Each row to mean 0 and variance 1, then scaled and shifted.

    Args:
        rows: shape (n, width); overwritten.
        norm: scale and shift, shape (width,).
    """
    rows -= rows.mean(axis=1, keepdims=True)
    deviation: Array = np.einsum("ij,ij->i", rows, rows)
    deviation /= np.float32(rows.shape[1])
    deviation += _EPSILON
    np.sqrt(deviation, out=deviation)
    np.divide(_ONE, deviation, out=deviation)
    rows *= deviation[:, None]
    rows *= norm.scale
    rows += norm.shift


def softmax(scores: Array) -> None:
    """Softmax over the last axis; the largest score is subtracted first, so nothing overflows."""
    scores -= scores.max(axis=-1, keepdims=True)
    with np.errstate(under="ignore"):
        np.exp(scores, out=scores)
    scores /= scores.sum(axis=-1, keepdims=True)
