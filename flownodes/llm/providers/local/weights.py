"""Weights of all-MiniLM-L6-v2: found, checked, and laid out for multiplication.

Owns: where the files are, the check of their content, and the arrays the forward pass reads.
Does not own: the arithmetic (kernels, minilm).

Always holds: weights whose SHA-256 differs are refused, so vectors of two machines are comparable; arrays are
float32, contiguous in the order they are multiplied in, and never written to.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from flowcore.errors import BuildError
from flownodes.extras import MissingExtraError
from flownodes.llm.providers.local.installed import INSTALL_WEIGHTS, WEIGHTS

Array: TypeAlias = NDArray[np.float32]

SHA256: Final = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

LAYERS: Final = 6
HEADS: Final = 12
HIDDEN: Final = 384
HEAD_SIZE: Final = HIDDEN // HEADS


class WeightsError(BuildError, ValueError):
    """The weights are not the expected ones: attributes `path`, `found`, `expected` (SHA-256, hex)."""

    path: str
    found: str
    expected: str


class Norm(NamedTuple):
    """Scale and shift of a layer norm, shape (HIDDEN,) each."""

    scale: Array
    shift: Array


class Dense(NamedTuple):
    """`x @ weight + bias`: weight of shape (inputs, outputs), C-contiguous."""

    weight: Array
    bias: Array


class Layer(NamedTuple):
    """One encoder layer; query (already divided by sqrt(HEAD_SIZE)), key and value are one multiplication."""

    qkv: Dense
    attended: Dense
    attended_norm: Norm
    up: Dense
    down: Dense
    down_norm: Norm


class Weights(NamedTuple):
    """Everything the forward pass reads."""

    words: Array
    """Shape (vocabulary, HIDDEN)."""
    positions: Array
    """Shape (512, HIDDEN); the embedding of sentence A is already added, there never is a sentence B."""
    embedded_norm: Norm
    layers: tuple[Layer, ...]


def model_folder() -> Path:
    """The folder of the installed weights package; the package itself is not imported.

    Raises:
        MissingExtraError: it is not installed.
    """
    spec = importlib.util.find_spec(WEIGHTS)
    if spec is None or spec.origin is None:
        raise MissingExtraError(
            f"the weights of all-MiniLM-L6-v2 are not installed; run: {INSTALL_WEIGHTS}",
            package=WEIGHTS,
            install=INSTALL_WEIGHTS,
        )
    return Path(spec.origin).parent / "model"


def load_weights(folder: Path) -> Weights:
    """Read and check `model.safetensors` in `folder` and lay its arrays out. Some 0.3 s, 90 MB.

    Raises:
        WeightsError: the file is missing, or its content is not the expected one.
    """
    path = folder / "model.safetensors"
    _check(path)
    raw: Mapping[str, Array] = safetensors.numpy.load_file(path)  # pyright: ignore[reportUnknownMemberType] - its PathLike has no argument
    sentence_a = raw["embeddings.token_type_embeddings.weight"][0]
    return Weights(
        words=raw["embeddings.word_embeddings.weight"],
        positions=raw["embeddings.position_embeddings.weight"] + sentence_a,
        embedded_norm=_norm(raw, "embeddings.LayerNorm"),
        layers=tuple(_layer(raw, f"encoder.layer.{number}.") for number in range(LAYERS)),
    )


def _check(path: Path) -> None:
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(
            f"cannot read the weights {str(path)!r}: {error}; reinstall them: {INSTALL_WEIGHTS}",
            path=str(path),
            found="",
            expected=SHA256,
        ) from error
    if found != SHA256:
        raise WeightsError(
            f"the weights {str(path)!r} have SHA-256 {found}, expected {SHA256}; nothing was loaded. "
            f"Reinstall them: {INSTALL_WEIGHTS}",
            path=str(path),
            found=found,
            expected=SHA256,
        )


def _layer(raw: Mapping[str, Array], prefix: str) -> Layer:
    attention = f"{prefix}attention.self."
    parts = [_dense(raw, f"{attention}{part}") for part in ("query", "key", "value")]
    scale = np.float32(HEAD_SIZE**-0.5)
    query = Dense(parts[0].weight * scale, parts[0].bias * scale)
    parts[0] = query
    return Layer(
        qkv=Dense(
            np.ascontiguousarray(np.concatenate([part.weight for part in parts], axis=1)),
            np.concatenate([part.bias for part in parts]),
        ),
        attended=_dense(raw, f"{prefix}attention.output.dense"),
        attended_norm=_norm(raw, f"{prefix}attention.output.LayerNorm"),
        up=_dense(raw, f"{prefix}intermediate.dense"),
        down=_dense(raw, f"{prefix}output.dense"),
        down_norm=_norm(raw, f"{prefix}output.LayerNorm"),
    )


def _dense(raw: Mapping[str, Array], name: str) -> Dense:
    return Dense(np.ascontiguousarray(raw[f"{name}.weight"].T), raw[f"{name}.bias"])


def _norm(raw: Mapping[str, Array], name: str) -> Norm:
    return Norm(raw[f"{name}.weight"], raw[f"{name}.bias"])
