"""Any sequence of writing, rotating, compressing, committing and crashing: each line comes, in order, once.

After a crash reading goes on at the committed line exactly; `Follower.take` asserts it line by line.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tests.connectors.files.rotating import Follower, Log

counts = st.integers(1, 4)


class Following(RuleBasedStateMachine):
    """A log that is rotated by renaming, by copying, or both; compressed in the order logrotate does it."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory()
        self.log = Log(Path(self.folder.name))
        self.follower = Follower(self.log)
        self.late: Path | None = None

    @initialize(before=st.integers(0, 3), begun=st.integers(0, 3), exists=st.booleans())
    def begin(self, before: int, begun: int, *, exists: bool) -> None:
        """There may be rotations and lines from before the first start; the former are not its business."""
        if before:
            self.log.path.write_text("from before\n" * before)
            self.log.rename(create=False)
        if exists:
            self.log.path.touch()
        if begun and exists:
            self.log.write(begun)
        self.runner.run(self.follower.start())

    @rule(count=counts, width=st.sampled_from([0, 0, 40, 300, 5000]))
    def write(self, count: int, width: int) -> None:
        self.log.write(count, width=width)
        self.late = None

    @precondition(lambda self: self.log.path.exists())
    @rule(create=st.booleans())
    def rename(self, *, create: bool) -> None:
        self.late = self.log.rename(create=create)

    @precondition(lambda self: self.late is not None)
    @rule(count=counts)
    def write_late(self, count: int) -> None:
        """The writer has not reopened the file yet, and nobody has looked since."""
        self.log.write(count, to=self.late)

    @precondition(
        lambda self: any(path.suffix == f".{path.name.split('.')[2]}" for path in self.log.rotations())
    )
    @rule(form=st.sampled_from(["gz", "zst"]), delayed=st.booleans())
    def compress(self, form: str, *, delayed: bool) -> None:
        plain = [path for path in self.log.rotations() if len(path.name.split(".")) == 3]
        for path in plain[1 if delayed else 0 :]:
            self.log.compress(path, form)
            if path == self.late:
                self.late = None

    @precondition(lambda self: self.log.path.exists())
    @rule()
    def copy_and_truncate(self) -> None:
        self.log.copy_and_truncate()
        self.late = None

    @rule(most=st.integers(1, 6))
    def read(self, most: int) -> None:
        missing = len(self.log.lines) - self.follower.read
        wanted = min(most, missing)
        assert self.runner.run(self.follower.take(wanted)) == wanted
        self.late = None

    @rule()
    def read_all(self) -> None:
        self.read(len(self.log.lines))

    @rule()
    def commit(self) -> None:
        self.follower.commit()

    @rule()
    def crash_and_restart(self) -> None:
        self.runner.run(self.follower.restart())

    def teardown(self) -> None:
        try:
            self.log.write(1)
            if self.follower.read or self.follower.started:
                self.runner.run(self.follower.finish())
        finally:
            self.runner.run(self.follower.crash())
            self.runner.close()
            self.folder.cleanup()


TestFollowing = Following.TestCase
TestFollowing.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)
