"""The loopback server as its clients see it, and what it says it saw."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from benchmarks import data, prompts
from benchmarks.calls import measured, peak_rss_mib, pool
from benchmarks.loopback import HOST, Loopback, loopback, peak

DELAY_S = 0.02


@pytest.fixture(scope="module")
def running() -> Iterator[Loopback]:
    with loopback(delay_s=DELAY_S) as server:
        yield server


@pytest.fixture
def server(running: Loopback) -> Loopback:
    running.reset()
    return running


def ask(server: Loopback, path: str, body: object) -> Any:
    connection = http.client.HTTPConnection(HOST, server.port, timeout=10)
    try:
        connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()


def complete(server: Loopback, prompt: object) -> str:
    message = {"role": "user", "content": prompt}
    answer = ask(server, "/v1/chat/completions", {"model": "m", "messages": [message]})
    assert answer["usage"]["total_tokens"] == sum(
        answer["usage"][kind] for kind in ("prompt_tokens", "completion_tokens")
    )
    return answer["choices"][0]["message"]["content"]


def test_a_prompt_is_answered_by_its_rule_after_the_delay_and_noted(server: Loopback) -> None:
    asked = prompts.instruction("first")
    started = time.monotonic()
    assert complete(server, asked) == prompts.reply(asked)
    assert complete(server, [{"type": "text", "text": asked}]) == prompts.reply(asked)
    assert time.monotonic() - started >= 2 * DELAY_S
    assert [call.name for call in server.calls()] == ["first", "first"]
    assert all(call.end - call.start >= 0.9 * DELAY_S for call in server.calls())


def test_a_prompt_may_order_its_own_answer_and_time(server: Loopback) -> None:
    assert complete(server, "node=x3 sleep=0.0") == "done x3"


def test_vectors_come_in_the_order_of_the_texts_for_one_and_for_many(server: Loopback) -> None:
    texts = data.texts(300)
    answer = ask(server, "/v1/embeddings", {"model": "m", "input": texts})
    assert [item["embedding"] for item in answer["data"]] == data.vectors(300)
    answer = ask(server, "/v1/embeddings", {"model": "m", "input": texts[7]})
    assert answer["data"][0]["embedding"] == data.vector(texts[7])
    assert [call.name for call in server.calls()] == ["embed", "embed"]


def test_calls_at_once_wait_together_and_are_seen_as_such(server: Loopback) -> None:
    asked = prompts.many(8)
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(complete, [server] * len(asked), asked))
    assert found == prompts.many_result(8)
    assert len(server.calls()) == 8
    assert peak(server.calls()) > 1


def test_a_request_that_comes_in_pieces_is_one_request(server: Loopback) -> None:
    asked = prompts.instruction("pieces")
    body = json.dumps({"messages": [{"role": "user", "content": asked}]}).encode()
    head = b"POST /chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
    with socket.create_connection((HOST, server.port), timeout=10) as connection:
        for piece in (head[:20], head[20:] + body[:5], body[5:]):
            connection.sendall(piece)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        assert prompts.reply(asked) in answer.read().decode()


async def test_a_pool_keeps_the_order_of_its_prompts_and_its_limit() -> None:
    at_work = most = 0

    async def answer(prompt: str) -> str:
        nonlocal at_work, most
        at_work += 1
        most = max(most, at_work)
        await asyncio.sleep(0)
        at_work -= 1
        return prompt.upper()

    asked = [f"p{number}" for number in range(20)]
    assert await pool(asked, 3, answer) == [prompt.upper() for prompt in asked]
    assert most == 3


async def test_a_run_that_makes_the_calls_it_should_has_its_figures(server: Loopback) -> None:
    done = await measured(server, lambda: asyncio.to_thread(complete, server, "x"), calls=1, limit=1)
    assert done.result == prompts.reply("x")
    assert done.seconds is not None
    assert done.seconds >= 0.9 * DELAY_S
    assert done.facts["calls"] == done.facts["peak"] == 1
    assert done.facts["rss_mib"] == pytest.approx(peak_rss_mib(), rel=0.1)


@pytest.mark.parametrize(
    ("calls", "limit", "message"), [(2, None, "saw 3 calls, not 2"), (3, 0, "more than the limit of 0")]
)
async def test_a_run_that_makes_other_calls_than_it_should_has_no_figures(
    server: Loopback, calls: int, limit: int | None, message: str
) -> None:
    async def work() -> None:
        for prompt in "abc":
            await asyncio.to_thread(complete, server, prompt)

    with pytest.raises(RuntimeError, match=message):
        await measured(server, work, calls=calls, limit=limit)
