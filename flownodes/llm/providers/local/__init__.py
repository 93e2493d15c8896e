"""The local provider: sentence embeddings computed on this machine, without a network."""

from flownodes.llm.providers.local.provider import MODEL, LocalProvider, embed_texts

__all__ = ["MODEL", "LocalProvider", "embed_texts"]
