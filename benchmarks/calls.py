"""What contenders that call models have in common: taking turns at a limit, figures of a run, its honesty.

Owns: `pool`, `measured`, `peak_rss_mib`.
Does not own: the calls themselves (benchmarks.peers, benchmarks.ours), what they must give
(benchmarks.prompts).

Always holds: standard library only, because peers' processes import it in an environment without ours. A run
whose server saw another number of calls than were to be made, or more of them at once, raises: a retry, a
cache or a limit that does not hold would make its time that of other work.
"""

from __future__ import annotations

import asyncio
import resource
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from benchmarks.loopback import peak
from benchmarks.work import Measured

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Sequence

    from benchmarks.loopback import Loopback

T = TypeVar("T")

KEY = "k" * 48
"""Not a secret: GraphBit refuses short keys, the server ignores it."""
MODEL = "loopback"
TIMEOUT_S = 60.0
"""Of one call, where a contender takes one."""

_STATUS = Path("/proc/self/status")


async def pool(prompts: Sequence[str], limit: int, ask: Callable[[str], Awaitable[T]]) -> list[T]:
    """The answers in order; `limit` tasks take the next prompt when they are done with one."""
    found: dict[int, T] = {}
    waiting = iter(enumerate(prompts))

    async def work() -> None:
        for index, prompt in waiting:
            found[index] = await ask(prompt)

    await asyncio.gather(*(work() for _ in range(limit)))
    return [found[index] for index in range(len(prompts))]


class Watch:
    """Times of the block of `watched`, once it has ended."""

    seconds = 0.0
    cpu_s = 0.0


@contextmanager
def watched() -> Generator[Watch]:
    """Wall and CPU time of the block."""
    watch = Watch()
    cpu, start = time.process_time(), time.perf_counter()
    yield watch
    watch.seconds, watch.cpu_s = time.perf_counter() - start, time.process_time() - cpu


async def measured(
    server: Loopback,
    work: Callable[[], Awaitable[object]],
    *,
    calls: int | None = None,
    limit: int | None = None,
) -> Measured:
    """A run of `work` that makes exactly `calls` calls, at most `limit` at once; None: as many as it likes.

    Facts: `calls`, `peak` (calls open at once, as the server saw them), `rss_mib`.

    Raises:
        RuntimeError: the server saw something else.
    """
    server.reset()
    with watched() as watch:
        result = await work()
    return _judged(server, result, watch, calls, limit)


def _judged(server: Loopback, result: object, watch: Watch, calls: int | None, limit: int | None) -> Measured:
    seen = server.calls()
    most = peak(seen)
    if calls is not None and len(seen) != calls:
        raise RuntimeError(f"the server saw {len(seen)} calls, not {calls}")
    if limit is not None and most > limit:
        raise RuntimeError(f"{most} calls were in flight at once, more than the limit of {limit}")
    facts = {"calls": len(seen), "peak": most, "rss_mib": peak_rss_mib()}
    return Measured(result, seconds=watch.seconds, cpu_s=watch.cpu_s, facts=facts)


def peak_rss_mib() -> float:
    """Most memory this process has had in RAM since its program started.

    Where there is no /proc: since its parent forked, which may be more.
    """
    if _STATUS.exists():
        lines = _STATUS.read_text(encoding="utf-8").splitlines()
        (peak_line,) = [line for line in lines if line.startswith("VmHWM:")]
        return int(peak_line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
