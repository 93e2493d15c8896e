"""Urls of stores: `memory:`, `sqlite:PATH`, `postgresql://...`.

Owns: reading one, and how it is shown.
Does not own: the stores.

Always holds: what is shown of a url has no user, no password and no options; a url that is not understood is
not shown at all behind its scheme, and what a library says of it is not passed on.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit, urlunsplit

from flowcore.findings import shown
from flowcore.store_errors import StoreUrlError

KNOWN: Final = "memory:, sqlite:PATH, postgresql://USER@HOST/DATABASE"
DEFAULT_POOL: Final = 10
"""Connections to a server."""
MOST_POOL: Final = 1_000

_HOSTS: Final = re.compile(r"(?:(?:[A-Za-z0-9._%-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?(?:,|\Z))*")
_DATABASE: Final = re.compile(r"(?:/[^/@:?#]*)?")


@dataclass(frozen=True)
class StoreUrl:
    """A url that was understood."""

    kind: Literal["memory", "sqlite", "postgres"]
    shown: str
    """Without user, password and options."""
    path: Path = Path()
    """Of the file, absolute; `sqlite` only."""
    dsn: str = ""
    """What the driver is given; `postgres` only. Never shown."""
    pool: int = DEFAULT_POOL
    options: frozenset[str] = frozenset()
    """Names of the options the url gives the server."""

    def __repr__(self) -> str:
        return f"StoreUrl({self.shown!r})"


def read_store_url(url: str, *, base: Path | None = None) -> StoreUrl:
    """Understand a url.

    Args:
        url: of a store.
        base: folder that relative paths begin at; None: the current one.

    Raises:
        StoreUrlError: it names no store.
    """
    if not isinstance(url, str):  # pyright: ignore[reportUnnecessaryIsInstance] - a user's call
        raise StoreUrlError(f"a store is named by a url, got {shown(url)}; known are {KNOWN}")
    scheme, colon, rest = url.partition(":")
    if scheme == "memory" and colon and not rest:
        return StoreUrl("memory", "memory:")
    if scheme == "sqlite" and colon:
        return _sqlite(rest, base or Path.cwd())
    if scheme in {"postgresql", "postgres"} and rest.startswith("//"):
        return _postgres(url, scheme)
    hidden = f"{scheme[:20]}:***" if colon else "***"
    raise StoreUrlError(f"{hidden!r} is no url of a store; known are {KNOWN}", url=hidden)


def _sqlite(path: str, base: Path) -> StoreUrl:
    if not path or path.startswith("//") or "\0" in path:
        raise StoreUrlError(
            f"'sqlite:{path[:200]}' names no file: write sqlite:PATH, such as sqlite:.flow/store.sqlite or "
            "sqlite:/var/lib/flow/store.sqlite",
            url="sqlite:",
        )
    absolute = (base / path).absolute()
    return StoreUrl("sqlite", f"sqlite:{absolute}", path=absolute)


def _postgres(url: str, scheme: str) -> StoreUrl:
    read = _split(url)
    if read is None:
        raise _not_understood(scheme)
    parts, options = read
    hosts = parts.netloc.rpartition("@")[2]
    if (
        parts.netloc.count("@") > 1
        or parts.fragment
        or url.endswith("#")
        or "@" in parts.query
        or not _HOSTS.fullmatch(hosts)
        or not _DATABASE.fullmatch(parts.path)
    ):
        raise _not_understood(scheme)
    visible = f"{scheme}://{hosts}{parts.path}"
    pool = _pool(options.pop("pool", str(DEFAULT_POOL)), visible)
    rest = SplitResult(scheme, parts.netloc, parts.path, urlencode(options), "")
    # urlunsplit leaves `//` out where no host is named, and asyncpg wants it.
    dsn = urlunsplit(rest) if parts.netloc else f"{scheme}://{parts.path}?{rest.query}"
    return StoreUrl("postgres", visible, dsn=dsn, pool=pool, options=frozenset(options))


def _split(url: str) -> tuple[SplitResult, dict[str, str]] | None:
    """None, and no exception that quotes the url, when it cannot be."""
    try:
        url.encode()  # a lone surrogate of the environment: no server can be told of it
        parts = urlsplit(url)
        return parts, dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
    except ValueError:
        return None


def _pool(text: str, visible: str) -> int:
    if not text.isdecimal() or len(text) > len(str(MOST_POOL)) or not 1 <= int(text) <= MOST_POOL:
        raise StoreUrlError(
            f"{visible!r}: the option pool is a number of connections from 1 to {MOST_POOL}", url=visible
        )
    return int(text)


def _not_understood(scheme: str) -> StoreUrlError:
    """Says nothing of what is in the url: in a broken one, parts of the password may be anywhere."""
    hidden = f"{scheme}://***"
    return StoreUrlError(
        f"the url {hidden} is not understood: write {scheme}://USER:PASSWORD@HOST:PORT/DATABASE?OPTION=VALUE "
        "(in user and password write : / ? # [ ] @ % as %3A %2F %3F %23 %5B %5D %40 %25)",
        url=hidden,
    )
