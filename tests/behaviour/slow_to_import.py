"""A module that takes a while to import in a worker process, as those with large libraries do."""

from __future__ import annotations

import sys
import time

from flowcore import node

if "pytest" not in sys.modules:  # a worker process
    time.sleep(1.0)


@node("slow.double", offload="process", concurrency=1)
def double(value: int) -> int:
    """Twice the value."""
    return 2 * value
