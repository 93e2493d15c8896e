"""Connections of a document: arrows and mappings read, their ends checked against the nodes there are.

Owns: the fields of a connection in a file, what is said about one that cannot be read.
Does not own: the grammar of an arrow (connection), whether ports and expressions exist (flowruntime.compile).

Always holds: every entry of the list gives one connection of the draft, in its place; one that was refused is
refused as a whole there, or in its `when` alone, and its ends are the names it was probably meant to have.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Final, cast

import msgspec

from flowcore.connection import (
    CONNECTION_KINDS,
    Connection,
    ConnectionSyntaxError,
    make_connection,
    parse_arrow,
    parse_endpoint,
)
from flowcore.draft import UNREADABLE, Draft
from flowcore.fields import FieldReader, Params
from flowcore.findings import MOST_SUGGESTED, NOTHING, Findings, Path, did_you_mean, near_words, shown
from flowcore.ids import NODE_ID_PATTERN, NodeId, node_id_fault
from flowcore.shapes import type_name

_OTHERWISE: Final = {
    "if": "when", "condition": "when", "where": "when", "otherwise": "else", "source": "from", "src": "from",
    "target": "to", "destination": "to", "dst": "to",
}  # fmt: skip
"""What others call the fields of a connection."""
SHORT_FIELDS: Final = ("from", "to", "when", "else", "when_error", "kind")
LONG_FIELDS: Final = (
    "from_node", "from_port", "from_path", "to_node", "to_port", "when", "else", "when_error", "kind",
)  # fmt: skip

_WORD = re.compile(NODE_ID_PATTERN)
_ARROW = re.compile(r"->")
_LIKE_AN_ARROW = re.compile(r"=>|-->|--|→|>>|>|- >")
_FORMS: Final = "write it as a.out -> b.text, or as {from: a.out, to: b.text, when: ...}"
_UNREAD: Final = Connection(from_node=NodeId(UNREADABLE), to_node=NodeId(UNREADABLE))


def read_connections(data: object, at: Path, draft: Draft, params: Params, read: FieldReader) -> None:
    """Read the connections of the workflow at `at` into its draft, whose nodes are there already.

    Args:
        data: the list.
        at: of the workflow; the list stands at `connections` in it.
        draft: takes them.
        params: it declares.
        read: reads fields and notes what is wrong.
    """
    here = (*at, "connections")
    if not isinstance(data, list):
        remedy = "write one per line: - a.out -> b.text"
        read.findings.add(here, f"must be a list, not {type_name(data)}", value=data, remedy=remedy)
        return
    reader = _Reader(read, draft, params, nodes_known=not read.findings.refuses((*at, "nodes")))
    for index, given in enumerate(cast("list[object]", data)):
        draft.add_connection(reader.read(given, (*here, index)))


class _Reader:
    def __init__(self, read: FieldReader, draft: Draft, params: Params, *, nodes_known: bool) -> None:
        self._read: Final = read
        self._findings: Final[Findings] = read.findings
        self._nodes: Final = draft.nodes
        self._params: Final = params
        self._nodes_known: Final = nodes_known
        self._seen: Final[set[Connection]] = set()
        self._suggested = 0

    def read(self, given: object, at: Path) -> Connection:
        """The connection, or what it was probably meant to be, refused at `at`."""
        try:
            connection = self._connection(given, at)
        except ConnectionSyntaxError as fault:
            text = given if isinstance(given, str) else str(fault.value)
            connection = self._refused(fault, text, at)
        if connection is _UNREAD:
            self._findings.refuse(at)
        elif not self._findings.refuses(at):
            self._check_ends(connection, at)
        return connection

    def _check_ends(self, connection: Connection, at: Path) -> None:
        unknown = [
            node
            for node in dict.fromkeys((connection.from_node, connection.to_node))
            if node not in self._nodes
        ]
        if unknown:
            self._findings.refuse(at)
        for node in unknown if self._nodes_known else ():
            self._suggested += 1
            near = did_you_mean(node, self._nodes) if self._suggested <= MOST_SUGGESTED else ""
            remedy = near or "name one of nodes"
            self._findings.add(at, f"connection {connection}: no node {str(node)!r}", remedy=remedy)
        if unknown:
            return
        if connection.from_node == connection.to_node:
            message = f"connection {connection} joins a node to itself; workflows have no cycles"
            self._findings.add(at, message, remedy="remove it")
        elif connection in self._seen:
            message = f"connection {connection} is already there"
            self._findings.add(at, message, remedy="leave one of the two out")
        self._seen.add(connection)

    # --- forms ----------------------------------------------------------------------------------------

    def _connection(self, given: object, at: Path) -> Connection:
        if isinstance(given, str):
            text = self._read.plain(given, at)
            if not isinstance(text, str):
                return _UNREAD
            (node, port, path), (target, target_port) = parse_arrow(text)
            return make_connection(node, port, path, target, target_port)
        if not isinstance(given, dict):
            self._findings.add(
                at, f"must be text or a mapping, not {type_name(given)}", value=given, remedy=_FORMS
            )
            return _UNREAD
        fields = cast("dict[str, object]", given)
        if any(name in fields for name in ("from_node", "to_node")):
            return self._long(self._read.mapping(fields, at, LONG_FIELDS, what="connection field"), at)
        pair = self._pair(fields)
        if pair is not None:
            remedy = f"write it as text with an arrow: {pair[0]} -> {pair[1]}"
            self._findings.add(at, "is a mapping, not a connection", value=fields, remedy=remedy)
            return self._meant(f"{pair[0]} -> {pair[1]}")
        for name in (name for name in fields if name in _OTHERWISE):
            remedy = f"it is called {_OTHERWISE[name]!r} here"
            self._findings.add_unknown(at, name, [_OTHERWISE[name]], what="connection field", remedy=remedy)
            self._findings.refuse((*at, _OTHERWISE[name]))
        known = {name: value for name, value in fields.items() if name not in _OTHERWISE}
        return self._short(self._read.mapping(known, at, SHORT_FIELDS, what="connection field"), at)

    def _short(self, fields: Mapping[str, object], at: Path) -> Connection:
        source, target = (self._end(fields, name, at) for name in ("from", "to"))
        options = self._options(fields, at)
        if not source or not target:
            self._findings.refuse(at)
            return self._meant(f"{source or ''} -> {target or ''}")
        try:
            (node, port, path), (to_node, to_port, to_path) = parse_endpoint(source), parse_endpoint(target)
        except ConnectionSyntaxError as fault:
            return self._refused(fault, f"{source} -> {target}", at)
        if to_path:
            remedy = f"write {to_node}.{to_port}"
            self._findings.add((*at, "to"), "names a field of an input", value=target, remedy=remedy)
            self._findings.refuse(at)
        return self._made(
            Connection(from_node=node, to_node=to_node, to_port=to_port), port, path, options, at
        )

    def _end(self, fields: Mapping[str, object], name: str, at: Path) -> str | None:
        if isinstance(fields.get(name), list):
            remedy = "write one connection for each"
            self._findings.add((*at, name), "must be text, not a list", value=fields[name], remedy=remedy)
            return None
        return self._read.text(fields, name, at, required=True)

    def _long(self, fields: Mapping[str, object], at: Path) -> Connection:
        source, target = (
            self._read.text(fields, name, at, required=True) for name in ("from_node", "to_node")
        )
        port, to_port = (self._read.text(fields, name, at) for name in ("from_port", "to_port"))
        options = self._options(fields, at)
        given = self._read.plain(fields.get("from_path", []), (*at, "from_path"))
        parts = cast("list[object]", given) if isinstance(given, list) else [given]
        if not isinstance(given, list) or not all(isinstance(part, str) for part in parts):
            self._findings.add((*at, "from_path"), "must be a list of field names", value=parts)
            self._findings.refuse(at)
        if not source or not target:
            self._findings.refuse(at)
            return self._meant(f"{source or ''} -> {target or ''}")
        ends = Connection(from_node=NodeId(source), to_node=NodeId(target), to_port=to_port)
        return self._made(ends, port, tuple(str(part) for part in parts), options, at)

    def _made(
        self, ends: Connection, port: str | None, path: tuple[str, ...], options: dict[str, Any], at: Path
    ) -> Connection:
        """The connection; where an option was refused, one that stands for it."""
        if any(self._findings.refuses((*at, name)) for name in ("from", "to", "kind", "else")):
            self._findings.refuse(at)
        if self._findings.refuses(at):
            return ends
        if self._findings.refuses((*at, "when")) and not options["otherwise"]:
            made = make_connection(ends.from_node, port, path, ends.to_node, ends.to_port)
            return msgspec.structs.replace(made, kind="conditional")
        return make_connection(ends.from_node, port, path, ends.to_node, ends.to_port, **options)

    def _options(self, fields: Mapping[str, object], at: Path) -> dict[str, Any]:
        when = (
            self._read.expression(fields["when"], (*at, "when"), self._params) if "when" in fields else None
        )
        if when is NOTHING:
            when = None
        if when is not None and not isinstance(when, str):
            remedy = "put the expression in quotes" if isinstance(when, bool | int | float) else ""
            self._findings.add(
                (*at, "when"), f"must be an expression, not {type_name(when)}", value=when, remedy=remedy
            )
            when = None
        kind = self._read.text(fields, "kind", at)
        if kind is not None and kind not in CONNECTION_KINDS:
            near = did_you_mean(kind, CONNECTION_KINDS)
            remedy = near if near.startswith("did you mean") else ""
            message = f"must be one of {', '.join(CONNECTION_KINDS)}"
            self._findings.add((*at, "kind"), message, value=kind, remedy=remedy)
            kind = None
        return {
            "when": when,
            "kind": kind,
            "otherwise": self._read.flag(fields, "else", at, default=False),
            "when_error": self._read.flag(fields, "when_error", at, default=True),
        }

    def _pair(self, fields: Mapping[str, object]) -> tuple[str, str] | None:
        """`src: clean`, as somebody writes who thinks of a mapping."""
        if len(fields) != 1:
            return None
        name, value = next(iter(fields.items()))
        is_node = name in self._nodes or not near_words(name, SHORT_FIELDS)
        return (name, value) if isinstance(value, str) and is_node else None

    # --- what was meant -------------------------------------------------------------------------------

    def _meant(self, text: str) -> Connection:
        """The ends a text probably names: what follows from refusing it is then not told as well."""
        left, found, right = _ARROW.sub("->", text, count=1).partition("->")
        if not found:
            left, found, right = _LIKE_AN_ARROW.sub("->", text, count=1).partition("->")
        if not found:
            words = [word for word in _WORD.findall(text) if word in self._nodes]
            left, right = (words[0], words[-1]) if len(words) > 1 else ("", words[0] if words else "")
        return Connection(from_node=self._node_of(left), to_node=self._node_of(right))

    def _node_of(self, end: str) -> NodeId:
        """The node an end names: one there is, or else its first word."""
        stripped = end.strip()
        if stripped in self._nodes:
            return NodeId(stripped)
        before, _, _ = stripped.partition(".")
        if before.strip() in self._nodes:
            return NodeId(before.strip())
        word = _WORD.search(before)
        return NodeId(word[0] if word else UNREADABLE)

    def _refused(self, fault: ConnectionSyntaxError, text: str, at: Path) -> Connection:
        meant = self._meant(text)
        malformed = (end for end in (meant.from_node, meant.to_node) if end in self._nodes)
        if not any(node_id_fault(end) for end in malformed):  # else the id of the node is what to mend
            part = fault.value != text and isinstance(fault.value, str) and fault.value in text
            message = f"{fault.message}, in {shown(text)}" if part else fault.message
            self._findings.add(at, message, remedy=_remedy(text))
        self._findings.refuse(at)
        return meant


def _remedy(text: str) -> str:
    """What a text with something like an arrow was meant to be."""
    ends = [end.strip() for end in text.split("->")]
    if len(ends) > 2 and all(ends):  # noqa: PLR2004 - a sender and a receiver
        return "write one each: " + ", ".join(f"{a} -> {b}" for a, b in pairwise(ends))
    arrow = _LIKE_AN_ARROW.search(text)
    if "->" in text and (arrow is None or arrow[0] != "-->"):
        return ""
    if arrow is None:
        return "write it like 'a.out -> b.text'"
    return f"write {text[: arrow.start()].strip()} -> {text[arrow.end() :].strip()}"
