"""Where the contenders live: ours in the environment this runs in, the peers in `.venv-peers`.

Owns: the paths of both, and what the set-up recorded about each peer.
Does not own: making the peers' environment (benchmarks.setup).
"""

from __future__ import annotations

import json
import sys
from enum import Enum
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PEERS_ENVIRONMENT = ROOT / ".venv-peers"
RECORD = PEERS_ENVIRONMENT / "peers.json"
"""What the set-up did: `{NAME: {"version": ...} | {"error": ...}}`."""

DISTRIBUTIONS = {
    "Bytewax": "bytewax",
    "GraphBit": "graphbit",
    "Haystack": "haystack-ai",
    "LangGraph": "langgraph",
    "LlamaIndex Workflows": "llama-index-workflows",
    "Pathway": "pathway",
    "PydanticAI": "pydantic-ai-slim",
    "reactivex": "reactivex",
    "streamz": "streamz",
}
"""The peers by the name reports use; a contender's name begins with one of these."""

COMPANIONS = {
    "LangGraph": ("langchain-openai",),
    "LlamaIndex Workflows": ("openai",),
    "PydanticAI": ("openai",),
}
"""What their users install beside them to call models."""


class Environment(Enum):
    """Whose interpreter a workload runs in."""

    OURS = "ours"
    PEERS = "peers"


def python_of(environment: Environment) -> Path:
    """The interpreter to start."""
    return Path(sys.executable) if environment is Environment.OURS else PEERS_ENVIRONMENT / "bin" / "python"


def record() -> dict[str, dict[str, Any]]:
    """What the set-up recorded; empty before it has run."""
    return json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else {}


def unavailable(environment: Environment, contender: str) -> str | None:
    """Why a contender cannot take part, as far as is known before it starts; None when nothing is."""
    if environment is Environment.OURS:
        return None
    if not python_of(environment).exists():
        return "the peers are not installed; run python -m benchmarks.setup"
    for peer, entry in record().items():
        if contender.startswith(peer) and "error" in entry:
            return f"not installed on this machine: {entry['error']}"
    return None
