"""pytest on virtual time: `async def test_x(virtual)` runs on a `VirtualLoop`, with any asyncio plugin.

Owns: the fixture `virtual` and the marker `virtual(seed=..., limit=...)`.
Does not own: the loop (flowruntime.testing.virtual).

Activate it in the top conftest.py: `pytest_plugins = ["flowruntime.testing.pytest_plugin"]`. A test is run
on virtual time when it takes the fixture or bears the marker. Asynchronous fixtures belong to other plugins'
loops: a virtual test makes what it needs itself.

Always holds: tests that ask for nothing are not touched; a virtual test that leaves a task behind fails.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine, Generator, Iterable
from typing import Any

import pytest

from flowruntime.testing.virtual import LIMIT, VirtualClock, VirtualLoop

_FIXTURE = "virtual"


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker."""
    config.addinivalue_line(
        "markers",
        "virtual(seed=None, limit=timedelta): run this coroutine test on virtual time (flowruntime.testing)",
    )


@pytest.fixture
def virtual(request: pytest.FixtureRequest) -> Generator[VirtualClock]:
    """Virtual time: `virtual.wall` is a clock, `virtual.elapsed_s` what has passed."""
    with asyncio.Runner(loop_factory=lambda: _loop(request.node)) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, VirtualLoop)
        yield VirtualClock(loop)


def _loop(item: Any) -> VirtualLoop:
    marker = item.get_closest_marker(_FIXTURE)
    options: dict[str, Any] = {} if marker is None else dict(marker.kwargs)
    return VirtualLoop(seed=options.get("seed"), limit=options.get("limit", LIMIT))


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_pycollect_makeitem(
    collector: pytest.Module | pytest.Class, name: str, obj: object
) -> Generator[None, Any, Any]:
    """Turn coroutine tests that ask for virtual time into plain ones, before another plugin takes them."""
    del collector, name, obj
    made: Any = yield
    for item in _items(made):
        if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj) and _wanted(item):
            item.obj = _on_virtual_time(item, item.obj)
    return made


def _items(made: Any) -> Iterable[Any]:
    """Pytest gives one item, a list of them, or None."""
    return made if isinstance(made, list) else (made,)  # pyright: ignore[reportUnknownVariableType] - a list of anything


def _wanted(item: pytest.Function) -> bool:
    return _FIXTURE in item.fixturenames or item.get_closest_marker(_FIXTURE) is not None


def _on_virtual_time(
    item: pytest.Function, test: Callable[..., Coroutine[Any, Any, None]]
) -> Callable[..., None]:
    def run(**fixtures: Any) -> None:
        clock = item.funcargs.get(_FIXTURE)
        if isinstance(clock, VirtualClock):
            clock.run(_checked(test(**fixtures)))
            return
        with asyncio.Runner(loop_factory=lambda: _loop(item)) as runner:
            runner.run(_checked(test(**fixtures)))

    run.__name__ = test.__name__
    run.__doc__ = test.__doc__
    return run


async def _checked(test: Coroutine[Any, Any, None]) -> None:
    await test
    for _ in range(3):  # what has just been cancelled ends
        await asyncio.sleep(0)
    left = asyncio.all_tasks() - {asyncio.current_task()}
    if left:
        names = ", ".join(sorted(task.get_name() for task in left))
        raise AssertionError(f"the test left {len(left)} tasks running: {names}")
