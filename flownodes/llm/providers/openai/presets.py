"""The services that speak OpenAI's wire format, each an entry point of group `flowrx.llm_providers`.

Owns: their table: address, key variable, differences. Does not own: the class they share (provider).

Addresses and variables are those of each service's own documentation.
"""

from __future__ import annotations

from typing import Final

from flowcore.llm.endpoint import Endpoint
from flowcore.llm.provider import ProviderContext
from flownodes.llm.providers.openai.provider import OpenAIProvider
from flownodes.llm.providers.openai.traits import Traits

_COMPLETION_TOKENS: Final = {"max_tokens": "max_completion_tokens"}


class Preset:
    """Opens endpoints of one service.

    Args:
        traits: of the service.
    """

    def __init__(self, traits: Traits) -> None:
        self.traits: Final = traits

    def __call__(self, endpoint: Endpoint, ctx: ProviderContext) -> OpenAIProvider:
        return OpenAIProvider(endpoint, ctx, self.traits)


OPENAI: Final = Preset(
    Traits(
        base_url="https://api.openai.com/v1",
        key="OPENAI_API_KEY",
        renamed=_COMPLETION_TOKENS,
        base64=True,
        max_embed_texts=2_048,
        responses=True,
    )
)
AZURE: Final = Preset(
    Traits(
        base_url=None,
        address_variable="AZURE_OPENAI_ENDPOINT",
        example="https://NAME.openai.azure.com",
        key="AZURE_OPENAI_API_KEY",
        key_header="api-key",
        renamed=_COMPLETION_TOKENS,
        base64=True,
        max_embed_texts=2_048,
        deployments=True,
    )
)
MISTRAL: Final = Preset(
    Traits(
        base_url="https://api.mistral.ai/v1",
        key="MISTRAL_API_KEY",
        renamed={"seed": "random_seed", "dimensions": "output_dimension"},
        usage_on_request=False,
        max_embed_texts=128,
    )
)
DEEPSEEK: Final = Preset(
    Traits(base_url="https://api.deepseek.com", key="DEEPSEEK_API_KEY", json_schema=False, embeds=False)
)
GROQ: Final = Preset(Traits(base_url="https://api.groq.com/openai/v1", key="GROQ_API_KEY", embeds=False))
TOGETHER: Final = Preset(Traits(base_url="https://api.together.xyz/v1", key="TOGETHER_API_KEY"))
FIREWORKS: Final = Preset(Traits(base_url="https://api.fireworks.ai/inference/v1", key="FIREWORKS_API_KEY"))
OPENROUTER: Final = Preset(Traits(base_url="https://openrouter.ai/api/v1", key="OPENROUTER_API_KEY"))
XAI: Final = Preset(Traits(base_url="https://api.x.ai/v1", key="XAI_API_KEY", embeds=False, responses=True))
PERPLEXITY: Final = Preset(
    Traits(
        base_url="https://api.perplexity.ai", key="PERPLEXITY_API_KEY", usage_on_request=False, embeds=False
    )
)
GEMINI: Final = Preset(
    Traits(
        base_url="https://generativelanguage.googleapis.com/v1beta/openai",
        key="GEMINI_API_KEY",
        max_embed_texts=100,
    )
)
VLLM: Final = Preset(
    Traits(
        base_url="http://127.0.0.1:8000/v1",
        key="VLLM_API_KEY",
        key_required=False,
        base64=True,
        responses=True,
    )
)
LLAMACPP: Final = Preset(Traits(base_url="http://127.0.0.1:8080/v1", key="LLAMA_API_KEY", key_required=False))
OPENAI_COMPATIBLE: Final = Preset(Traits(base_url=None, key=None, key_required=False, responses=True))

PRESETS: Final = {
    "openai": OPENAI,
    "azure": AZURE,
    "mistral": MISTRAL,
    "deepseek": DEEPSEEK,
    "groq": GROQ,
    "together": TOGETHER,
    "fireworks": FIREWORKS,
    "openrouter": OPENROUTER,
    "xai": XAI,
    "perplexity": PERPLEXITY,
    "gemini": GEMINI,
    "vllm": VLLM,
    "llamacpp": LLAMACPP,
    "openai_compatible": OPENAI_COMPATIBLE,
}
