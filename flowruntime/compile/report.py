"""The report of a validation: every problem once, in the order of the file.

Owns: which problems are the same one, their order, naming the file of those found without it (`located`).
Does not own: finding them (validate), their text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from flowcore.errors import ValidationFailedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from flowcore.errors import Problem
    from flowcore.findings import Mark, Path

_INSIDE: Final = ".config.workflow."


def in_order(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """Each problem once: the outermost file first, in a file by line, on a line errors first.

    A file that two nodes name is read twice; what is wrong in it is told once. Problems without a line, such
    as that of a param nobody gave, come before the others of their file.
    """
    once: dict[tuple[object, ...], Problem] = {}
    for problem in problems:
        once.setdefault(_identity(problem), problem)
    found = list(once.values())
    outer = {problem.file for problem in found if _INSIDE not in problem.path}
    files = sorted(dict.fromkeys(problem.file for problem in found), key=lambda file: file not in outer)
    rank = {file: index for index, file in enumerate(files)}
    return tuple(sorted(found, key=lambda each: (rank[each.file], each.line or 0, each.severity != "error")))


def _identity(problem: Problem) -> tuple[object, ...]:
    path = problem.path if problem.line is None else problem.path.rpartition(_INSIDE)[2]
    return problem.file, problem.line, path, problem.message, problem.value


def located(error: ValidationFailedError, marks: Mapping[Path, Mark], what: str) -> ValidationFailedError:
    """The error with the file of each problem of a node, where that is known.

    Args:
        error: found in a graph, which knows lines only.
        marks: of the workflow.
        what: is invalid.
    """
    found: list[Problem] = []
    for problem in error.problems:
        mark = marks.get(tuple(problem.path.split(".")[:2]))
        known = problem if mark is None else msgspec.structs.replace(problem, file=mark.file)
        found.append(known)
    return ValidationFailedError(found, what=what)
