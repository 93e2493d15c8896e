"""text.clean: text as a person would compare it, without the accidents of where it came from."""

from __future__ import annotations

import re
import unicodedata
from typing import Annotated, Literal

from msgspec import Meta

from flowcore.node import node
from flownodes.fields import wrong_kind

_CONTROLS = re.compile(
    r"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f"  # tabs, line ends and separators are white space, not controls
    r"\N{SOFT HYPHEN}\N{ZERO WIDTH SPACE}\N{WORD JOINER}\N{ZERO WIDTH NO-BREAK SPACE}]"
)


@node("text.clean", deterministic=True)
def clean(
    text: str,
    *,
    unicode: Annotated[
        Literal["NFC", "NFKC", "keep"],
        Meta(description="NFC: one form for equal characters; NFKC: full-width, ligatures and the like too"),
    ] = "NFC",
    controls: Annotated[bool, Meta(description="take out control and invisible characters")] = True,
    whitespace: Annotated[
        Literal["collapse", "lines", "keep"],
        Meta(description="collapse: each run is one blank; lines: the same, but line breaks stay"),
    ] = "collapse",
    lower: Annotated[bool, Meta(description="lower case")] = False,
) -> str:
    """The text with one form for equal characters, none invisible, one blank between words, none at the ends.

    Cleaning twice changes nothing more.

    Emits when      always; a text of blanks becomes the empty text.
    Drops           nothing.
    Fails when      the value is no text.
    Cost            O(characters).
    """
    if not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance] - what a connection brings is not checked
        raise wrong_kind(
            text, "text", "text.clean", "put transform.coerce before it, or connect a field: node.out.text"
        )
    if controls:
        text = _CONTROLS.sub("", text)
    if unicode != "keep":
        text = unicodedata.normalize(unicode, text)
    if lower:
        # After the form: a mathematical letter has no lower case, the letter it stands for has. And the form
        # again, because lower case may need it.
        text = text.lower()
        text = unicodedata.normalize(unicode, text) if unicode != "keep" else text
    if whitespace == "collapse":
        return " ".join(text.split())
    if whitespace == "lines":
        return "\n".join(" ".join(line.split()) for line in text.splitlines()).strip("\n")
    return text
