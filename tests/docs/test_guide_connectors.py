"""The connectors of the guide keep the rules the guide names: who copies them begins with a correct one."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest

from flowcore import Rows
from flowruntime.testing.conformance.sink import SinkConformance, SinkSubject
from flowruntime.testing.conformance.source import SourceConformance, SourceSubject
from tests.docs.blocks import ROOT, blocks_of

PAGE = ROOT / "docs" / "guide" / "connectors.md"


def module_of(title: str) -> ModuleType:
    """The module a block of the page is written to."""
    (text,) = [block.text for block in blocks_of(PAGE) if block.title == title]
    module = ModuleType(title.removesuffix(".py"))
    exec(compile(text, str(PAGE), "exec"), vars(module))  # noqa: S102 - the page's own code
    return module


class TestCountdown(SourceConformance):
    @pytest.fixture
    def subject(self) -> SourceSubject:
        found: Any = module_of("countdown.py")
        config = found.CountdownConfig(start=9)
        return SourceSubject(make=lambda: found.Countdown(config), rows=list(range(9, -1, -1)))


class TestTally(SinkConformance):
    @pytest.fixture
    def subject(self) -> SinkSubject:
        found: Any = module_of("tally.py")
        stored: list[object] = []

        def make() -> Any:
            sink: Any = found.Tally(found.TallyConfig(refuse=7))
            write = sink.write

            async def seen(batch: Rows[Any]) -> Any:
                failed: Any = await write(batch)
                stored.extend(value for index, value in enumerate(batch.values) if index not in failed)
                return failed

            sink.write = seen
            return sink

        return SinkSubject(make=make, stored=lambda: stored, good=[1, 2, 3], bad=[7])
