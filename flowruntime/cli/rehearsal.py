"""flow run --dry-run: everything that can be found out without running, reading or writing.

Owns: making every source and sink from its configuration, looking up every secret, showing the plan.
Does not own: opening anything; a file, topic or address is not touched.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

from flowcore.errors import FlowError, Problem, SecretNotFoundError, ValidationFailedError
from flowcore.findings import path_text
from flowcore.values import SecretRef
from flowruntime.cli.failures import say
from flowruntime.cli.given import as_inputs
from flowruntime.cli.planning import planned
from flowruntime.compile.description import describe
from flowruntime.compile.explain import explain
from flowruntime.compile.lower import lower
from flowruntime.compile.validate import validate
from flowruntime.execute.inputs import request_inputs
from flowruntime.execute.secrets import SecretStore

if TYPE_CHECKING:
    from flowcore.findings import Path
    from flowruntime.cli.target import Target
    from flowruntime.compile.resolved import ResolvedGraph, ResolvedNode


def rehearse(target: Target, *, given: Any, as_request: bool) -> int:
    """Print the plan of what would run; 0 when nothing stands against it.

    Raises:
        ValidationFailedError: the workflow, an input, a connector's configuration or a secret is wrong.
    """
    if as_request:
        graph = validate(target.workflow, target.registry(), mode="request")
        request_inputs(graph, as_inputs(graph, given))
        plan = lower(graph, mode="request")
    else:
        plan = planned(target.workflow, target.registry(), to_run=True)
    problems = list(_problems(plan.graph, target.file))
    if problems:
        raise ValidationFailedError(problems)
    sys.stdout.write(explain(describe(plan)))
    say("dry run: nothing was read, run or written")
    return 0


def _problems(graph: ResolvedGraph, file: str) -> Iterator[Problem]:
    secrets = SecretStore()
    for node in graph.nodes.values():
        for path, name in _secrets(node.raw_config, ("nodes", node.id, "config")):
            try:
                secrets.resolve(name)
            except SecretNotFoundError as fault:
                yield Problem(path=path_text(path), message=str(fault), line=node.line, file=file)
        if node.role in ("source", "sink"):
            yield from _connector(node, file)
    place = graph.dead_letter
    if place is not None:  # a store was made of it when it was validated
        for path, name in _secrets(place.raw_config, ("settings", "dead_letter", "config")):
            try:
                secrets.resolve(name)
            except SecretNotFoundError as fault:
                yield Problem(path=path_text(path), message=str(fault), file=file)


def _connector(node: ResolvedNode, file: str) -> Iterator[Problem]:
    try:
        node.definition.implementation(node.config)
    except FlowError as fault:
        yield Problem(path=f"nodes.{node.id}.config", message=str(fault), line=node.line, file=file)


def _secrets(value: object, at: Path) -> Iterator[tuple[Path, str]]:
    if isinstance(value, SecretRef):
        yield at, value.name
    elif isinstance(value, Mapping):
        for key, item in cast("Mapping[str, object]", value).items():
            yield from _secrets(item, (*at, key))
    elif isinstance(value, list):
        for index, item in enumerate(cast("list[object]", value)):
            yield from _secrets(item, (*at, index))
