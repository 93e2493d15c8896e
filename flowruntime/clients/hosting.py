"""Where a client's calls are made: in the runtime it was given, or in the one of this process.

Owns: `Hosting`. Does not own: runtimes (flowruntime.runtime, flowruntime.lifecycle), calls of models.

Always holds: a call is made on its runtime's loop, whatever thread or loop asks for it; who is cancelled
cancels the call.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final, TypeVar

from flowcore.errors import LifecycleError
from flowruntime import lifecycle

if TYPE_CHECKING:
    from flowruntime.runtime import FlowRuntime

T = TypeVar("T")

_AHEAD: Final = 64
_END: Final = object()


class Hosting:
    """Calls work of a runtime.

    Args:
        runtime: None: the one of this process, started when it is first needed.
    """

    def __init__(self, runtime: FlowRuntime | None) -> None:
        self._runtime: Final = runtime

    def wait(self, work: Callable[[FlowRuntime], Coroutine[Any, Any, T]]) -> T:
        """Blocks until it is done.

        Raises:
            LifecycleError: the client has a runtime of its own, whose loop cannot be waited for here.
        """
        if self._runtime is not None:
            raise LifecycleError(
                "this client was given a runtime, which works on the loop it was opened on; await the "
                "asynchronous method there, or make the client without a runtime"
            )
        return lifecycle.call(work)

    async def do(self, work: Callable[[FlowRuntime], Coroutine[Any, Any, T]]) -> T:
        """Waits until it is done."""
        if self._runtime is not None:
            return await work(self._runtime)
        return await lifecycle.call_async(work)

    async def each(self, work: Callable[[FlowRuntime], AsyncGenerator[T, None]]) -> AsyncGenerator[T, None]:
        """The items of a generator that runs on the runtime's loop; some 64 of them ahead at most."""
        if self._runtime is not None:
            async with aclosing(work(self._runtime)) as items:
                async for item in items:
                    yield item
            return
        here = asyncio.get_running_loop()
        ready: asyncio.Queue[Any] = asyncio.Queue(_AHEAD)

        def put(item: object) -> asyncio.Future[None]:
            return asyncio.wrap_future(asyncio.run_coroutine_threadsafe(ready.put(item), here))

        async def there(runtime: FlowRuntime) -> None:
            async with aclosing(work(runtime)) as items:
                async for item in items:
                    await put(item)

        async def run() -> None:
            try:
                await lifecycle.call_async(there)
            except asyncio.CancelledError:
                raise  # nobody reads any more, and `ready` may be full
            except BaseException:
                await ready.put(_END)
                raise
            await ready.put(_END)

        task = asyncio.create_task(run())
        try:
            while (item := await ready.get()) is not _END:
                yield item
            await task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
