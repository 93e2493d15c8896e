"""Who is asked: an identity for each, and no key in it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from flowcore.llm.endpoint import Endpoint
from flowcore.values import Secret

KEY = "sk-live-0123456789"


def test_provider_address_key_and_model_make_the_identity() -> None:
    base = Endpoint(provider="openai", api_key=Secret(KEY))
    others = [
        Endpoint(provider="groq", api_key=Secret(KEY)),
        Endpoint(provider="openai", api_key=Secret(KEY + "x")),
        Endpoint(provider="openai", api_key=Secret(KEY), base_url="https://x/v1"),
        Endpoint(provider="openai"),
    ]
    names = {endpoint.identity("m") for endpoint in (base, *others)} | {base.identity("n")}
    assert len(names) == len(others) + 2
    same = Endpoint(provider="openai", api_key=Secret(KEY, name="OTHER"), options={"organization": "o"})
    assert same.identity("m") == base.identity("m")


def test_the_key_is_nowhere_to_be_seen() -> None:
    endpoint = Endpoint(provider="openai", api_key=Secret(KEY), headers={"x-key": Secret(KEY)})
    for shown in (endpoint.identity("m"), repr(endpoint), str(endpoint), f"{endpoint}"):
        assert KEY not in shown


@given(st.text(min_size=1, max_size=40))
def test_the_identity_is_the_same_in_every_process(key: str) -> None:
    """It is made of a digest of its content, not of `hash`."""
    try:
        key.encode()
    except UnicodeEncodeError:
        return
    one = Endpoint(provider="p", api_key=Secret(key)).identity("m")
    assert one == Endpoint(provider="p", api_key=Secret(key)).identity("m")
    tag = one.rpartition("|")[2]
    assert len(tag) == 16
    assert set(tag) <= set("0123456789abcdef")
