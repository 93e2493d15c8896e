"""Asking components whether they can work: all at once, each with its own time, each by itself.

Owns: `ask_all`, and what an exception, a wrong answer and no answer count as.
Does not own: whom to ask (subjects), what the process says of itself (process).

Always holds: one check that hangs or raises is its own failed result and delays no other; the whole takes as
long as the slowest check, at most its timeout.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Any, Final

from flowcore.health import CheckResult, Health, HealthReport, worst

Ask = Callable[[], Awaitable[Health]]

DEFAULT_TIMEOUT: Final = timedelta(seconds=5)

_left_behind: set[asyncio.Task[Health]] = set()
"""Checks that swallow cancellation; kept until they end, because a loop holds tasks weakly."""


async def ask_all(
    checks: Mapping[str, Ask],
    *,
    timeout: timedelta,
    clock: Callable[[], float],
    scrub: Callable[[str], str] = lambda text: text,
) -> HealthReport:
    """Ask everyone at once.

    Args:
        checks: by name.
        timeout: for each of them.
        clock: wall clock, Unix seconds.
        scrub: takes secrets out of what they say.
    """
    loop = asyncio.get_running_loop()
    at, started = clock(), loop.time()
    results = await asyncio.gather(*(_ask(name, ask, timeout, scrub) for name, ask in checks.items()))
    return HealthReport(
        state=worst(result.state for result in results),
        checks=tuple(results),
        at=at,
        duration_s=loop.time() - started,
    )


async def _ask(name: str, ask: Ask, timeout: timedelta, scrub: Callable[[str], str]) -> CheckResult:
    loop = asyncio.get_running_loop()
    started = loop.time()
    task = loop.create_task(_answer(ask), name=f"flow health {name}")
    try:
        done, _ = await asyncio.wait({task}, timeout=timeout.total_seconds())
    except asyncio.CancelledError:
        _give_up(task)
        raise
    took_s = loop.time() - started
    if not done:
        _give_up(task)
        detail = f"no answer within {timeout.total_seconds():g} s"
        return CheckResult(name=name, state="failing", detail=detail, latency_s=took_s)
    health = _outcome(task)
    latency_s = took_s if health.latency_s is None else health.latency_s
    return CheckResult(name=name, state=health.state, detail=scrub(health.detail), latency_s=latency_s)


async def _answer(ask: Ask) -> Health:
    return await ask()


def _outcome(task: asyncio.Task[Health]) -> Health:
    if task.cancelled():
        return Health("failing", "the check was cancelled from inside")
    error = task.exception()
    if error is not None:
        return Health("failing", f"{type(error).__name__}: {error}")
    answer: Any = task.result()
    if isinstance(answer, Health):
        return answer
    return Health("failing", f"the check answered {answer!r}; it must return a Health")


def _give_up(task: asyncio.Task[Health]) -> None:
    task.cancel()
    _left_behind.add(task)
    task.add_done_callback(_ended)


def _ended(task: asyncio.Task[Health]) -> None:
    _left_behind.discard(task)
    if not task.cancelled():
        task.exception()  # seen: its check was given up
