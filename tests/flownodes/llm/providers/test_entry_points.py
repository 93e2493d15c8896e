"""Every provider is found by the name users write."""

from __future__ import annotations

from importlib.metadata import entry_points

import pytest

from flownodes.llm.providers.openai.presets import PRESETS

HTTP = [*PRESETS, "anthropic", "ollama", "huggingface"]


@pytest.mark.parametrize("name", HTTP)
def test_a_name_leads_to_its_factory(name: str) -> None:
    points = {point.name: point for point in entry_points(group="flowrx.llm_providers")}
    factory = points[name].load()
    assert callable(factory)
    assert PRESETS.get(name, factory) is factory
