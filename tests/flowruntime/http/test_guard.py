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
    ("entry", "scheme", "host", "port"),
    [
        ("127.0.0.1:11434", "http", "127.0.0.1", 11_434),
        ("[::1]:8000", "http", "::1", 8_000),
        ("127.0.0.1:80", "http", "127.0.0.1", None),
        ("127.0.0.1:443", "https", "127.0.0.1", None),
        ("127.0.0.1", "http", "127.0.0.1", 9),
        ("::1", "http", "::1", 9),
        ("[::1]", "http", "::1", 9),
    ],
)
def test_a_host_with_a_port_may_be_reached_on_that_port(
    entry: str, scheme: str, host: str, port: int | None
) -> None:
    Guard(HttpSettings(allowed_hosts=(entry,))).check_url(scheme, host, port)


@given(st.integers(1, 65_535), st.sampled_from(["127.0.0.1", "localhost", "10.0.0.7", "::1"]))
def test_no_other_port_and_no_other_host_is_allowed_with_it(port: int, host: str) -> None:
    guard = Guard(HttpSettings(allowed_hosts=("127.0.0.1:11434", "localhost:11434")))
    allowed = port == 11_434 and host in ("127.0.0.1", "localhost")
    address = ip_address("127.0.0.1" if host == "localhost" else host)
    if allowed:
        guard.check_addresses(host, [address], port)
        return
    entry = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    with pytest.raises(HttpRefusedError) as caught:
        guard.check_addresses(host, [address], port)
    assert f"allowed_hosts, as {entry!r}" in str(caught.value)
    with pytest.raises(HttpRefusedError):  # what the port is must be known
        guard.check_addresses(host, [address])
    Guard(HttpSettings(allowed_hosts=(entry,))).check_addresses(host, [address], port)


def test_a_permission_for_a_port_does_not_open_a_metadata_service_elsewhere() -> None:
    guard = Guard(HttpSettings(allow_private=True, allowed_hosts=("169.254.169.254:8080",)))
    guard.check_url("http", "169.254.169.254", 8_080)
    with pytest.raises(HttpRefusedError, match="metadata service"):
        guard.check_url("http", "169.254.169.254")


@pytest.mark.parametrize("entry", ["a.example:", "a.example:0", "a.example:65536", "a.example:http", ":80"])
def test_what_is_no_host_with_a_port_is_refused(entry: str) -> None:
    with pytest.raises(ConfigError, match="allowed_hosts"):
        HttpSettings(allowed_hosts=(entry,))


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
