"""What a program gives the runtime: read and checked where it is given, never found wrong by a run later.

Owns: reading durations, numbers, names and limits given to `FlowRuntime(...)` and its methods.
Does not own: what they do.

Always holds: pure; a value is taken as it is meant, or refused with what to write instead; every problem of
one call is listed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, cast

from flowcore.errors import DefinitionError
from flowcore.findings import Findings
from flowcore.shapes import ByName, Duration, Maybe, Shape, Whole, type_name

if TYPE_CHECKING:
    from flowcore.workflow import Workflow
    from flowruntime.compile.resolved import ResolvedGraph

_LIMIT_KINDS: Final = ("type:", "resource:")

_RUNTIME: Final[Mapping[str, Shape]] = {
    "max_parallel": Maybe(Whole(least=1)),
    "limits": ByName(Whole(least=1)),
    "history": Whole(least=0, most=10_000_000),
    "watchdog": Maybe(Duration()),
    "seed": Maybe(Whole(least=-(1 << 63))),
}


def checked(**given: object) -> dict[str, Any]:
    """The options of a runtime, each as its native value.

    Raises:
        ValidationFailedError: some are wrong.
    """
    findings = Findings()
    read = {name: _RUNTIME[name].read(value, (name,), findings) for name, value in given.items()}
    limits = given.get("limits")
    for name in cast("Mapping[Any, Any]", limits) if isinstance(limits, Mapping) else ():
        if not str(name).startswith(_LIMIT_KINDS):
            findings.add(
                ("limits", str(name)),
                "limits nothing",
                remedy="write type:NODE_TYPE or resource:NAME; max_parallel limits all nodes together",
            )
    findings.raise_if_any("FlowRuntime")
    return read


def secrets(given: Mapping[str, str] | None) -> Mapping[str, str]:
    """Secrets by name; what is wrong is told without its value.

    Raises:
        ValidationFailedError: one is no text.
    """
    findings = Findings()
    for name, value in (given or {}).items():
        if not isinstance(value, str):  # pyright: ignore[reportUnnecessaryIsInstance] - of code nobody has checked
            findings.add(("secrets", str(name)), f"must be text, not {type_name(value)}")
    findings.raise_if_any("FlowRuntime")
    return given or {}


def duration(value: timedelta | str | None, name: str, *, zero: bool = False) -> timedelta | None:
    """A timedelta, also from its text (`2s`); None stays None.

    Raises:
        ValidationFailedError: it is none; a bare number has no unit.
    """
    if value is None:
        return None
    findings = Findings()
    read = Duration(zero=zero).read(value, (name,), findings)
    findings.raise_if_any(name)
    return cast("timedelta", read)


def seconds_of(value: timedelta | str, name: str) -> float:
    """A time to wait, in seconds; none or less is no wait.

    Raises:
        ValidationFailedError: it is no duration; a bare number has no unit.
    """
    if isinstance(value, timedelta):
        return max(0.0, value.total_seconds())
    return cast("timedelta", duration(value, name, zero=True)).total_seconds()


def record_limit(value: int | None) -> int | None:
    """How many records a run may read.

    Raises:
        ValidationFailedError: not a whole number of at least 1.
    """
    findings = Findings()
    read = Maybe(Whole(least=1)).read(value, ("limit",), findings)
    findings.raise_if_any("limit")
    return cast("int | None", read)


def choice(value: str, name: str, known: Iterable[str]) -> None:
    """Refuse what is not one of the words.

    Raises:
        ValidationFailedError: it is another one.
    """
    words = list(known)
    if value in words:
        return
    findings = Findings()
    findings.add((name,), f"must be one of {', '.join(words)}", value=value)
    findings.raise_if_any(name)


def workflow_of(thing: object) -> Workflow:
    """The workflow itself.

    Raises:
        DefinitionError: it is something else.
    """
    from flowcore.workflow import Workflow

    if isinstance(thing, Workflow):
        return thing
    raise DefinitionError(
        f"a Workflow is expected, not {thing!r:.200}; load_workflow(path) reads one from a file"
    )


def node_list(nodes: object) -> tuple[object, ...]:
    """What `nodes` lists.

    Raises:
        DefinitionError: it is one thing instead of a list of them.
    """
    if isinstance(nodes, str | ModuleType) or callable(nodes) or not isinstance(nodes, Iterable):
        raise DefinitionError(
            f"nodes is a list of modules, functions and classes: nodes=[...], not {nodes!r:.200}"
        )
    return tuple(cast("Iterable[object]", nodes))


def check_has_source(graph: ResolvedGraph) -> None:
    """A run reads something.

    Raises:
        ValidationFailedError: no node of the workflow is a source.
    """
    if any(node.role == "source" for node in graph.nodes.values()):
        return
    findings = Findings()
    remedy = "add a source, or use execute(workflow, inputs) or stream(workflow, items)"
    findings.add(("nodes",), "has no source, so that there is nothing to run", remedy=remedy)
    findings.raise_if_any()


def stand_ins(sources: object, known: Iterable[str]) -> dict[str, Any]:
    """Source instances by the id of the node they stand in for.

    Raises:
        ValidationFailedError: something is no source, or stands in for none.
    """
    if sources is None:
        return {}
    findings, ids = Findings(), list(known)
    if not isinstance(sources, Mapping):
        findings.add(("sources",), "must be a mapping from node id to a Source", value=sources)
        findings.raise_if_any("sources")
    given = cast("Mapping[str, object]", sources)
    for node_id, source in given.items():
        if node_id not in ids:
            findings.add_unknown(("sources",), node_id, ids, what="source node")
        elif not all(callable(getattr(source, name, None)) for name in ("assignments", "open", "shutdown")):
            remedy = "for values use scripted(...) of flowruntime.testing, or rt.stream(workflow, items)"
            findings.add(("sources", node_id), "must be a Source", value=source, remedy=remedy)
    findings.raise_if_any("sources")
    return dict(given)
