"""What a workload is, for every contender: a context manager that yields the thing to time.

Owns: `Measured`, the answer of a run that times itself, and the types of a workload.
Does not own: timing (benchmarks.worker), data (benchmarks.data), the engines (benchmarks.ours,
benchmarks.peers).

Always holds: standard library only, because peers' processes import it in an environment without ours.

A workload is a function of keyword parameters that returns a context manager; entering it builds whatever
must be warm (graph, server, runtime) and yields `run`. Each call of `run` does the whole work once and
returns its result, to be compared with what is expected; it may be a coroutine function, the context manager
then an async one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass, field

Run = Callable[[], object]
AsyncRun = Callable[[], Awaitable[object]]
Workload = Callable[..., AbstractContextManager[Run] | AbstractAsyncContextManager[AsyncRun]]


@dataclass(frozen=True)
class Measured:
    """A result with figures the run took itself; what is None the worker measures around the call."""

    result: object
    seconds: float | None = None
    cpu_s: float | None = None
    facts: Mapping[str, float] = field(default_factory=dict[str, float])
    """Further figures of this run by name, such as the peak number of nodes at work."""
