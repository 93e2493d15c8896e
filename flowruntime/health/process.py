"""What this process says of itself: whether its event loop turns, and how much memory is left.

Owns: the two checks and their thresholds. Does not own: reading the machine (flowruntime.system).
"""

from __future__ import annotations

import asyncio
from typing import Final

from flowcore.health import Health
from flowruntime.system import Memory, memory

SLOW_LOOP_S: Final = 0.1
STUCK_LOOP_S: Final = 1.0
LITTLE_MEMORY: Final = 0.10
"""Share of what this process may use that is left: below it, degraded."""
NO_MEMORY: Final = 0.03

_MIB: Final = 1 << 20


async def loop_turns() -> Health:
    """How long a callback waits for its turn."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    turned: asyncio.Future[None] = loop.create_future()
    loop.call_soon(turned.set_result, None)
    await turned
    return judge_loop(loop.time() - started)


def judge_loop(waited_s: float) -> Health:
    """The state of a loop whose callbacks wait that long."""
    state = "failing" if waited_s >= STUCK_LOOP_S else "degraded" if waited_s >= SLOW_LOOP_S else "ok"
    detail = "" if state == "ok" else f"callbacks wait {waited_s:.2f} s; offload what blocks the event loop"
    return Health(state, detail, waited_s)


async def memory_left() -> Health:
    """How much this process may still use."""
    return judge_memory(memory())


def judge_memory(found: Memory) -> Health:
    """The state of a process with so much memory left."""
    if not found.limit_bytes or found.available_bytes is None:
        return Health("ok", "how much memory there is cannot be told on this system")
    share = found.available_bytes / found.limit_bytes
    state = "failing" if share < NO_MEMORY else "degraded" if share < LITTLE_MEMORY else "ok"
    remedy = "" if state == "ok" else "; lower max_bytes and max_in_flight, or try profile memory_optimized"
    left, limit = found.available_bytes // _MIB, found.limit_bytes // _MIB
    return Health(state, f"{left:,} MiB of {limit:,} MiB left{remedy}")
