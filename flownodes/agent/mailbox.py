"""Messages between the agents of one execution.

Owns: `Mailboxes`, kept in the execution's state, and the two tools agents use it by.
Does not own: when an agent uses a tool (loop).

Always holds: a message is given to its reader once, in the order sent; it is kept until then, and goes with
the execution. Holds at most `MOST` unread messages for each agent; beyond that the sender is told an error.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from typing import Any, Final, cast

from flowcore.context import NodeContext
from flowcore.errors import LimitExceededError
from flowcore.findings import did_you_mean, shown
from flowcore.llm.messages import Tool

MOST: Final = 100
MAX_WAIT_S: Final = 60.0
_KEY: Final = "agent.mailboxes"


class Mailboxes:
    """One box for each agent that has read or been written to."""

    def __init__(self) -> None:
        self._boxes: dict[str, deque[dict[str, str]]] = {}
        self._arrived = asyncio.Event()

    @classmethod
    def of(cls, ctx: NodeContext) -> Mailboxes:
        """Those of the execution a call belongs to."""
        found = ctx.state.data.get(_KEY)
        if not isinstance(found, Mailboxes):
            found = ctx.state.data[_KEY] = Mailboxes()
        return found

    def send(self, sender: str, to: str, text: str) -> None:
        """Leave a message.

        Raises:
            LimitExceededError: the box is full.
        """
        box = self._boxes.setdefault(to, deque())
        if len(box) >= MOST:
            raise LimitExceededError(f"{to!r} has {MOST} unread messages; it takes no more", agent=to)
        box.append({"from": sender, "text": text})
        self._arrived.set()
        self._arrived = asyncio.Event()

    async def read(self, reader: str, wait_s: float) -> list[dict[str, str]]:
        """All unread messages; where there are none, those that come within `wait_s`."""
        box = self._boxes.setdefault(reader, deque())
        if not box and wait_s > 0:
            try:
                async with asyncio.timeout(wait_s):
                    while not box:
                        await self._arrived.wait()
            except TimeoutError:
                return []
        messages = list(box)
        box.clear()
        return messages


SEND: Final = "send_message"
READ: Final = "read_messages"


def _tool(name: str, description: str, required: list[str], **properties: dict[str, Any]) -> Tool:
    schema = {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }
    return Tool(name=name, description=description, parameters=schema)


class MessageTool:
    """One of the two, for one agent."""

    def __init__(self, tool: Tool, name: str, peers: tuple[str, ...], ctx: NodeContext) -> None:
        self.tool: Final = tool
        self._name = name
        self._peers = peers
        self._boxes = Mailboxes.of(ctx)

    async def use(self, arguments: Mapping[str, Any]) -> Any:
        if self.tool.name == READ:
            return await self._boxes.read(self._name, float(arguments.get("wait_s", 0.0)))
        to = cast("str", arguments["to"])
        if to not in self._peers:
            hint = did_you_mean(to, self._peers) or f"there are {', '.join(self._peers)}"
            raise ValueError(f"there is no agent {shown(to)}; {hint}")
        self._boxes.send(self._name, to, arguments["text"])
        return "sent"


def message_tools(name: str, peers: tuple[str, ...], ctx: NodeContext) -> list[MessageTool]:
    """Sending to `peers`, and reading what was sent to `name`."""
    text = {"type": "string"}
    send = _tool(
        SEND, f"Send a message to another agent: {', '.join(peers)}.", ["to", "text"],
        to={"type": "string", "enum": list(peers)}, text=text,
    )  # fmt: skip
    read = _tool(
        READ, "Read the messages other agents sent to you.", [],
        wait_s={"type": "number", "minimum": 0, "maximum": MAX_WAIT_S, "description": "to wait for one"},
    )  # fmt: skip
    return [MessageTool(tool, name, peers, ctx) for tool in (send, read)]
