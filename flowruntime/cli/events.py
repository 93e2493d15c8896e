"""flow events: a recorded events file, for people or for programs."""

from __future__ import annotations

from typing import Literal

from flowcore.events import KINDS, ExecutionEvent, Gap
from flowcore.findings import did_you_mean
from flowruntime.cli.eventlines import json_line, pretty_line
from flowruntime.cli.failures import UsageError
from flowruntime.cli.parsing import Texts
from flowruntime.cli.streams import print_json
from flowruntime.events.record import RecordingReader


def events(
    file: str,
    /,
    *,
    kind: Texts = None,
    node: Texts = None,
    format: Literal["pretty", "jsonl"] = "pretty",
) -> int:
    """Show the events of a recording (`flow run --record FILE`), in order.

    A recording that was cut short is shown as far as it goes; the exit code is then 1.

    Args:
        file: the recording.
        kind: only events of this kind, such as NodeFailed; repeat for more.
        node: only events about this node or stage; repeat for more.
        format: pretty for people, jsonl for programs.
    """
    kinds = _kinds(kind or ())
    for event in RecordingReader(file):
        if not _wanted(event, kinds, node or ()):
            continue
        if format == "jsonl":
            print_json(json_line(event))
        else:
            print(pretty_line(event))
    return 0


def _kinds(names: list[str] | tuple[()]) -> frozenset[str]:
    known = [kind.__name__ for kind in KINDS]
    for name in names:
        if name not in known:
            raise UsageError(f"--kind {name!r} is no kind of event; {did_you_mean(name, known)}")
    return frozenset(names)


def _wanted(event: ExecutionEvent | Gap, kinds: frozenset[str], nodes: list[str] | tuple[()]) -> bool:
    if isinstance(event, Gap):  # whatever is asked for may be among what is missing
        return True
    return (not kinds or type(event).__name__ in kinds) and (not nodes or event.subject in nodes)
