"""YAML to plain data with the line of every path, and back: the safe part of YAML, nothing else.

Owns: what of YAML is accepted, how scalars are typed, and the limits on text, nodes, depth and aliases.
Does not own: what the data means (flowcore.document).

Always holds: no tag is followed, no key is lost, no scalar is guessed: `no`, `012`, `1:30` and dates are
texts. Whatever the bytes, the answer is data or a ValidationFailedError with file and line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import yaml
from yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    CollectionStartEvent,
    DocumentEndEvent,
    DocumentStartEvent,
    Event,
    NodeEvent,
    ScalarEvent,
    SequenceStartEvent,
    StreamEndEvent,
    StreamStartEvent,
)
from yaml.nodes import ScalarNode

from flowcore.document import Fault
from flowcore.errors import Problem, ValidationFailedError
from flowcore.findings import Mark, Path, path_text, shown
from flowcore.references import Unquoted, plain_scalar
from flowruntime.definition.parsed import Parsed

MAX_NODES: Final = 200_000
MAX_ALIASES: Final = 100
MAX_DEPTH: Final = 100

_NO_ANCHOR: Final = -1
_INSIDE_ITSELF: Final = -2
_STR_TAG: Final = "tag:yaml.org,2002:str"
_REFERENCE = re.compile(r"\$\{[^{}]*\}")
_GLUED = re.compile(r"\s*[\w.-]+:[^\s/]")
_MERGE_KEY: Final = "<<"


class _Events(yaml.CSafeLoader):
    """Used for its event stream alone: composing recurses in C and can be made to overflow the stack."""


def parse_yaml(text: str, *, file: str | None = None) -> tuple[object, dict[Path, Mark]]:
    """One YAML document as plain data, and where each path was written.

    Args:
        text: at most what `load` lets through; characters YAML forbids are refused with their line.
        file: named in marks and problems.

    Raises:
        ValidationFailedError: not YAML, several documents, a tag, a duplicate key, a key that is no text, or
            a limit exceeded (`MAX_NODES` with aliases unfolded, `MAX_ALIASES`, `MAX_DEPTH`).
    """
    parsed = read_yaml(text, file=file)
    if parsed.faults:
        raise ValidationFailedError([fault.problem for fault in parsed.faults])
    return parsed.data, parsed.marks


def read_yaml(text: str, *, file: str | None = None) -> Parsed:
    """As `parse_yaml`, but faults of one place are told with the data.

    A duplicate key leaves the first of two values, a key that is no text is what it is written as, a merge
    key and its fields are left out.

    Raises:
        ValidationFailedError: the text as a whole cannot be read: it is not YAML, or exceeds a limit.
    """
    events, targets = _scan(text, file)
    if not events:
        return Parsed(None, {(): Mark(file, 1)})
    reader = _Reader(events, targets, file)
    data, _ = reader.read((), 0)
    return Parsed(data, reader.marks, reader.faults)


def _scan(text: str, file: str | None) -> tuple[list[Event], dict[int, int]]:
    """The events of the only document, and for each alias the index of the node it stands for."""
    events: list[Event] = []
    anchors: dict[str, int] = {}
    targets: dict[int, int] = {}
    open_nodes: list[int] = []
    for event in _document(text, file):
        index = len(events)
        events.append(event)
        if isinstance(event, AliasEvent):
            targets[index] = _alias_target(event, anchors, open_nodes)
        elif isinstance(event, NodeEvent) and event.anchor:
            anchors[event.anchor] = index
        if isinstance(event, CollectionStartEvent):
            open_nodes.append(index)
        elif isinstance(event, CollectionEndEvent):
            open_nodes.pop()
        for count, limit, what in (
            (len(events), 2 * MAX_NODES, "values and brackets"),
            (len(targets), MAX_ALIASES, "aliases"),
            (len(open_nodes), MAX_DEPTH, "levels of nesting"),
        ):
            if count > limit:
                raise _refusal(
                    f"there are more than {limit} {what}", file, line=_line(event), remedy="make it smaller"
                )
    return events, targets


def _document(text: str, file: str | None) -> Iterator[Event]:
    """Events between the start and the end of the one document."""
    documents = 0
    try:
        loader = _Events(text)
        try:
            while (event := loader.get_event()) is not None:
                if isinstance(event, DocumentStartEvent):
                    documents += 1
                    if documents > 1:
                        raise _refusal(
                            "there is a second document", file, line=_line(event), remedy="use one file each"
                        )
                elif not isinstance(event, StreamStartEvent | StreamEndEvent | DocumentEndEvent):
                    yield event
        finally:
            loader.dispose()
    except yaml.YAMLError as fault:
        raise _syntax_error(fault, text, file) from fault
    except (ValueError, RecursionError) as fault:
        if isinstance(fault, ValidationFailedError):
            raise
        raise _refusal(f"cannot be read as YAML: {shown(str(fault))}", file) from fault


def _alias_target(event: AliasEvent, anchors: dict[str, int], open_nodes: list[int]) -> int:
    """The index of the node an alias stands for; one of the two marks of none when there is none."""
    index = anchors.get(event.anchor or "", _NO_ANCHOR)
    return _INSIDE_ITSELF if index in open_nodes else index


class _Reader:
    """Turns events into data; a fault of one place is noted, and what stands there is not to be trusted."""

    def __init__(self, events: list[Event], targets: dict[int, int], file: str | None) -> None:
        self.marks: Final[dict[Path, Mark]] = {}
        self.faults: Final[list[Fault]] = []
        self._events: Final = events
        self._targets: Final = targets
        self._file: Final = file
        self._nodes = 0

    def read(self, path: Path, index: int) -> tuple[object, int]:
        """The node that starts at `index`, and the index after it."""
        event = self._events[index]
        self._nodes += 1
        if self._nodes > MAX_NODES or len(path) > MAX_DEPTH:
            limit = f"{MAX_NODES} values" if self._nodes > MAX_NODES else f"{MAX_DEPTH} levels of nesting"
            message = f"there are more than {limit}, aliases unfolded"
            raise ValidationFailedError([self._problem(event, path[:6], message, "make it smaller")])
        self.marks[path] = Mark(self._file, _line(event))
        if isinstance(event, AliasEvent):
            return self._alias(event, path, index), index + 1
        self._check_tag(event, path)
        if isinstance(event, ScalarEvent):
            return self._scalar(event, path), index + 1
        if isinstance(event, SequenceStartEvent):
            return self._sequence(path, index + 1)
        return self._mapping(path, index + 1)

    def _alias(self, event: AliasEvent, path: Path, index: int) -> object:
        target = self._targets[index]
        if target == _INSIDE_ITSELF:
            message = f"the alias *{event.anchor} stands inside its own anchor"
            self._note(event, path, message, "write it out")
        elif target == _NO_ANCHOR:
            message = f"the alias *{event.anchor} has no anchor before it"
            self._note(
                event, path, message, f"add &{event.anchor}, or put a text that begins with * in quotes"
            )
        else:
            return self.read(path, target)[0]
        return None

    def _sequence(self, path: Path, index: int) -> tuple[list[object], int]:
        items: list[object] = []
        while not isinstance(self._events[index], CollectionEndEvent):
            item, index = self.read((*path, len(items)), index)
            items.append(item)
        return items, index + 1

    def _mapping(self, path: Path, index: int) -> tuple[dict[str, object], int]:
        data: dict[str, object] = {}
        while not isinstance(self._events[index], CollectionEndEvent):
            event = self._events[index]
            key = self._key(event, path, index)
            if key is None:  # noted; the whole mapping is not what it was meant to be
                after_key = self._behind(index)
                index = self._behind(after_key)
                continue
            here = (*path, key)
            if key in data:
                first = self.marks[here].line
                message = f"the key {shown(key)} is there twice (first on line {first})"
                self._note(event, here, message, "keep one of the two")
                index = self._behind(index + 1)
                continue
            data[key], index = self.read(here, index + 1)
            self.marks[here] = Mark(self._file, _line(event))
        return data, index + 1

    def _key(self, event: Event, path: Path, index: int) -> str | None:
        """The key as text; None when it is none, which is noted."""
        line = event
        if isinstance(event, AliasEvent):
            if self._targets[index] in (_NO_ANCHOR, _INSIDE_ITSELF):
                self._alias(event, path, index)
                return None
            event = self._events[self._targets[index]]
        self._check_tag(event, path)
        if not isinstance(event, ScalarEvent):
            self._note(line, path, "a key must be text, not a list or mapping", "put it in quotes")
            return None
        key = str(event.value)
        if key == _MERGE_KEY and _is_plain(event):
            self._note(line, path, "merge keys (<<) are not supported", "write the fields out")
            return None
        if _is_plain(event) and not isinstance(_plain_or_text(key), str):
            self._note(line, (*path, key), f"the key {shown(key)} is not text", f"put it in quotes: '{key}'")
        return key

    def _behind(self, index: int) -> int:
        """The index after the node that starts at `index`, which is not read."""
        depth = 0
        while True:
            event = self._events[index]
            depth += isinstance(event, CollectionStartEvent)
            depth -= isinstance(event, CollectionEndEvent)
            index += 1
            if not depth:
                return index

    def _scalar(self, event: ScalarEvent, path: Path) -> object:
        if not _is_plain(event):
            return str(event.value)
        if _REFERENCE.fullmatch(event.value):
            return Unquoted(event.value)
        return self._typed(event, path)

    def _typed(self, event: ScalarEvent, path: Path) -> object:
        try:
            return plain_scalar(event.value)
        except ValueError:
            self._note(event, path, "the number has too many digits", "put it in quotes")
            return None

    def _check_tag(self, event: Event, path: Path) -> None:
        tag = getattr(event, "tag", None)
        if tag is not None:
            self._note(event, path, f"the tag {shown(tag)} is not supported", "leave tags out")

    def _note(self, event: Event, path: Path, message: str, remedy: str) -> None:
        self.faults.append(Fault(path, self._problem(event, path, message, remedy)))

    def _problem(self, event: Event, path: Path, message: str, remedy: str) -> Problem:
        return _problem(message, self._file, line=_line(event), path=path_text(path), remedy=remedy)


class _Dumper(yaml.CSafeDumper):
    """Writes texts in quotes wherever any YAML reader, 1.1 or 1.2, might take them for something else."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def _represent_text(dumper: _Dumper, text: str) -> ScalarNode:
    ambiguous = (
        text in {"", _MERGE_KEY}
        or not isinstance(_plain_or_text(text), str)
        or str(dumper.resolve(ScalarNode, text, (True, False))) != _STR_TAG  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType] - untyped in the stubs
    )
    return _scalar(dumper, _STR_TAG, text, style='"' if ambiguous else None)


def _represent_float(dumper: _Dumper, number: float) -> ScalarNode:
    text = repr(number)
    pointed = text if "." in text or "e" not in text else text.replace("e", ".0e")
    return _scalar(dumper, "tag:yaml.org,2002:float", pointed)


def _scalar(dumper: _Dumper, tag: str, text: str, style: str | None = None) -> ScalarNode:
    return dumper.represent_scalar(tag, text, style=style)  # pyright: ignore[reportUnknownMemberType] - untyped in the stubs


_Dumper.add_representer(str, _represent_text)
_Dumper.add_representer(float, _represent_float)


def write_yaml(data: object) -> str:
    """Plain data (None, bool, int, finite float, str, list, dict) as YAML; `parse_yaml` gives it back."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, default_flow_style=None, width=110)


def _plain_or_text(text: str) -> object:
    try:
        return plain_scalar(text)
    except ValueError:
        return None


def _is_plain(event: ScalarEvent) -> bool:
    return not event.style


def _line(event: Event) -> int:
    mark = event.start_mark
    return 1 if mark is None else int(mark.line) + 1


def _syntax_error(fault: yaml.YAMLError, text: str, file: str | None) -> ValidationFailedError:
    mark: Any = getattr(fault, "problem_mark", None)
    what = str(getattr(fault, "problem", None) or str(fault).partition("\n")[0])
    context = str(getattr(fault, "context", None) or "")
    message = f"not valid YAML: {context}, {what}" if context else f"not valid YAML: {what}"
    if mark is None:
        return _refusal(message, file)
    lines = text.splitlines() or [""]
    at = min(int(mark.line), len(lines) - 1)  # an end of text too soon is noted on the line after the last
    told, remedy = _explained(what, context, lines[: at + 1], int(mark.column))
    began: Any = getattr(fault, "context_mark", None)
    if began is not None and not told and int(began.line) < at:
        message += f", begun on line {int(began.line) + 1}"
    return _refusal(f"not valid YAML: {told}" if told else message, file, line=at + 1, remedy=remedy)


def _explained(what: str, context: str, lines: list[str], column: int) -> tuple[str, str]:
    """What a message of the parser means to somebody who writes a workflow, and what to do.

    Args:
        what: the parser's message.
        context: what it was doing.
        lines: up to the one it stopped at.
        column: where on that one it stopped.
    """
    line, here = lines[-1], lines[-1][column : column + 1]
    indentation = line[: len(line) - len(line.lstrip())]
    before = next((each for each in reversed(lines[:-1]) if each.strip()), "")
    glued = "" if not _GLUED.match(before) else ", or write a blank after ':' on the line before"
    explained = (
        ("\t" in indentation or here == "\t", "a tab indents the line", "indent with spaces"),
        (
            "cannot start any token" in what,
            f"{here!r} cannot begin a text without quotes",
            "put the text in quotes",
        ),
        (
            "mapping values are not allowed" in what,
            "a text without quotes cannot hold ': '",
            f"put the text in quotes, or check the indentation{glued}",
        ),
        ("expected ':'" in what, "", "write 'name: value', and items of a list as '- item'"),
        ("document start" in what, "", "take out what stands after the end of the document"),
        ("tag" in context, "", "put a text that begins with '!' in quotes"),
        ("${" in line, "", "inside {...} or [...] put ${NAME} in quotes"),
        ("flow" in context, "", 'close the bracket, and put a text with any of :,{}[]"# in quotes'),
        ("quoted scalar" in context, "", "close the quotes"),
        ("block" in context, "", "check the indentation: what belongs together begins in the same column"),
    )
    return next(((told, remedy) for applies, told, remedy in explained if applies), ("", ""))


def _refusal(
    message: str, file: str | None, *, line: int | None = None, remedy: str = ""
) -> ValidationFailedError:
    return ValidationFailedError([_problem(message, file, line=line, remedy=remedy)])


def _problem(
    message: str, file: str | None, *, line: int | None = None, path: str = "", remedy: str = ""
) -> Problem:
    return Problem(path=path or "workflow", message=message, remedy=remedy, file=file, line=line)
