"""The examples of docs/testing.md run as written."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[3] / "docs"


def test_the_examples_of_the_page_on_testing_run() -> None:
    text = (DOCS / "testing.md").read_text()
    blocks = [
        (match.start(2), match.group(2))
        for match in re.finditer(r"(<!--[^\n]*-->\n)?```python\n(.*?)```", text, re.DOTALL)
        if match.group(1) is None
    ]
    assert len(blocks) >= 5
    names: dict[str, Any] = {"__name__": "docs_testing"}
    for start, block in blocks:
        line = text.count("\n", 0, start)
        code = compile("\n" * line + block, str(DOCS / "testing.md"), "exec", dont_inherit=True)
        exec(code, names)  # noqa: S102 - our own page


def test_what_the_page_names_is_exported() -> None:
    import flowruntime.testing as toolkit

    text = (DOCS / "testing.md").read_text()
    for name in (
        "run_workflow",
        "run_virtual",
        "scripted",
        "collected",
        "assert_marbles",
        "StandaloneNodeContext",
    ):
        assert name in text
        assert name in toolkit.__all__
    for folder, mixin in re.findall(r"`(\w+Conformance)` \| `\.(\w+)`", text):
        module = DOCS.parent / "flowruntime" / "testing" / "conformance" / f"{mixin}.py"
        assert f"class {folder}" in module.read_text()
