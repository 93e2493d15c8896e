"""The plot: how many times better ours is than each peer, on a logarithmic axis, as SVG.

Owns: the drawing.
Does not own: the figures (benchmarks.harness).

Pure: the plain objects of `benchmarks.harness.measure` in, SVG text out. Drawn by hand: a plotting library
would be a dependency for one picture.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

from benchmarks.report import number

LEFT, RIGHT, TOP, LINE, WIDTH = 430, 90, 50, 18, 1000
GOOD, BAD, GREY, INK = "#1a7f5a", "#b3412e", "#c8c8c8", "#222222"
FONT = 'font-family="sans-serif" font-size="12"'
TITLE = "Times better than each peer; right of 1x ours is better"


class Mark(NamedTuple):
    """One peer in one row."""

    work: str
    peer: str
    times: float
    """How many times better ours is; below 1 the peer is better."""


def marks(results: Sequence[Mapping[str, Any]]) -> list[Mark]:
    """Every ratio there is, turned so that more is better."""
    return [
        Mark(row["work"], peer, ratio if row["better"] == "higher" else 1 / ratio)
        for result in results
        for row in result["rows"]
        for peer, ratio in row["ratios"].items()
    ]


def svg(results: Sequence[Mapping[str, Any]]) -> str:
    """The picture; a line per peer under a heading per row."""
    found = marks(results)
    low = math.floor(math.log10(min((mark.times for mark in found), default=1)))
    high = math.ceil(math.log10(max((mark.times for mark in found), default=10)))
    low, high = min(low, -1), max(high, 1)

    def x(times: float) -> float:
        return LEFT + (math.log10(times) - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    body: list[str] = []
    y = TOP
    work = None
    for mark in found:
        if mark.work != work:
            work = mark.work
            y += LINE + 6
            body.append(f'<text x="10" y="{y}" font-weight="bold">{escape(work)}</text>')
        y += LINE
        fill = f'fill="{GOOD if mark.times >= 1 else BAD}"'
        start, end = sorted((x(1), x(mark.times)))
        body += [
            f'<text x="{LEFT - 10}" y="{y}" text-anchor="end">{escape(mark.peer)}</text>',
            f'<rect x="{start:.1f}" y="{y - 10}" width="{max(end - start, 1):.1f}" height="10" {fill}/>',
            f'<text x="{end + 5:.1f}" y="{y}">{number(mark.times)}x</text>',
        ]
    height = y + 2 * LINE
    grid = [
        f'<line x1="{x(10.0**power):.1f}" x2="{x(10.0**power):.1f}" y1="{TOP}" y2="{height - LINE}" '
        f'stroke="{INK if power == 0 else GREY}"/>'
        f'<text x="{x(10.0**power):.1f}" y="{TOP - 6}" text-anchor="middle">{10.0**power:g}x</text>'
        for power in range(low, high + 1)
    ]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" {FONT} fill="{INK}">',
            f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
            f'<text x="10" y="20" font-size="15">{TITLE}</text>',
            *grid,
            *body,
            "</svg>\n",
        ]
    )
