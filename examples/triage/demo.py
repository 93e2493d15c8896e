"""The demo: every query of test.csv through triage.yaml, as one continuous stream.

    make demo                               # or: python -m examples.triage.demo
    python -m examples.triage.demo --limit 60 --out somewhere/new

Owns: a fresh folder, watching the run, checking what was written, the closing summary.
Does not own: the workflow (triage.yaml), measuring and drawing progress (flowruntime).

Always holds: the summary is counted from the files that were written, not from what the engine says of them;
it is written, and the exit code is 0, only when every query read is in exactly one of the three files and as
many intents are right as promised. Exit: 1 something failed or is wrong, 2 usage, 130 interrupted.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import json
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from flowcore.workflow import Workflow
    from flowruntime.cli.display import Display
    from flowruntime.execute.result import RunResult
    from flowruntime.runtime import FlowRuntime

STARTED: Final = time.monotonic()
HERE: Final = Path(__file__).resolve().parent
QUERIES: Final = HERE / "data" / "banking77" / "test.csv"
QUEUES: Final = ("alerts", "review", "triaged")
ACCURACY: Final = 0.91
"""At least this share of all queries must get the intent they are labelled with."""

FAILED: Final = 1
USAGE: Final = 2
INTERRUPTED: Final = 130

_LOOK_EVERY_S: Final = 0.02
_LINE_EVERY_S: Final = 1.0
_SHOWN_ALERTS: Final = 3
"""Where nothing scrolls, of the alerts of a second."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.triage.demo", description="Triage 3,080 bank queries as a stream."
    )
    parser.add_argument("--out", type=Path, help="new folder for the results (default: out/<time> beside it)")
    parser.add_argument("--limit", type=_count, help="take only the first queries")
    options = parser.parse_args(arguments)
    out: Path = options.out or HERE / "out" / datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    try:
        out.mkdir(parents=True)
    except OSError as error:
        print(f"demo: cannot make {str(out)!r}: {error.strerror}; name a new folder: --out", file=sys.stderr)
        return USAGE
    return asyncio.run(_demo(out, options.limit))


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError(f"at least 1, got {count}")
    return count


async def _demo(out: Path, limit: int | None) -> int:
    from flowruntime.cli.summary import stream_summary
    from flowruntime.telemetry.logs import configure_logging

    configure_logging("console")
    replay = Replay(out, limit)
    result = await replay.run()
    written = Written.of(out)
    expected = _queries()[:limit]
    faults = list(_faults(result, written, expected))
    summary = written.summary(replay.seconds, replay.first_record_s)
    if not faults:
        (out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
        print(_table(summary, out))
        return 0
    print(stream_summary(result), file=sys.stderr)
    if replay.interrupted:
        print(f"demo: interrupted after {len(written.records):,} queries; see {out}", file=sys.stderr)
        return INTERRUPTED
    for fault in faults:
        print(f"demo: WRONG: {fault}", file=sys.stderr)
    return FAILED


class Replay:
    """One run of the workflow over the queries, watched.

    Args:
        out: an empty folder.
        limit: take only the first queries; None: all.
    """

    def __init__(self, out: Path, limit: int | None) -> None:
        self.seconds = 0.0
        """From the start of the stream, the model not yet loaded, to the last query written."""
        self.first_record_s: float | None = None
        """From the start of this process to the first query written."""
        self.interrupted = False
        self._out = out
        self._limit = limit

    async def run(self) -> RunResult:
        """Until every query is written, or something failed."""
        from flowruntime import FlowRuntime, load_workflow

        params = {"home": str(HERE), "out": str(self._out)}
        workflow = load_workflow(HERE / "triage.yaml", params=params)
        async with FlowRuntime(state_dir=None) as runtime:
            display = _display(runtime, workflow)
            watch = Watch(self._out, display)
            watcher = asyncio.create_task(watch.follow())
            try:
                return await self._stream(runtime, workflow)
            finally:
                watcher.cancel()
                await asyncio.gather(watcher, return_exceptions=True)
                watch.look(last=True)
                self.first_record_s = watch.first_record_s
                await display.stop()

    async def _stream(self, runtime: FlowRuntime, workflow: Workflow) -> RunResult:
        from flowruntime.cli.signals import Interrupts

        began = time.monotonic()
        run = await runtime.start(workflow, limit=self._limit)
        async with Interrupts(drain=run.stop, abort=run.cancel) as interrupts:
            result = await run.wait()
        self.seconds = time.monotonic() - began
        self.interrupted = interrupts.count > 0
        return result


class Watch:
    """Sees the first record come, and shows alerts as they are written."""

    def __init__(self, out: Path, display: Display) -> None:
        self.first_record_s: float | None = None
        """From the start of this process."""
        self._out = out
        self._display = display
        self._alerts = Tail(out / "alerts.jsonl")
        self._fresh: list[str] = []
        self._said = time.monotonic()

    async def follow(self) -> None:
        """Until cancelled."""
        while True:
            self.look()
            await asyncio.sleep(_LOOK_EVERY_S)

    def look(self, *, last: bool = False) -> None:
        """See what has been written since the last look."""
        now = time.monotonic()
        if self.first_record_s is None and any(_size(self._out, queue) for queue in QUEUES):
            self.first_record_s = now - STARTED
        self._fresh += self._alerts.new_lines()
        if self._fresh and (last or self._display.live or now - self._said >= _LINE_EVERY_S):
            _say(self._display, self._fresh)
            self._fresh, self._said = [], now


def _display(runtime: FlowRuntime, workflow: Workflow) -> Display:
    from flowruntime.cli.display import Display
    from flowruntime.cli.progress import Progress

    sources = [name for name, node in workflow.nodes.items() if node.type == "files.source"]
    return Display(runtime.events, Progress(sources, QUEUES), every_s=_LINE_EVERY_S)


def _say(display: Display, lines: list[str]) -> None:
    shown = lines if display.live else lines[-_SHOWN_ALERTS:]
    texts = [
        f"ALERT  {alert['intent']}  {alert['confidence']:.2f}  {alert['text']}"
        for alert in map(json.loads, shown)
    ]
    if len(shown) < len(lines):
        texts.append(f"ALERT  and {len(lines) - len(shown)} more")
    display.say("\n".join(texts))


def _size(out: Path, queue: str) -> int:
    try:
        return (out / f"{queue}.jsonl").stat().st_size
    except FileNotFoundError:
        return 0


class Tail:
    """The whole lines a growing file has got since last asked."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = 0

    def new_lines(self) -> list[str]:
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            file.seek(self._read)
            fresh = file.read()
        whole = fresh[: fresh.rfind(b"\n") + 1]
        self._read += len(whole)
        return whole.decode().splitlines()


# --- what was written ---------------------------------------------------------------------------------


class Written:
    """The records of the three files, read back."""

    def __init__(self, queues: dict[str, list[dict[str, Any]]]) -> None:
        self.queues = queues
        self.records = [record for records in queues.values() for record in records]

    @classmethod
    def of(cls, out: Path) -> Written:
        """Read the files of a run; one that is missing holds nothing."""
        found: dict[str, list[dict[str, Any]]] = {}
        for queue in QUEUES:
            path = out / f"{queue}.jsonl"
            lines = path.read_text(encoding="utf-8").split("\n") if path.exists() else [""]
            found[queue] = [json.loads(line) for line in lines[:-1]]
            if lines[-1]:
                raise ValueError(f"{path} ends with half a line: {lines[-1]!r}")
        return cls(found)

    @property
    def accuracy(self) -> float:
        """The share of records whose intent is the label."""
        right = sum(record["intent"] == record["label"] for record in self.records)
        return right / max(1, len(self.records))

    def summary(self, seconds: float, first_record_s: float | None) -> dict[str, Any]:
        count = len(self.records)
        return {
            "records": count,
            "accuracy": round(self.accuracy, 4),
            **{queue: len(records) for queue, records in self.queues.items()},
            "seconds": round(seconds, 3),
            "records_per_s": round(count / seconds, 1) if seconds else None,
            "first_record_s": None if first_record_s is None else round(first_record_s, 3),
        }


def _queries() -> list[str]:
    """The labels of test.csv, in order."""
    with QUERIES.open(encoding="utf-8", newline="") as file:
        return [row["category"] for row in csv.DictReader(file)]


def _faults(result: RunResult, written: Written, expected: Sequence[str]) -> Iterator[str]:
    """Everything that is not as promised."""
    if not result.ok:
        yield f"the run ended {result.state.name}: {result.cause or 'see the errors above'}"
        return
    counted = {queue: len(records) for queue, records in written.queues.items()}
    total = " + ".join(f"{count:,} {queue}" for queue, count in counted.items())
    if not len(expected) == result.records == sum(counted.values()):
        yield f"{len(expected):,} queries, {result.records:,} records settled, written {total}"
    # Lines of test.csv name the queries: each once, in its own file, with its own label.
    found = sorted((record["source"]["line"], record["label"]) for record in written.records)
    if len({line for line, _ in found}) != len(found):
        yield "a query was written twice"
    if [label for _, label in found] != list(expected):
        yield "the labels written are not those of the queries read"
    if len(expected) == len(_queries()) and written.accuracy < ACCURACY:
        yield f"accuracy {written.accuracy:.4f} is below {ACCURACY}"


def _table(summary: dict[str, Any], out: Path) -> str:
    from flowruntime.cli.tables import table

    rows: list[Sequence[str]] = [
        ["records", f"{summary['records']:,}", "= alerts + review + triaged"],
        ["alerts", f"{summary['alerts']:,}", "urgent intents"],
        ["review", f"{summary['review']:,}", "confidence below 0.6"],
        ["triaged", f"{summary['triaged']:,}", "the rest"],
        ["accuracy", f"{summary['accuracy']:.2%}", "intent = label, over all records"],
        ["first record", f"{summary['first_record_s']:.2f} s", "after the start of the process"],
        ["stream", f"{summary['seconds']:.2f} s", "loading the model included"],
        ["rate", f"{summary['records_per_s']:,.0f}/s", ""],
    ]
    return f"{table(rows, numbers={1})}\n\nwritten to {out}"


if __name__ == "__main__":
    sys.exit(main())
