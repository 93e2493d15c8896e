"""A small OpenAI-like server on loopback, in a process of its own: answers after a fixed wait.

Owns: the server, and `Loopback`, the handle its user starts it by and asks what it saw.
Does not own: what is asked of it (benchmarks.peers, benchmarks.ours), what a prompt is answered
(benchmarks.prompts).

Always holds: standard library only. It must not be what a contender waits for, so it is an asyncio protocol
with a timer per request, no task and no thread: some 60 us of CPU a call of 400 characters, which is some
16,000 calls/s of one core, where the fastest contender asks for 4,000. Its CPU time is never counted in the
contender's.

Chat completions and embeddings are answered after the server's delay: `benchmarks.prompts.reply` of the last
message, `benchmarks.data.vector` of each text. A chat prompt that starts with orders of its own, `node=NAME
sleep=SECONDS`, is answered `done NAME` after that time instead. `GET /calls` gives what was served since
`POST /reset`: `[name, start, end]` on the monotonic clock, which all processes of a machine share.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks import data, prompts

if TYPE_CHECKING:
    from collections.abc import Generator

ORDERS = re.compile(r"node=(\w+) sleep=([0-9.]+)")
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
HEAD_END = b"\r\n\r\n"
HOST = "127.0.0.1"


@dataclass(frozen=True)
class Call:
    """One answered request: `start` and `end` on the monotonic clock, seconds."""

    name: str
    start: float
    end: float


def peak(calls: list[Call]) -> int:
    """Largest number of calls open at once."""
    changes = sorted([(call.start, 1) for call in calls] + [(call.end, -1) for call in calls])
    most = level = 0
    for _, change in changes:
        level += change
        most = max(most, level)
    return most


@dataclass(frozen=True)
class Answer:
    """What is sent back, after how long, and what the call is noted as; no name: not noted."""

    body: bytes
    name: str = ""
    delay_s: float = 0.0


class Server:
    """State of the server process."""

    def __init__(self, delay_s: float) -> None:
        self.delay_s = delay_s
        self.calls: list[tuple[str, float, float]] = []

    async def serve(self) -> None:
        """Listen on a free port, print it, serve until killed."""
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Connection(self, loop), HOST, 0, backlog=4096)
        sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
        sys.stdout.flush()
        async with server:
            await server.serve_forever()

    def answer(self, path: str, body: bytes) -> Answer:
        """What to send back for one request."""
        if path == "/calls":
            return Answer(json.dumps(self.calls).encode())
        if path == "/reset":
            self.calls.clear()
            return Answer(b"{}")
        request = json.loads(body)
        if "input" in request:
            texts: str | list[str] = request["input"]
            found = _embeddings([texts] if isinstance(texts, str) else texts)
            return Answer(found, "embed", self.delay_s)
        asked = _text(request["messages"][-1]["content"])
        orders = ORDERS.search(asked)
        if orders:
            return Answer(_completion(asked, f"done {orders[1]}"), orders[1], float(orders[2]))
        return Answer(_completion(asked, prompts.reply(asked)), prompts.name_of(asked), self.delay_s)


class Connection(asyncio.Protocol):
    """One connection, kept alive: a request at a time."""

    def __init__(self, server: Server, loop: asyncio.AbstractEventLoop) -> None:
        self._server = server
        self._loop = loop
        self._received = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has left; nothing is owed to it."""
        self._transport = None

    def data_received(self, data: bytes) -> None:
        received = self._received
        received += data
        head_end = received.find(HEAD_END)
        if head_end < 0:
            return
        length = LENGTH.search(received, 0, head_end)
        end = head_end + len(HEAD_END) + (int(length[1]) if length else 0)
        if len(received) < end:
            return
        start = time.monotonic()
        path = received[: received.index(b"\r\n")].split(b" ", 2)[1].decode("latin-1")
        answer = self._server.answer(path, bytes(received[head_end + len(HEAD_END) : end]))
        del received[:end]
        if answer.delay_s:
            self._loop.call_later(answer.delay_s, self._send, answer, start)
        else:
            self._send(answer, start)

    def _send(self, answer: Answer, start: float) -> None:
        if answer.name:
            self._server.calls.append((answer.name, start, time.monotonic()))
        if self._transport is not None:
            self._transport.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
                % (len(answer.body), answer.body)
            )


def _text(content: str | list[dict[str, Any]]) -> str:
    """The text of a message, written as one or in parts."""
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


def _completion(asked: str, content: str) -> bytes:
    """An answer with its usage: four characters count as a token."""
    into, out = len(asked) // 4 + 1, len(content) // 4 + 1
    message = {"role": "assistant", "content": content}
    completion = {
        "id": "loopback",
        "object": "chat.completion",
        "created": 1,
        "model": "loopback",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": into, "completion_tokens": out, "total_tokens": into + out},
    }
    return json.dumps(completion).encode()


def _embeddings(texts: list[str]) -> bytes:
    items = [
        {"object": "embedding", "index": index, "embedding": data.vector(text)}
        for index, text in enumerate(texts)
    ]
    usage = {"prompt_tokens": len(texts), "total_tokens": len(texts)}
    return json.dumps({"object": "list", "data": items, "model": "loopback", "usage": usage}).encode()


class Loopback:
    """The server as its user sees it."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"http://{HOST}:{port}"

    def reset(self) -> None:
        """Forget the calls so far."""
        self._ask("POST", "/reset")

    def calls(self) -> list[Call]:
        """The calls since the last reset, in order of their end."""
        return [Call(*fields) for fields in self._ask("GET", "/calls")]

    def _ask(self, method: str, path: str) -> Any:
        connection = http.client.HTTPConnection(HOST, self.port, timeout=10)
        try:
            connection.request(method, path)
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()


@contextmanager
def loopback(*, delay_s: float = 0.0) -> Generator[Loopback]:
    """A server in a new process, stopped on leaving; `delay_s` is how long a request takes."""
    command = [sys.executable, "-m", "benchmarks.loopback", str(delay_s)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True) as process:
        try:
            line = process.stdout.readline() if process.stdout else ""
            if not line:
                message = f"the loopback server did not start; it ended with code {process.wait()}"
                raise RuntimeError(message)
            yield Loopback(int(line))
        finally:
            process.terminate()


if __name__ == "__main__":
    asyncio.run(Server(float(sys.argv[1])).serve())
