"""Where a record may go through the workflow again, and where it cannot be taken back.

Owns: the rules for `on_error: retry_workflow`.
Does not own: reading it (flowcore.on_error), further attempts (flowruntime.execute.attempts).

Pure: definitions and policies in, findings out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from flowcore.on_error import RetryWorkflow

if TYPE_CHECKING:
    from flowruntime.compile.inline import Flat
    from flowruntime.compile.resolved import ResolvedNode


def check_attempts(flat: Flat, nodes: Mapping[str, ResolvedNode]) -> None:
    """Note retries of the workflow in one that keeps rows of several records together, and at sources."""
    keeping = next((node for node in nodes.values() if node.role in ("batch", "operator")), None)
    told = False
    for node in nodes.values():
        flat_node = flat.nodes[node.id]
        said = flat_node.spec.policies.on_error
        if node.role == "source" and isinstance(said, RetryWorkflow):
            flat_node.origin.findings.add(
                (*flat_node.path, "on_error"),
                "a record the source could not read never went through the workflow",
                remedy="say continue or dead_letter here",
            )
        elif node.attempts > 1 and keeping is not None and not told:
            told = not isinstance(said, RetryWorkflow)
            findings = flat.origins[0].findings if told else flat_node.origin.findings
            findings.add(
                ("settings", "on_error") if told else (*flat_node.path, "on_error"),
                f"{keeping.id!r} ({keeping.definition.type}) keeps rows of several records together, and one "
                "of them cannot be taken back to go through the workflow again",
                remedy="retry at the node, or say dead_letter and redrive",
            )
