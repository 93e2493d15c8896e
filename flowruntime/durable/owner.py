"""Who is at work on an execution, and whether that process is still there.

Owns: `Owner`: the name of an attempt, and the rule by which another one may take the execution over.
Does not own: taking it over, which is compare-and-set by revision (resuming).

The rule: an owner is gone when its machine was started anew since, when its process has ended (told by its
number and when it began, so that a number given out again is no mistake), or, within this process, when that
attempt has ended. Of a process on another machine, or in another container, nobody knows: it counts as being
at work until someone says otherwise (`take_over`).
"""

from __future__ import annotations

import os
import socket
import uuid
from functools import lru_cache
from pathlib import Path
from typing import Final

_LIVE: Final[set[str]] = set()
"""Attempts of this process."""
_PARTS: Final = 5


@lru_cache(maxsize=1)
def _machine(process: int) -> tuple[str, str, str]:
    """Name, boot and process namespace; empty where the system does not tell."""
    del process  # a fork is asked anew
    return socket.gethostname(), _read("/proc/sys/kernel/random/boot_id"), _namespace()


def begin_attempt() -> str:
    """The name of a new attempt of this process; `end_attempt` says that it is over."""
    host, boot, namespace = _machine(os.getpid())
    process = f"{os.getpid()}@{_started(os.getpid())}"
    name = " ".join((host, boot or "-", namespace or "-", process, uuid.uuid4().hex))
    _LIVE.add(name)
    return name


def end_attempt(name: str) -> None:
    """The attempt is over."""
    _LIVE.discard(name)


def is_gone(owner: str) -> bool:
    """Whether the attempt is known to be over; False where nobody can know."""
    parts = owner.split(" ")
    if len(parts) != _PARTS:
        return not owner
    host, boot, namespace = (part if part != "-" else "" for part in parts[:3])
    mine = _machine(os.getpid())
    if host != mine[0]:
        return False
    if boot != mine[1]:
        return True  # this machine was started anew
    if namespace != mine[2]:
        return False
    number, _, started = parts[3].partition("@")
    if int(number) == os.getpid() and started == _started(os.getpid()):
        return owner not in _LIVE
    return not _is_running(int(number)) or (bool(started) and _started(int(number)) != started)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return _state(process) != "Z"


def _stat(process: int) -> list[str]:
    """What Linux tells of a process behind its name: state, parents, ..., when it began."""
    return _read(f"/proc/{process}/stat").rpartition(")")[2].split()


def _state(process: int) -> str:
    return (_stat(process) or [""])[0]


def _started(process: int) -> str:
    """When a process began, in ticks since the start of the machine; empty where nobody tells."""
    facts = _stat(process)
    return facts[19] if len(facts) > 19 else ""  # noqa: PLR2004 - the 22nd field of proc(5), two before it cut


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _namespace() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""
