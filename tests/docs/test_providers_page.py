"""The table of providers is what is installed: addresses, variables, options."""

from __future__ import annotations

import re
from importlib.metadata import entry_points
from typing import Any

import pytest

from flownodes.llm.providers.anthropic import provider as anthropic
from flownodes.llm.providers.huggingface import provider as huggingface
from flownodes.llm.providers.ollama import provider as ollama
from flownodes.llm.providers.openai.presets import PRESETS
from flownodes.llm.providers.openai.traits import AzureOptions, OpenAIOptions, ResponsesOptions
from tests.docs.blocks import ROOT

ROW = re.compile(r"^\| `(?P<name>\w+)` \|(?P<rest>.*)\|$", re.MULTILINE)
PAGE = (ROOT / "docs" / "guide" / "providers.md").read_text(encoding="utf-8")
ROWS = {found["name"]: [cell.strip() for cell in found["rest"].split("|")] for found in ROW.finditer(PAGE)}


def named(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def options_of(name: str) -> type[Any] | None:
    if name in ("openai", "azure"):
        return OpenAIOptions if name == "openai" else AzureOptions
    return ResponsesOptions if PRESETS[name].traits.responses else None


def test_every_installed_provider_has_a_row_and_no_other() -> None:
    ours = {point.name for point in entry_points(group="flowrx.llm_providers") if "flownodes" in point.value}
    assert ROWS.keys() == ours


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_a_row_says_what_the_preset_says(name: str) -> None:
    traits = PRESETS[name].traits
    address, key, vectors, options = ROWS[name]
    expected = traits.base_url or traits.address_variable or "base_url"
    assert named(address) == [expected]
    assert named(key)[:1] == [traits.key or "api_key"]
    assert ("not needed" in key or "where one is needed" in key) == (not traits.key_required)
    assert vectors == ("yes" if traits.embeds else "no")
    kind = options_of(name)
    assert set(named(options)) == (set() if kind is None else set(kind.__struct_fields__))


@pytest.mark.parametrize(
    ("name", "addresses", "key", "options"),
    [
        ("anthropic", [anthropic.ADDRESS], anthropic.KEY, anthropic.Options),
        ("ollama", [ollama.VARIABLE, ollama.ADDRESS], "OLLAMA_API_KEY", ollama.Options),
        ("huggingface", [huggingface.ADDRESS], huggingface.KEY, huggingface.Options),
    ],
)
def test_a_row_says_what_the_provider_says(
    name: str, addresses: list[str], key: str, options: type[Any]
) -> None:
    assert named(ROWS[name][0]) == addresses
    assert named(ROWS[name][1]) == [key]
    assert named(ROWS[name][3]) == list(options.__struct_fields__)
