"""Each provider keeps what all providers promise, against a server of its wire format."""

from __future__ import annotations

import pytest

from flownodes.llm.providers.anthropic.provider import AnthropicProvider
from flownodes.llm.providers.huggingface.provider import HuggingFaceProvider
from flownodes.llm.providers.ollama.provider import OllamaProvider
from flownodes.llm.providers.openai.presets import AZURE, MISTRAL, OPENAI
from flowruntime.testing.conformance.provider import ProviderConformance
from flowruntime.testing.conformance.provider_subject import ProviderSubject
from tests.servers.llm import KEY, serving
from tests.servers.llm_formats import (
    AnthropicMessages,
    AzureChat,
    HuggingFaceChat,
    OllamaChat,
    OpenAIChat,
    OpenAIResponses,
)


class MistralChat(OpenAIChat):
    provider = "mistral"


class TestOpenAIChat(ProviderConformance):
    @pytest.fixture
    def subject(self) -> ProviderSubject:
        return ProviderSubject(
            factory=OPENAI, serving=lambda: serving(OpenAIChat()), key=KEY, variable="OPENAI_API_KEY"
        )


class TestOpenAIResponses(ProviderConformance):
    @pytest.fixture
    def subject(self) -> ProviderSubject:
        return ProviderSubject(
            factory=OPENAI, serving=lambda: serving(OpenAIResponses()), key=KEY, variable="OPENAI_API_KEY"
        )


class TestAzure(ProviderConformance):
    @pytest.fixture
    def subject(self) -> ProviderSubject:
        return ProviderSubject(
            factory=AZURE, serving=lambda: serving(AzureChat()), key=KEY, variable="AZURE_OPENAI_API_KEY"
        )


class TestMistral(ProviderConformance):
    """Stands for the presets that give vectors as numbers and usage unasked."""

    @pytest.fixture
    def subject(self) -> ProviderSubject:
        return ProviderSubject(
            factory=MISTRAL, serving=lambda: serving(MistralChat()), key=KEY, variable="MISTRAL_API_KEY"
        )


class TestAnthropic(ProviderConformance):
    @pytest.fixture
    def subject(self) -> ProviderSubject:
        return ProviderSubject(
            factory=AnthropicProvider,
            serving=lambda: serving(AnthropicMessages()),
            key=KEY,
            variable="ANTHROPIC_API_KEY",
            embeds=False,
        )


class TestOllama(ProviderConformance):
    @pytest.fixture
    def subject(self) -> ProviderSubject:
        return ProviderSubject(
            factory=OllamaProvider, serving=lambda: serving(OllamaChat()), key=KEY, names_answers=False
        )


class TestHuggingFace(ProviderConformance):
    @pytest.fixture
    def subject(self) -> ProviderSubject:
        return ProviderSubject(
            factory=HuggingFaceProvider,
            serving=lambda: serving(HuggingFaceChat()),
            key=KEY,
            variable="HF_TOKEN",
        )
