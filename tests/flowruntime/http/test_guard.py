"""The guard: which hosts and addresses outbound HTTP may reach. Nothing here touches a network."""

from ipaddress import IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowcore.errors import ConfigError, HttpRefusedError
from flowruntime.http.guard import Guard, HttpSettings

STRICT = Guard(HttpSettings())
INSIDE = Guard(HttpSettings(allow_private=True))


def check(guard: Guard, address: str, host: str = "a.example") -> None:
    guard.check_addresses(host, [ip_address(address)])


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.9.9.9", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.1.1", "100.64.0.1",
        "0.0.0.0",  # noqa: S104 - nothing is bound
        "224.0.0.1",
        "240.0.0.1", "255.255.255.255", "198.18.0.1", "::1", "::", "fe80::1", "fc00::1", "ff02::1",
        "::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:7f00:1::", "::7f00:1", "169.254.169.254", "fd00:ec2::254",
    ],
)  # fmt: skip
def test_addresses_that_are_not_public_are_refused(address: str) -> None:
    with pytest.raises(HttpRefusedError, match="Nothing was sent"):
        check(STRICT, address)


@pytest.mark.parametrize(
    "address", ["93.184.216.34", "1.1.1.1", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"]
)
def test_public_addresses_pass(address: str) -> None:
    check(STRICT, address)


def test_a_name_with_one_private_address_is_refused_whole() -> None:
    """Else a second answer of a rebinding name server would be connected to."""
    with pytest.raises(HttpRefusedError, match=r"10\.0\.0\.1"):
        STRICT.check_addresses("a.example", [ip_address("1.1.1.1"), ip_address("10.0.0.1")])


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "fe80::1", "::1", "100.64.0.1"])
def test_the_operator_may_allow_private_addresses(address: str) -> None:
    check(INSIDE, address)


@pytest.mark.parametrize(
    "address", ["169.254.169.254", "fd00:ec2::254", "::ffff:169.254.169.254", "100.100.100.200", "224.0.0.1"]
)
def test_metadata_services_stay_closed_when_private_addresses_are_allowed(address: str) -> None:
    with pytest.raises(HttpRefusedError):
        check(INSIDE, address)


def test_a_named_host_may_be_anywhere_and_others_may_not() -> None:
    guard = Guard(HttpSettings(allowed_hosts=("Intranet.example.", "10.1.0.0/16")))
    check(guard, "192.168.0.1", host="intranet.EXAMPLE")
    check(guard, "10.1.2.3")
    for address in ("10.2.0.1", "192.168.0.1"):
        with pytest.raises(HttpRefusedError):
            check(guard, address)


@pytest.mark.parametrize(
    ("scheme", "host"),
    [
        ("file", "a.example"), ("ftp", "a.example"), ("", "a.example"), ("http", ""), ("http", "127.0.0.1"),
        ("https", "::1"), ("http", "a b"), ("http", "a.example\\@127.0.0.1"), ("http", "a%00.example"),
    ],
)  # fmt: skip
def test_schemes_and_hosts_are_checked_before_anything_is_resolved(scheme: str, host: str) -> None:
    with pytest.raises(HttpRefusedError):
        STRICT.check_url(scheme, host)


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_is_judged_alike_in_all_its_disguises(address: object) -> None:
    number = int(ip_address(str(address)))
    disguises = [IPv6Address(0xFFFF << 32 | number), IPv6Address((0x64FF9B << 96) | number)]
    refused = [_refuses(str(form)) for form in (address, *disguises)]
    assert len(set(refused)) == 1


def _refuses(address: str) -> bool:
    try:
        check(STRICT, address)
    except HttpRefusedError:
        return True
    return False


@pytest.mark.parametrize(
    "settings", [{"allowed_hosts": ("10.1.0.0/99",)}, {"max_connections": 0}, {"max_redirects": -1}]
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        HttpSettings(**settings)  # pyright: ignore[reportArgumentType] - wrong on purpose
