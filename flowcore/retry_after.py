"""How long a server asks to be left alone, as its headers say.

Owns: reading `retry-after` and `retry-after-ms`.
Does not own: waiting (the runtime), the limits a provider of models tells (flowcore.llm.statuses).

Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

_SECONDS: Final = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})?")


def retry_after_s(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds the server asks to wait; None when it does not say, or not in a way that can be read.

    Args:
        headers: names in lower case. `retry-after-ms` (milliseconds, as some servers give) wins over
            `retry-after`, a number of seconds or a date (RFC 9110, section 10.2.3).
        now: what a date is counted from; a date in the past is 0.
    """
    milliseconds = headers.get("retry-after-ms", "").strip()
    if _SECONDS.fullmatch(milliseconds):
        return float(milliseconds) / 1_000
    said = headers.get("retry-after", "").strip()
    if _SECONDS.fullmatch(said):
        return float(said)
    try:
        date = parsedate_to_datetime(said)
    except (ValueError, TypeError, IndexError):
        return None
    date = date if date.tzinfo is not None else date.replace(tzinfo=UTC)
    return max(0.0, (date - now).total_seconds())
