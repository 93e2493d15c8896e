"""control.wait_for: a person, or another system, decides."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType

from flowcore.context import NodeContext
from flowcore.definition import Port
from flowcore.node import Node, Outputs
from flowcore.waits import OnTimeout, WaitKind, WaitRequest, check_request, is_approved
from flownodes.text.template import TemplateText, filled

_VALUE = Port(name="value", required=False)
_ORIGINAL = Port(name="original", required=False)
_APPROVED = Port(name="approved", required=False)
_REJECTED = Port(name="rejected", required=False)


class WaitForConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Configuration of control.wait_for."""

    kind: Annotated[
        WaitKind,
        Meta(description="approval: yes or no; form: data; signal: that something happened"),
    ] = "approval"
    title: Annotated[
        TemplateText | None,
        Meta(description="what is asked; {field.path} puts a field of the value in"),
    ] = None
    schema: Annotated[dict[str, Any] | None, Meta(description="JSON Schema of the answer; left out: any")] = (
        None
    )
    timeout: Annotated[
        timedelta | None, Meta(description="how long to wait; left out: until there is an answer")
    ] = None
    on_timeout: Annotated[
        OnTimeout, Meta(description="fail the row, take `default` for the answer, or cancel the execution")
    ] = "fail"
    default: Annotated[Any, Meta(description="the answer when time is up and on_timeout is answer")] = None

    def __post_init__(self) -> None:
        check_request(self.request(""), "control.wait_for")

    def request(self, title: str) -> WaitRequest:
        """What is asked for one row."""
        return WaitRequest(
            kind=self.kind,
            title=title,
            schema=self.schema,
            timeout=self.timeout,
            on_timeout=self.on_timeout,
            default=self.default,
        )


class WaitForIn(Struct, frozen=True):
    """Input ports."""

    value: Any


class WaitForOut(Outputs):
    """Output ports."""

    value: Any | UnsetType = UNSET
    original: Any | UnsetType = UNSET
    approved: Any | UnsetType = UNSET
    rejected: Any | UnsetType = UNSET


class WaitFor(Node[WaitForConfig, WaitForIn, WaitForOut], type="control.wait_for", waits=True):
    """Waits for an answer, however long that takes: the request, or the row of a run, is stored until then.

    Port `value` gives the answer, `original` the value as it came in. Of an approval (the answer is true or
    false, or an object that says so in `approved`) there are `approved` and `rejected`, too: one of them
    gives the value as it came in. Answer with `flow resume ID --input JSON`, or `runtime.resume(id, answer)`.

    Emits when      there is an answer, or time is up and `on_timeout` is `answer`.
    Drops           nothing: a port that is not connected counts the row as unrouted.
    Fails when      time is up and `on_timeout` is `fail`, or a field of the title is missing.
    Holds           nothing: what waits is in the store.
    """

    @classmethod
    def outputs_for(cls, config: Mapping[str, Any]) -> tuple[Port, ...]:
        if config.get("kind", "approval") == "approval":
            return (_VALUE, _ORIGINAL, _APPROVED, _REJECTED)
        return (_VALUE, _ORIGINAL)

    async def execute(self, inputs: WaitForIn, ctx: NodeContext) -> WaitForOut:
        value, title = inputs.value, self.config.title
        answer = await ctx.wait(self.config.request("" if title is None else filled(title, value)))
        if self.config.kind != "approval":
            return WaitForOut(value=answer, original=value)
        if is_approved(answer):
            return WaitForOut(value=answer, original=value, approved=value)
        return WaitForOut(value=answer, original=value, rejected=value)
