"""Plain tables: columns aligned by spaces, so that they read in a terminal, a log and a diff alike.

Owns: layout. Does not own: what is in the cells.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence


def table(rows: Sequence[Sequence[str]], *, numbers: Collection[int] = (), indent: str = "") -> str:
    """Rows as aligned lines, the first one being the head.

    Args:
        rows: equally long.
        numbers: columns aligned to the right.
        indent: before each line.
    """
    if not rows:
        return ""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines: list[str] = []
    for row in rows:
        cells = [
            cell.rjust(width) if column in numbers else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append(f"{indent}{'  '.join(cells).rstrip()}")
    return "\n".join(lines)
