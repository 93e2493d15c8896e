"""The guard of outbound HTTP: which addresses may be connected to.

Owns: `HttpSettings`, what the operator allows, and the rule for a host and the addresses it resolves to.
Does not own: resolving, connecting, redirects (client) or what is sent.

No I/O. Always holds: a host passes only when every one of its addresses may be reached; an IPv4 address
hidden in an IPv6 one is judged as both; metadata services of clouds must be named, always.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final, TypeAlias

import msgspec

from flowcore.errors import ConfigError, HttpRefusedError

Address: TypeAlias = IPv4Address | IPv6Address

_METADATA: Final = frozenset(
    ip_address(address)
    for address in (
        "169.254.169.254", "169.254.170.2", "169.254.170.23", "100.100.100.200",
        "fd00:ec2::254", "fd20:ce::254",
    )
)  # fmt: skip
_HOST: Final = re.compile(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+")
_NAT64: Final = IPv6Network("64:ff9b::/96")
_PORTS: Final = {"http": 80, "https": 443}
_LAST_PORT: Final = 65_535
_REMEMBERED: Final = 1_024


class HttpSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the operator allows of outbound HTTP; workflow files cannot change it."""

    allow_private: bool = False
    """Private, loopback and link-local addresses may be reached too; never those of metadata services."""
    allowed_hosts: tuple[str, ...] = ()
    """Names or networks (`intranet.example`, `10.1.0.0/16`) that may be reached, whatever their addresses;
    with a port (`127.0.0.1:11434`, `[::1]:8000`) on that port only."""
    max_connections: int = 1_000
    max_redirects: int = 10

    def __post_init__(self) -> None:
        for host in self.allowed_hosts:
            if "/" in host:
                try:
                    ip_network(host)
                except ValueError as fault:
                    raise ConfigError(
                        f"allowed_hosts: {host!r} is no network: {fault}; write it like 10.1.0.0/16",
                        value=host,
                    ) from fault
            else:
                _split(host)
        if self.max_connections < 1 or self.max_redirects < 0:
            raise ConfigError(
                f"max_connections={self.max_connections} must be at least 1 and "
                f"max_redirects={self.max_redirects} at least 0"
            )


class Guard:
    """Decides about hosts and addresses; raises what is not allowed."""

    def __init__(self, settings: HttpSettings) -> None:
        self._allow_private: Final = settings.allow_private
        named = [_split(host) for host in settings.allowed_hosts if "/" not in host]
        self._names: Final = frozenset(host for host, port in named if port is None)
        self._places: Final = frozenset(place for place in named if place[1] is not None)
        self._networks: Final = tuple(ip_network(host) for host in settings.allowed_hosts if "/" in host)
        self._passed: Final[set[tuple[str, str, int | None]]] = set()
        """Of what can be told before resolving, which depends on nothing else."""

    def check_url(self, scheme: str, host: str, port: int | None = None) -> None:
        """Refuse what can be told before resolving.

        Raises:
            HttpRefusedError: another scheme than http and https, no host or port, an address not
                allowed.
        """
        place = (scheme, host, port)
        if place in self._passed:
            return
        if scheme not in _PORTS:
            raise _refused(host, f"the scheme {scheme!r} is not http or https")
        if not host:
            raise _refused(host, "the URL names no host")
        if _HOST.fullmatch(host) is None:
            raise _refused(host, f"the host {host!r} is neither a name nor an address")
        if port is not None and not 0 < port <= _LAST_PORT:
            raise _refused(host, f"the port {port} is not from 1 to {_LAST_PORT}")
        literal = _as_address(host)
        if literal is not None:
            self.check_addresses(host, [literal], _PORTS[scheme] if port is None else port)
        if len(self._passed) < _REMEMBERED:
            self._passed.add(place)

    def check_addresses(self, host: str, addresses: Sequence[Address], port: int | None = None) -> None:
        """Refuse a host when one of its addresses may not be reached: a name with both kinds is an attack.

        Args:
            host: as the URL has it.
            addresses: what it resolves to.
            port: that will be connected to; None: not known, so that no permission for one port counts.

        Raises:
            HttpRefusedError: names the address and why.
        """
        if _name(host) in self._names or (_name(host), port) in self._places:
            return
        for address in addresses:
            reason = self._fault(address)
            if reason is not None:
                where = "" if str(address) == host else f" (host {host!r})"
                entry = _entry(host, port)
                raise _refused(
                    host,
                    f"address {address}{where} is {reason}; "
                    f"the operator can allow it by allowed_hosts, as {entry!r}, or by allow_private",
                )

    def _fault(self, address: Address) -> str | None:
        forms = [address, *_hidden(address)]
        if any(form in network for form in forms for network in self._networks):
            return None
        if any(form in _METADATA for form in forms):
            return "a metadata service of a cloud"
        for form in forms:
            if form.is_multicast or form.is_unspecified or _is_reserved(form):
                return "no address of a host"
            if not self._allow_private and not form.is_global and not _is_translated(form):
                return _kind(form)
        return None


def _hidden(address: Address) -> list[Address]:
    """IPv4 addresses an IPv6 address stands for: mapped, 6to4, Teredo, NAT64, IPv4-compatible."""
    if isinstance(address, IPv4Address):
        return []
    found: list[Address | None] = [address.ipv4_mapped, address.sixtofour]
    if address.teredo is not None:
        found.extend(address.teredo)
    if address in _NAT64 or 1 < int(address) < 1 << 32:
        found.append(IPv4Address(int(address) & 0xFFFFFFFF))
    return [form for form in found if form is not None]


def _is_translated(address: Address) -> bool:
    """Judged by the IPv4 address inside; some of these ranges are reserved or not global by themselves."""
    return isinstance(address, IPv6Address) and (address.ipv4_mapped is not None or address in _NAT64)


def _is_reserved(address: Address) -> bool:
    return address.is_reserved and not address.is_loopback and not _is_translated(address)


def _kind(address: Address) -> str:
    if address.is_loopback:
        return "a loopback address"
    if address.is_link_local:
        return "a link-local address"
    return "a private address"


def _as_address(host: str) -> Address | None:
    try:
        return ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return None


def _name(host: str) -> str:
    return host.strip("[]").rstrip(".").lower()


def _split(entry: str) -> tuple[str, int | None]:
    """Host and port of an entry of `allowed_hosts`; an IPv6 address with a port stands in brackets.

    Raises:
        ConfigError: what stands for the port is none.
    """
    host, colon, port = entry.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or entry.endswith("]") or (":" in host and not bracketed):
        return _name(entry), None
    if not (port.isascii() and port.isdecimal() and 0 < int(port[:6]) <= _LAST_PORT and _name(host)):
        raise ConfigError(
            f"allowed_hosts: {entry!r} is no host with a port from 1 to {_LAST_PORT}; write it like "
            "127.0.0.1:11434, or leave the port out",
            value=entry,
        )
    return _name(host), int(port)


def _entry(host: str, port: int | None) -> str:
    """What would allow just this."""
    name = _name(host)
    if port is None:
        return name
    return f"[{name}]:{port}" if ":" in name else f"{name}:{port}"


def _refused(host: str, reason: str) -> HttpRefusedError:
    return HttpRefusedError(f"outbound HTTP refused: {reason}. Nothing was sent", host=host, reason=reason)
