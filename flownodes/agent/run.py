"""agent.run: a model that works with tools until it has an answer."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from flowcore.context import NodeContext
from flowcore.errors import ConfigError
from flowcore.llm.answers import Generation
from flowcore.llm.messages import Message, Tool
from flowcore.llm.tools import BoundTool, ToolSpec
from flowcore.node import Node, Outputs
from flownodes.agent.loop import AgentLimits, Capability, Turns
from flownodes.agent.mailbox import message_tools
from flownodes.llm.answer import accepted
from flownodes.llm.asking import asked
from flownodes.llm.chat import plain_message
from flownodes.llm.config import Asks
from flownodes.llm.generate import PromptedConfig


class AgentConfig(PromptedConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Configuration of agent.run."""

    tools: Annotated[
        tuple[ToolSpec, ...], Meta(description="node types and workflows it may use", max_length=128)
    ] = ()
    capabilities: Annotated[
        tuple[Capability, ...],
        Meta(
            description="tools: use them; parallel_tools: those of one turn at once; messages: write to "
            "other agents of the same execution"
        ),
    ] = ("tools",)
    limits: AgentLimits = AgentLimits()
    on_tool_error: Annotated[
        Literal["tell", "fail"], Meta(description="what a failed tool does: tell the model, or fail the row")
    ] = "tell"
    name: Annotated[
        str | None, Meta(description="to other agents; left out: the id of the node", min_length=1)
    ] = None
    peers: Annotated[tuple[str, ...], Meta(description="agents it may write to, by name")] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        may = set(self.capabilities)
        if self.tools and not may & {"tools", "parallel_tools"}:
            raise ConfigError("tools: the agent may not use any; add tools to capabilities", field="tools")
        if bool(self.peers) != ("messages" in may):
            raise ConfigError(
                "peers and the capability messages belong together: name whom the agent may write to",
                field="peers",
            )


class AgentIn(Struct, frozen=True):
    """Input ports."""

    value: Any


class AgentOut(Outputs):
    """Output ports."""

    out: str | UnsetType = UNSET
    """The answer."""
    messages: list[Any] | UnsetType = UNSET
    """The whole conversation, tool calls and results included."""
    report: dict[str, Any] | UnsetType = UNSET
    """Turns, tools used in order, usage, cost_usd (null: not known), model, finish."""


class Agent(Asks, Node[AgentConfig, AgentIn, AgentOut], type="agent.run", idempotent=False):
    """Lets a model use tools, turn after turn, until it answers.

    A tool is a node type (a Python function with @node: its inputs are the arguments) or a workflow. Each use
    is a request of its own, with the policies of its nodes. Arguments are checked before a tool is used; what
    is wrong with them, and what a tool failed with, is told to the model.

    Emits when      the model answers without asking for a tool.
    Drops           nothing.
    Fails when      a limit is reached first, a tool cannot be bound, or as llm.generate.
    Cost            one call for each turn, and what the tools cost.
    Holds           the conversation of each row in work: at most the policy `concurrency` of them.
    """

    async def execute(self, inputs: AgentIn, ctx: NodeContext) -> AgentOut:
        config = self.config
        prompt = config.named(ctx.node_id)

        async def ask(messages: tuple[Message, ...], tools: tuple[Tool, ...]) -> Generation:
            request = config.request(messages, tools=tools)
            answer = await ctx.models.generate(request, self.target, prompt=prompt)
            return accepted(answer, config.provider)

        turns = Turns(
            ask,
            self._tools(ctx),
            config.limits,
            ctx,
            at_once="parallel_tools" in config.capabilities,
            tell=config.on_tool_error == "tell",
        )
        answer = await turns.run(asked(config.prompt, config.system, inputs.value))
        return AgentOut(
            out=answer.text,
            messages=[plain_message(message) for message in turns.messages],
            report={
                "turns": turns.turns,
                "tools": turns.used,
                "usage": msgspec.structs.asdict(turns.usage),
                "cost_usd": turns.cost_usd,
                "model": answer.model,
                "finish": answer.finish,
            },
        )

    def _tools(self, ctx: NodeContext) -> list[BoundTool]:
        config = self.config
        tools: list[BoundTool] = list(ctx.tools(config.tools)) if config.tools else []
        if "messages" in config.capabilities:
            tools += message_tools(config.name or ctx.node_id, config.peers, ctx)
        return tools
