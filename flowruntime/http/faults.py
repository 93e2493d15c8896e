"""Errors of ours for the errors of the HTTP driver.

Owns: `translated`, and the form of an address that may be shown.
Does not own: deadlines of ours (deadlines), what the guard or a body raise.

Pure.
"""

from __future__ import annotations

import re
from typing import Final

import aiohttp
from yarl import URL

from flowcore.errors import FlowError, HttpConnectionError
from flowruntime.http.deadlines import Deadlines

_HIDING: Final = re.compile(r"[?#@\\]")
CLIENT_FAULTS: Final = (aiohttp.ClientError, OSError, ValueError)
"""What the driver raises, and what the guard raises through it."""


def translated(fault: BaseException, method: str, url: str, deadlines: Deadlines) -> FlowError | TimeoutError:
    """Ours, when the guard or the body raised it; else a connection error with the innermost reason."""
    cause: BaseException | None = fault
    innermost = fault
    while cause is not None:
        if isinstance(cause, FlowError):
            cause.__dict__.setdefault("method", method)
            cause.__dict__.setdefault("url", url)
            return cause
        if isinstance(cause, aiohttp.ConnectionTimeoutError):
            return deadlines.late("connect")
        innermost = cause
        cause = cause.__cause__ or cause.__context__
    reason = str(innermost) or str(fault) or type(innermost).__name__
    return HttpConnectionError(f"{method} {url}: no answer: {reason}", method=method, url=url, reason=reason)


def public_url(url: str) -> str:
    """The URL without credentials, query and fragment, which may hold secrets."""
    if not _HIDING.search(url):  # as nearly all are: parsing one takes longer than the rest of a small answer
        return url
    try:
        return str(URL(url).with_user(None).with_query(None).with_fragment(None))
    except (ValueError, TypeError):
        return url.partition("?")[0].rpartition("@")[2][:200]
