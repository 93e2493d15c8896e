"""The positions file under cancellation: a thread that still works on it is never met by another one."""

from __future__ import annotations

import asyncio
from pathlib import Path

from flowruntime.state.positions import PositionStore


async def test_cancelled_saves_leave_the_file_whole_and_closable(tmp_path: Path) -> None:
    for _ in range(20):
        store = PositionStore(str(tmp_path))
        saves = [asyncio.create_task(store.save("wf", "s", "0", number)) for number in range(3)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        for save in saves:
            save.cancel()
        closing = asyncio.create_task(store.aclose())
        await asyncio.gather(*saves, return_exceptions=True)
        await closing
    store = PositionStore(str(tmp_path))
    await store.save("wf", "s", "0", 7)
    assert await store.load("wf", "s", "0") == 7
    await store.aclose()
