"""The searcher: many payloads, each made from a number, given to one subject; what it may do is narrow.

Owns: `Subject`, `search`, `in_own_process`, the seed, and the last line of each long test.
Does not own: what is searched (codecs, documents, expressions), how payloads are changed (mutation).

Always holds: a payload is made from seed, subject and number alone, so that what was found is made again by
`python -m tests.fuzz.harness SUBJECT SEED NUMBER 1`. Found is every exception but the subject's own, every
payload that takes more than `most_cpu_s` of the processor, and, in a process of its own, a crash of the
process.
"""

from __future__ import annotations

import faulthandler
import importlib
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import traceback
import zlib
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Final, NamedTuple

import msgspec

ROOT: Final = Path(__file__).resolve().parents[2]
_NUMBER_BYTES: Final = 8


class Found(AssertionError):  # noqa: N818 - what the search is for
    """A payload the subject does not bear."""


class TooSlow(BaseException):
    """The time of one payload is over."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is searched."""

    name: str
    """`module:name`, by which a process of its own finds it among the `SUBJECTS` of that module."""
    payload: Callable[[random.Random], Any]
    check: Callable[[Any], bool]
    """True: taken; False: refused with the subject's own error. Anything raised is what we look for."""
    most_cpu_s: float = 5.0
    """Of the processor, for one payload: a bound against hangs, no claim of speed."""


class Figures(msgspec.Struct):
    """What one search came to."""

    ran: int = 0
    taken: int = 0
    cpu_s: float = 0.0
    peak_mib: int = 0


class Place(NamedTuple):
    """Which payload: what makes it again."""

    subject: str
    seed: int
    number: int

    def __str__(self) -> str:
        return f"python -m tests.fuzz.harness {self.subject} {self.seed} {self.number} 1"


def seed_of_run() -> int:
    """FLOW_TEST_SEED, or a new one."""
    return int(os.environ.get("FLOW_TEST_SEED", random.SystemRandom().randrange(1 << 32)))


def search(
    subject: Subject, seed: int, numbers: Iterable[int], note: Callable[[int], None] | None = None
) -> Figures:
    """Give the subject the payloads of these numbers.

    Args:
        subject: searched.
        seed: of the whole run.
        numbers: of payloads.
        note: told each number before its payload is made.

    Raises:
        Found: with the payload, and what makes it again.
    """
    figures = Figures()
    chance = random.Random()
    base = (seed << 32 | zlib.crc32(subject.name.encode())) << 40
    with _time_limit(subject.most_cpu_s) as begin:
        for number in numbers:
            if note is not None:
                note(number)
            chance.seed(base + number)
            payload: Any = None
            begin()
            try:
                payload = subject.payload(chance)
                figures.taken += subject.check(payload)
            except (Exception, TooSlow) as error:  # noqa: BLE001 - what is looked for
                what = "".join(traceback.format_exception(error)[-12:])
                head = f"{Place(subject.name, seed, number)}\n{repr(payload)[:3_000]}\n{type(error).__name__}"
                raise Found(f"{head}\n{what[-6_000:]}") from None
            figures.ran += 1
    usage = resource.getrusage(resource.RUSAGE_SELF)
    figures.cpu_s = usage.ru_utime + usage.ru_stime
    figures.peak_mib = _peak_kib(usage.ru_maxrss) // 1024
    return figures


def _peak_kib(otherwise: int) -> int:
    """Of this process alone: what `getrusage` tells begins with the size of the process that started it."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1])
    return otherwise


@contextmanager
def _time_limit(most_s: float) -> Generator[Callable[[], object]]:
    """A function that begins the time of the next payload."""

    def over(_: int, __: FrameType | None) -> None:
        raise TooSlow(f"more than {most_s} s of the processor for one payload")

    before = signal.signal(signal.SIGVTALRM, over)
    try:
        yield lambda: signal.setitimer(signal.ITIMER_VIRTUAL, most_s)
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


# --- in a process of its own ------------------------------------------------------------------------------


def in_own_process(
    subjects: Sequence[Subject], seed: int, count: int, *, first: int = 0, timeout_s: float = 900
) -> Figures:
    """The same in another process, whose memory is this search's, and whose crash is told like a find.

    Args:
        subjects: searched one after the other, each of the `SUBJECTS` of its module.
        seed: of the whole run.
        count: of payloads of each.
        first: number of the first one.
        timeout_s: after which a process that hangs where no signal reaches it is ended.

    Raises:
        Found: as `search`, or the process died.
    """
    names = ",".join(subject.name for subject in subjects)
    with tempfile.NamedTemporaryFile() as noted:
        command = [sys.executable, "-m", "tests.fuzz.harness", names, str(seed), str(first), str(count)]
        try:
            ended = subprocess.run(
                [*command, noted.name],
                cwd=ROOT,
                capture_output=True,
                text=True,
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired as over:
            raise Found(f"{_noted(noted.name, subjects, seed)}\nno end within {timeout_s} s") from over
        if ended.returncode:
            place = _noted(noted.name, subjects, seed)
            raise Found(f"{place}\nthe process ended with {ended.returncode}\n{ended.stderr[-6_000:]}")
        return msgspec.json.decode(ended.stdout.splitlines()[-1], type=Figures)


def _noted(file: str, subjects: Sequence[Subject], seed: int) -> Place:
    kept = int.from_bytes(Path(file).read_bytes() or b"\0", "little")
    return Place(subjects[kept >> 32].name, seed, kept & 0xFFFFFFFF)


def last_line(seed: int, figures: Figures, *, subjects: int = 1) -> None:
    """What every long test ends with."""
    print(  # noqa: T201 - said to who reads the log
        f"seed {seed}: {figures.ran} payloads of {subjects} subjects, {figures.taken} taken, 0 found, "
        f"bound 3/n = {3 / figures.ran:.1e}, {figures.cpu_s:.0f} s of the processor, "
        f"{figures.peak_mib} MiB at most"
    )


def subject_named(name: str) -> Subject:
    """The subject `module:name`."""
    module = importlib.import_module(name.partition(":")[0])
    return next(subject for subject in module.SUBJECTS if subject.name == name)


def main(names: str, seed: str, first: str, count: str, noted: str = os.devnull) -> None:
    """Search subjects, names joined by commas; the number of each payload is written to the file `noted`."""
    faulthandler.enable()
    file = os.open(noted, os.O_WRONLY)
    figures = Figures()
    for index, name in enumerate(names.split(",")):
        base = index << 32

        def note(number: int, base: int = base) -> None:
            os.pwrite(file, (base | number).to_bytes(_NUMBER_BYTES, "little"), 0)

        numbers = range(int(first), int(first) + int(count))
        found = search(subject_named(name), int(seed), numbers, note)
        figures = Figures(figures.ran + found.ran, figures.taken + found.taken, found.cpu_s, found.peak_mib)
    print(msgspec.json.encode(figures).decode())  # noqa: T201 - read by `in_own_process`


if __name__ == "__main__":
    importlib.import_module("tests.fuzz.harness").main(*sys.argv[1:])  # under the name that subjects know
