"""all-MiniLM-L6-v2 in plain numpy: texts in, unit vectors out.

Owns: the tokenizer's settings, packing of texts, and the forward pass.
Does not own: threads, processes, asyncio (provider, runtime) or the layout of the weights (weights).

Always holds: a text's vector depends on that text alone, to 1e-6 in each number, whatever else is in the
batch; nothing is padded, so no work is done for absent tokens. A loaded model is never written to, so threads
may share it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple, Self

import numpy as np
from tokenizers import Tokenizer

from flowcore.errors import RunError
from flowcore.findings import shown
from flownodes.llm.providers.local.kernels import gelu, layer_norm, softmax
from flownodes.llm.providers.local.weights import (
    HEAD_SIZE,
    HEADS,
    HIDDEN,
    Array,
    Layer,
    Weights,
    load_weights,
    model_folder,
)

MAX_TOKENS: Final = 256
"""Tokens the model was made for, its start and end marks included; what comes after them has no influence."""

TOKENS_AT_ONCE: Final = 512
"""Tokens in one pass: enough for full speed of the multiplications, few enough to stay in cache."""


class TextRefusedError(RunError, ValueError):
    """One text of a batch cannot be embedded: attributes `index`, `reason`."""

    index: int
    reason: str


class Group(NamedTuple):
    """Consecutive texts of one length: `texts` times `length` rows of the packed tokens, from row `start`."""

    start: int
    texts: int
    length: int

    @property
    def rows(self) -> slice:
        """Its rows of the packed tokens."""
        return slice(self.start, self.start + self.texts * self.length)


class MiniLM:
    """The model, loaded. Some 135 MB; loading takes less than a second."""

    dimensions: Final = HIDDEN

    def __init__(self, weights: Weights, tokenizer: Tokenizer) -> None:
        self._weights: Final = weights
        self._tokenizer: Final = tokenizer

    @classmethod
    def load(cls) -> Self:
        """Load the installed weights, checked.

        Raises:
            MissingExtraError: the weights are not installed; the message has the line that installs them.
            WeightsError: they are not the expected ones.
        """
        folder = model_folder()
        weights = load_weights(folder)
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        tokenizer.no_padding()
        tokenizer.no_truncation()
        return cls(weights, tokenizer)

    def embed(self, texts: Sequence[str], *, truncate: bool = True) -> Array:
        """One vector of length 1 per text, in order: float32, shape (len(texts), 384).

        The empty text has a vector like any other: that of the start and end marks alone.

        Args:
            texts: any number of texts, none included.
            truncate: True takes the first MAX_TOKENS tokens of a longer text, as the model's authors do;
                False refuses it.

        Raises:
            TextRefusedError: an item is no str, holds a lone surrogate, or is too long and may not be cut.

        Cost: 21 million multiplications and additions a token, nearly all of it.
        """
        tokens = self._tokenize(texts, truncate=truncate)
        order = sorted(range(len(tokens)), key=lambda index: len(tokens[index]))
        vectors = np.empty((len(tokens), HIDDEN), np.float32)
        for chosen in _packs(order, tokens):
            vectors[chosen] = self._forward([tokens[index] for index in chosen])
        return vectors

    def count_tokens(self, text: str) -> int:
        """Tokens of a text, its start and end marks included, uncut."""
        return len(self._encode(text, 0))

    def _tokenize(self, texts: Sequence[str], *, truncate: bool) -> list[list[int]]:
        if isinstance(texts, str):
            message = f"embed takes a list of texts, got one str, {shown(texts)}; write [text]"
            raise TextRefusedError(message, index=0, reason="not a list")
        tokens: list[list[int]] = []
        for index, text in enumerate(texts):
            ids = self._encode(text, index)
            if len(ids) > MAX_TOKENS:
                if not truncate:
                    raise _refused(index, text, f"has {len(ids)} tokens, more than {MAX_TOKENS}; split it")
                ids = [*ids[: MAX_TOKENS - 1], ids[-1]]
            tokens.append(ids)
        return tokens

    def _encode(self, text: object, index: int) -> list[int]:
        if not isinstance(text, str):
            raise _refused(index, text, f"is {type(text).__name__}, not str; convert it first")
        try:
            ids: list[int] = self._tokenizer.encode(text).ids
        except (TypeError, UnicodeEncodeError) as error:
            reason = "holds a lone surrogate, which is no character; repair it first"
            raise _refused(index, text, reason) from error
        return ids

    def _forward(self, tokens: Sequence[Sequence[int]]) -> Array:
        """Vectors of texts sorted by length, packed one after the other without padding."""
        groups = _groups(tokens)
        x = self._embedded(tokens)
        for layer in self._weights.layers:
            _attend(x, layer, groups)
            _feed_forward(x, layer)
        vectors = np.empty((len(tokens), HIDDEN), np.float32)
        first = 0
        for group in groups:
            states = x[group.rows].reshape(group.texts, group.length, HIDDEN)
            states.mean(axis=1, out=vectors[first : first + group.texts])
            first += group.texts
        vectors /= np.sqrt(np.einsum("ij,ij->i", vectors, vectors))[:, None]
        return vectors

    def _embedded(self, tokens: Sequence[Sequence[int]]) -> Array:
        ids = np.concatenate([np.asarray(text, np.intp) for text in tokens])
        positions = np.concatenate([np.arange(len(text)) for text in tokens])
        x: Array = self._weights.words[ids]
        x += self._weights.positions[positions]
        layer_norm(x, self._weights.embedded_norm)
        return x


def _attend(x: Array, layer: Layer, groups: Sequence[Group]) -> None:
    """Add to `x` each text's attention over its own tokens, then normalise; texts of a length go together."""
    qkv: Array = x @ layer.qkv.weight
    qkv += layer.qkv.bias
    attended = np.empty_like(x)
    for group in groups:
        texts, length = group.texts, group.length
        parts = qkv[group.rows].reshape(texts, length, 3, HEADS, HEAD_SIZE)
        scores: Array = parts[:, :, 0].transpose(0, 2, 1, 3) @ parts[:, :, 1].transpose(0, 2, 3, 1)
        softmax(scores)
        mixed: Array = scores @ parts[:, :, 2].transpose(0, 2, 1, 3)
        attended[group.rows].reshape(texts, length, HEADS, HEAD_SIZE)[...] = mixed.transpose(0, 2, 1, 3)
    x += layer.attended.bias
    x += np.matmul(attended, layer.attended.weight, out=qkv.reshape(-1)[: x.size].reshape(x.shape))
    layer_norm(x, layer.attended_norm)


def _feed_forward(x: Array, layer: Layer) -> None:
    wide: Array = x @ layer.up.weight
    wide += layer.up.bias
    gelu(wide)
    x += layer.down.bias
    x += wide @ layer.down.weight
    layer_norm(x, layer.down_norm)


def _packs(order: Sequence[int], tokens: Sequence[Sequence[int]]) -> Iterator[Sequence[int]]:
    """Cut the order into packs of at most TOKENS_AT_ONCE tokens, but at least one text."""
    start = held = 0
    for at, index in enumerate(order):
        length = len(tokens[index])
        if held and held + length > TOKENS_AT_ONCE:
            yield order[start:at]
            start, held = at, 0
        held += length
    if held:
        yield order[start:]


def _groups(tokens: Sequence[Sequence[int]]) -> list[Group]:
    groups: list[Group] = []
    row = 0
    for text in tokens:
        length = len(text)
        if groups and groups[-1].length == length:
            groups[-1] = groups[-1]._replace(texts=groups[-1].texts + 1)
        else:
            groups.append(Group(row, 1, length))
        row += length
    return groups


def _refused(index: int, text: object, reason: str) -> TextRefusedError:
    return TextRefusedError(f"text {index} of the batch, {shown(text)}, {reason}", index=index, reason=reason)
