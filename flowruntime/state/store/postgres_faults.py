"""Which failure of a PostgreSQL server and the way to it is which of ours.

Owns: the translation, by SQLSTATE.
Does not own: what was being done (the caller says it).

Always holds: the message holds nothing of the url but what is shown; it says whether anything was stored.
"""

from __future__ import annotations

from typing import Final

from flowcore.store_errors import (
    StoreAccessError,
    StoreDamagedError,
    StoreError,
    StoreFailedError,
    StoreFullError,
    StoreInputError,
    StoreTimeoutError,
    StoreUnavailableError,
    StoreUrlError,
)

_TRY_AGAIN: Final = "try again when it is back"
_LOST: Final = (StoreUnavailableError, "the server cannot be reached, or went away", _TRY_AGAIN)
_BUSY: Final = (StoreTimeoutError, "it did not answer in time", "try again, or see what keeps it busy")
_FAILED: Final = (StoreFailedError, "the server refused", "see the server's log")
_ACCESS: Final = (
    StoreAccessError,
    "the server does not allow it",
    "check user, password and rights (CREATE on the schema, once; then reading and writing its tables)",
)
_READ_ONLY: Final = (StoreAccessError, "the server is read-only", "name the primary server")
_MISSING: Final = (StoreDamagedError, "tables of the store are gone or changed", "restore them from a copy")

_BY_STATE: Final[dict[str, tuple[type[StoreError], str, str]]] = {
    "57014": _BUSY,  # query_canceled: by statement_timeout
    "55P03": _BUSY,  # lock_not_available
    "53100": (StoreFullError, "the server's disk is full", "free space there, then try again"),
    "53200": (StoreFullError, "the server has no memory left", "free memory there, then try again"),
    "25006": _READ_ONLY,
    "42501": _ACCESS,
    "3D000": (StoreAccessError, "there is no such database", "create it, or name another one"),
    "42P01": _MISSING,
    "42703": _MISSING,
    "XX001": (StoreDamagedError, "the server's data is damaged", "restore it from a copy"),
    "XX002": (StoreDamagedError, "the server's data is damaged", "reindex it, or restore it from a copy"),
}
_BY_CLASS: Final[dict[str, tuple[type[StoreError], str, str]]] = {
    "08": _LOST,
    "28": _ACCESS,
    "40": (StoreUnavailableError, "another transaction was in the way", "try again"),
    "53": (StoreUnavailableError, "the server has too much to do", "try again, or allow it more connections"),
    "57": _LOST,  # shut down, or starting
}


def translated(fault: Exception, url: str, doing: str, *, outcome: str) -> StoreError | None:
    """The error of ours, None for what does not come from the server or the way to it.

    Args:
        fault: as the driver raised it.
        url: as it is shown.
        doing: what was asked of the store.
        outcome: what is known when the answer got lost; where the server itself refused, nothing was done.
    """
    found = _kind_of(fault)
    if found is None:
        return None
    kind, what, remedy = found
    if kind is StoreUrlError:
        return StoreUrlError(f"store {url}: {doing}: {what}; nothing was changed; {remedy}", url=url)
    if _refused(fault):
        outcome = "nothing"
    changed = (
        "nothing was changed"
        if outcome == "nothing"
        else "whether it was done is unknown: read before you write again"
    )
    reason = str(fault).strip() or type(fault).__name__
    return kind(f"store {url}: {doing}: {what} ({reason}); {changed}; {remedy}", url=url, outcome=outcome)


def is_lost(fault: BaseException) -> bool:
    """Whether the connection is what failed."""
    found = _kind_of(fault)
    return found is not None and found[0] is StoreUnavailableError and not _refused(fault)


def _refused(fault: BaseException) -> bool:
    """Whether the server answered, and so has undone what it began."""
    state = _state(fault)
    return state is not None and (state[:2] not in {"08", "57"} or state == "57014")


def _kind_of(fault: BaseException) -> tuple[type[StoreError], str, str] | None:
    state = _state(fault)
    if state is not None:
        return _BY_STATE.get(state) or _BY_CLASS.get(state[:2], _FAILED)
    if _is_named(fault, "ClientConfigurationError"):
        return StoreUrlError, "the driver does not understand the url", "check its options"
    if isinstance(fault, TimeoutError):
        return _BUSY
    if _is_named(fault, "DataError"):
        return StoreInputError, "it does not take such a value", "see what was given"
    if (
        isinstance(fault, OSError)
        or _is_named(fault, "InterfaceError")
        or _is_named(fault, "InternalClientError")
    ):
        return _LOST
    return None


def _state(fault: BaseException) -> str | None:
    """SQLSTATE, of what the server said."""
    state = getattr(fault, "sqlstate", None)
    return state if isinstance(state, str) and len(state) == 5 else None  # noqa: PLR2004 - every SQLSTATE has 5


def _is_named(fault: BaseException, name: str) -> bool:
    """Whether it is that class of the driver, which need not be installed to ask."""
    return any(
        kind.__name__ == name and kind.__module__.startswith("asyncpg") for kind in type(fault).__mro__
    )
