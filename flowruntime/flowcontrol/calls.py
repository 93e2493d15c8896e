"""What one attempt of a waiting node does: await a coroutine, or hand the call to a thread or process.

Owns: making the call function of a node from its definition and instance.
Does not own: when it is made (pool), pools of threads and processes (offload).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

from flowcore.errors import ContractError

if TYPE_CHECKING:
    from flowruntime.compile.resolved import ResolvedNode
    from flowruntime.flowcontrol.jobs import Job
    from flowruntime.flowcontrol.offload import Offloader

MakeContext = Callable[["Job"], Any]


def make_call(
    node: ResolvedNode, instance: Any, offloader: Offloader | None, context: MakeContext, *, unpack: bool
) -> Callable[[Job], Awaitable[Any]]:
    """The function that does one attempt of a job.

    Args:
        node: resolved.
        instance: the function, or the Node object.
        offloader: for offloaded nodes.
        context: makes the node's context for a job; used only when the node takes one.
        unpack: a job's value is a tuple with one value per input port. For a batch job, `value` is a list of
            these.
    """
    definition = node.node
    keywords = config_of(node)
    if definition.batched:
        return _batched(node, instance, offloader, context, keywords, unpack=unpack)
    if offloader is not None:
        return _offloaded(node, offloader, context, keywords, unpack=unpack)
    if definition.is_class:
        return _of_class(node, instance, context, unpack=unpack)
    return _of_function(node, instance, context, keywords, unpack=unpack)


def config_of(node: ResolvedNode) -> dict[str, Any]:
    """A function node's configuration as keyword arguments."""
    if node.config is None or node.node.is_class:
        return {}
    names: tuple[str, ...] = node.config.__struct_fields__
    return {name: getattr(node.config, name) for name in names}


def _of_function(
    node: ResolvedNode, function: Any, context: MakeContext, keywords: dict[str, Any], *, unpack: bool
) -> Callable[[Job], Awaitable[Any]]:
    name = node.node.context_name
    if name is None and not keywords:
        if unpack:
            return lambda job: function(*job.value)
        if node.node.inputs:
            return lambda job: function(job.value)
        return lambda _: function()

    def call(job: Job) -> Awaitable[Any]:
        arguments = job.value if unpack else (job.value,)
        if name is not None:
            return function(*arguments, **keywords, **{name: context(job)})
        return function(*arguments, **keywords)

    return call


def _of_class(
    node: ResolvedNode, instance: Any, context: MakeContext, *, unpack: bool
) -> Callable[[Job], Awaitable[Any]]:
    make = node.node.input_type
    names = [port.name for port in node.node.inputs]

    def call(job: Job) -> Awaitable[Any]:
        values = job.value if unpack else (job.value,)
        return instance.execute(make(**dict(zip(names, values, strict=True))), context(job))

    return call


def _offloaded(
    node: ResolvedNode, offloader: Offloader, context: MakeContext, keywords: dict[str, Any], *, unpack: bool
) -> Callable[[Job], Awaitable[Any]]:
    name = node.node.context_name

    def call(job: Job) -> Awaitable[Any]:
        arguments: Sequence[Any] = job.value if unpack else (job.value,)
        extra = {name: context(job)} if name is not None else {}
        return offloader.run(tuple(arguments), {**keywords, **extra}, job.prepared)

    return call


def _batched(
    node: ResolvedNode,
    function: Any,
    offloader: Offloader | None,
    context: MakeContext,
    keywords: dict[str, Any],
    *,
    unpack: bool,
) -> Callable[[Job], Awaitable[Any]]:
    name = node.node.context_name

    async def call(job: Job) -> Any:
        rows: list[Any] = job.value
        columns = [list(column) for column in zip(*rows, strict=True)] if unpack else [rows]
        extra = {name: context(job)} if name is not None else {}
        if offloader is not None:
            results = await offloader.run(tuple(columns), {**keywords, **extra}, job.prepared)
        else:
            results = await function(*columns, **keywords, **extra)
        try:
            count = len(results)
        except TypeError:
            count = -1
        if count != len(rows):
            got = f"{count} results" if count >= 0 else f"a {type(results).__name__}, which has no length"
            raise ContractError(
                f"batch node {node.id!r} gave {got} for {len(rows)} rows; return one result, or "
                "exception, per row",
                node=node.id,
                rows=len(rows),
            )
        return results

    return call
