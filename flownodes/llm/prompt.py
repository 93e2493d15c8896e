"""Prompts: templates of minijinja, rendered with what a row holds, under a bound of work and of size.

Owns: `PromptText`, the checks of a template, its version, rendering.
Does not own: messages (flowcore.llm.messages), what a node says to the model by itself.

Always holds: a template sees only what it is given, as data it cannot change: no attribute of an object, no
file, no import; a field that is not there is an error, never empty text; a text without `{{`, `{%` and `{#`
is itself and needs no package.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, Final, cast, overload

from msgspec import Meta

from flowcore.errors import ConfigError, LimitExceededError, MissingFieldError, WrongKindError
from flowcore.findings import did_you_mean, shown
from flowcore.llm.calls import Prompt
from flowcore.values import Json
from flownodes.extras import needing

if TYPE_CHECKING:
    from minijinja import Environment, TemplateError

FUEL: Final = 200_000
"""Instructions one rendering may take; some 0.1 s."""
MAX_CHARACTERS: Final = 4_000_000
"""Of a rendered prompt."""
INSTALL: Final = "uv pip install 'flowrx[llm]'"

_EXACT: Final = 1 << 127
_MARKS: Final = ("{{", "{%", "{#")
_NAME: Final = "prompt"
_WORDS: Final[Mapping[object, str]] = {None: "null", True: "true", False: "false"}
_VERSION_DIGITS: Final = 12

PromptText = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=200_000,
        description="a template (minijinja): {{ value }} is what came in, {{ name }} a field of it, "
        "{% if %}, {% for %} and filters as in Jinja",
    ),
]
"""A template as users write it."""


def is_template(text: str) -> bool:
    """Whether anything would be put in."""
    return any(mark in text for mark in _MARKS)


def check_prompt(text: str | None, field: str) -> None:
    """Refuse a template that could never be rendered.

    Raises:
        ConfigError: with the line of the template.
        MissingExtraError: it is a template, and minijinja is not installed.
    """
    if text is not None and is_template(text):
        _environment(text, field)


@lru_cache(maxsize=1_024)
def version_of(text: str) -> str:
    """The first 12 hex digits of the template's SHA-256: another text is another version."""
    return hashlib.sha256(text.encode()).hexdigest()[:_VERSION_DIGITS]


def prompt_of(name: str, text: str, version: str | None) -> Prompt:
    """What events and spans say of the template."""
    return Prompt(name=name, version=version or version_of(text))


def rendered(text: str, value: object, given: Mapping[str, Any], field: str = "prompt") -> str:
    """The text with what came in put in.

    Args:
        text: a template, or plain text, which comes back as it is.
        value: what came in: `{{ value }}`, and its fields by their names where it is an object.
        given: further variables; they win over fields of the value.
        field: what messages call the template.

    Raises:
        MissingFieldError: a variable or field is not there.
        WrongKindError: a filter or test was given what it cannot work on.
        LimitExceededError: more than `FUEL` instructions, or `MAX_CHARACTERS`.
    """
    if not is_template(text):
        return text
    environment = _environment(text, field)
    row: Any = value.parse() if isinstance(value, Json) else value
    fields: dict[str, Any] = cast("dict[str, Any]", row) if type(row) is dict else {}
    told: dict[str, Any] = {**fields, "value": row, **given}
    variables = {name: _shown_to_template(each) for name, each in told.items()}
    from minijinja import TemplateError

    try:
        prompt = environment.render_template(_NAME, **variables)
    except TemplateError as fault:
        raise _fault(fault, field, variables) from fault
    except (AttributeError, TypeError, ValueError) as fault:  # a method of a list or an object was called
        raise WrongKindError(
            f"{field}: the template calls what is not there: {fault}", field=field
        ) from fault
    if len(prompt) > MAX_CHARACTERS:
        raise LimitExceededError(
            f"{field}: the rendered text has {len(prompt):,} characters, more than {MAX_CHARACTERS:,}; "
            "put in less",
            characters=len(prompt),
            limit=MAX_CHARACTERS,
        )
    return prompt


@lru_cache(maxsize=1_024)
def _environment(text: str, field: str) -> Environment:
    with needing(("minijinja",), what=f"a template in {field}", install=INSTALL):
        from minijinja import Environment, TemplateError
    environment = Environment(
        templates={},
        undefined_behavior="strict",
        fuel=FUEL,
        pycompat=False,
        keep_trailing_newline=True,
        auto_escape_callback=lambda _: False,
        finalizer=_written,
    )
    try:
        environment.add_template(_NAME, text)
    except TemplateError as fault:
        raise ConfigError(
            f"{field}: line {fault.line} of the template: {_said(fault)}; write {{{{ name }}}} to put a "
            "field in, and {% raw %}...{% endraw %} around braces that mean themselves",
            field=field,
            line_of_template=fault.line,
        ) from fault
    return environment


class _Fields(Mapping[str, Any]):
    """An object of a row as templates see it."""

    __slots__ = ("_of",)

    def __init__(self, of: dict[str, Any]) -> None:
        self._of = of

    def __getitem__(self, name: str) -> Any:
        return _shown_to_template(self._of[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._of)

    def __len__(self) -> int:
        return len(self._of)

    def __str__(self) -> str:
        return Json.of(self._of).raw.decode()


class _Items(Sequence[Any]):
    """A list of a row as templates see it."""

    __slots__ = ("_of",)

    def __init__(self, of: list[Any]) -> None:
        self._of = of

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> _Items: ...
    def __getitem__(self, index: int | slice) -> Any:
        return _shown_to_template(self._of[index])

    def __len__(self) -> int:
        return len(self._of)

    def __str__(self) -> str:
        return Json.of(self._of).raw.decode()


def _shown_to_template(value: object) -> Any:
    """A value in a form a template can read and not change, and no number that would be rounded."""
    if isinstance(value, Json):
        value = value.parse()
    if type(value) is dict:
        return _Fields(cast("dict[str, Any]", value))
    if type(value) is list:
        return _Items(cast("list[Any]", value))
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if type(value) is int and not -_EXACT <= value < _EXACT:
        return str(value)
    return value


def _written(value: object) -> object:
    """What is put in, as JSON writes it."""
    if value is None or value is True or value is False:
        return _WORDS[value]
    return Json.of(value).raw.decode() if type(value) in (list, dict) else value


def _said(fault: TemplateError) -> str:
    said = str(fault.detail or fault.message or fault.kind)
    return said.partition(" (in ")[0]


def _fault(fault: TemplateError, field: str, variables: Mapping[str, Any]) -> Exception:
    where = f"{field}: line {fault.line} of the template: {_said(fault)}"
    if fault.kind == "OutOfFuel":
        return LimitExceededError(
            f"{where}: more than {FUEL:,} instructions; let a node before it prepare the value", limit=FUEL
        )
    if fault.kind == "UndefinedError":
        hint = did_you_mean(_said(fault).partition("`")[2].partition("`")[0], list(variables))
        known = f"there are {', '.join(map(shown, list(variables)[:20]))}"
        return MissingFieldError(
            f"{where}; {hint or known} (what may be missing: {{{{ name | default('') }}}})", field=field
        )
    return WrongKindError(where, expected="what the template does with it", field=field)
