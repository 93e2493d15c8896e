"""What runs in a worker process: calls come in over a socket, answers go back, until the parent is gone.

Owns: `main`; `send` and `receive`, one message each, for both sides; the kinds of messages.
Does not own: starting and ending processes (processes), the form of values (wire).

Always holds: the process ends when its parent does, however that ended and whatever the function is doing;
signals for a whole group of processes (Ctrl-C, a supervisor's SIGTERM) are the parent's to answer, who lets
the work in hand be finished.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
import signal
import socket
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

from flowruntime.flowcontrol.wire import error_as_data, from_wire, to_wire

IMPORT: Final = b"i"
CALL: Final = b"c"
RESULT: Final = b"r"
ERROR: Final = b"e"
UNFIT: Final = b"u"
"""The function has answered, and its answer cannot cross."""

_PR_SET_PDEATHSIG = 1
_LENGTH = 8


def main(descriptor: int, parent: int) -> None:
    """Serve calls until the other end of the socket is closed.

    Args:
        descriptor: of the socket.
        parent: its process id.
    """
    _end_with(parent)
    for group_signal in (signal.SIGINT, signal.SIGTERM):
        # A handler, not SIG_IGN: programs the function starts must not inherit deafness.
        signal.signal(group_signal, _leave_it_to_the_parent)
    with socket.socket(fileno=descriptor) as connection:
        connection.set_inheritable(False)
        while (message := receive(connection)) is not None:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # then `receive` says so, too
                send(connection, answer(message))


def _leave_it_to_the_parent(number: int, frame: FrameType | None) -> None:
    """Nothing to do."""


def _end_with(parent: int) -> None:
    """Let the kernel end this process when its parent ends; a busy one would not notice by itself."""
    with contextlib.suppress(
        AttributeError, OSError
    ):  # elsewhere than on Linux an idle one notices, that is all
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before that
        os._exit(1)


_found: dict[str, Callable[..., Any]] = {}


def answer(message: bytes) -> bytes:
    """Import the function, or call it, and encode what came of it."""
    try:
        call = from_wire(message[1:])
        function = _function(call["function"])
        if message[:1] == IMPORT:
            return RESULT + to_wire(None)
        result = function(*call["arguments"], **call["configuration"])
    except (Exception, SystemExit) as error:  # noqa: BLE001 - user code; it crosses back as the row's failure
        return ERROR + to_wire(error_as_data(error))
    try:
        return RESULT + to_wire(result)
    except Exception as error:  # noqa: BLE001 - of a user's value: its path and what to use instead
        return UNFIT + to_wire(str(error))


def _function(location: str) -> Callable[..., Any]:
    function = _found.get(location)
    if function is None:
        module, _, qualname = location.partition(":")
        target: Any = importlib.import_module(module)
        for part in qualname.split("."):
            target = getattr(target, part)
        function = _found[location] = target
    return function


# --- messages -------------------------------------------------------------------------------------------


def send(connection: socket.socket, message: bytes) -> None:
    """One message: its length, then itself."""
    connection.sendall(len(message).to_bytes(_LENGTH, "big") + message)


def receive(connection: socket.socket) -> bytes | None:
    """One message; None when the other side has gone."""
    head = _exactly(connection, _LENGTH)
    return None if head is None else _exactly(connection, int.from_bytes(head, "big"))


def _exactly(connection: socket.socket, size: int) -> bytes | None:
    data = bytearray(size)
    view = memoryview(data)
    got = 0
    while got < size:
        try:
            count = connection.recv_into(view[got:])
        except ConnectionResetError:
            return None
        if count == 0:
            return None
        got += count
    view.release()
    return bytes(data)
