"""What a node raised, as the failure of its row, whatever class it is of.

Owns: the rule, pure. Does not own: catching (the stages), what becomes of the failure (policies).

Always holds: an Exception stays what it is. What Python keeps apart from exceptions (SystemExit,
GeneratorExit, a CancelledError nobody asked for) would end a task, or the program, in silence or for good: it
fails the row like any other error, wrapped. Only KeyboardInterrupt is no row's: it is the user's.
"""

from __future__ import annotations

import asyncio

from flowcore.errors import CancelledRowError, NodeFailedError, describe_error


def contained(error: BaseException, node: str) -> Exception:
    """The error a row fails with when `node` raised `error`; the original is its `__cause__`.

    Raises:
        KeyboardInterrupt: `error` itself.
    """
    if isinstance(error, Exception):
        return error
    if isinstance(error, KeyboardInterrupt):
        raise error
    if isinstance(error, asyncio.CancelledError):
        failure: Exception = CancelledRowError(
            f"node {node!r} raised CancelledError, though nobody had cancelled its row", node=node
        )
    else:
        told = describe_error(error)
        failure = NodeFailedError(
            f"node {node!r} raised {told['kind']}: {told['message']}; it would end more than its row: let a "
            "node raise an Exception",
            node=node,
        )
    failure.__cause__ = error
    return failure
