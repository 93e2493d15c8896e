"""What models are asked in the LLM benchmarks, and what the loopback server answers.

Owns: the six scenarios, the prompts, the rule of an answer, the expected results.
Does not own: how an engine runs them (benchmarks.ours, benchmarks.peers), the server (benchmarks.loopback).

Always holds: standard library only, no randomness, no clock: the server and every contender get the same.

A prompt is the answers of the parents and then the instruction, parted by blank lines: the form GraphBit's
engine makes by itself, taken for all. An answer is a hash of all parts, so that one that is right shows that
the whole prompt arrived and that every parent had been asked before; the order of the parents' answers is no
part of it, because GraphBit's order is that of completion.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

NAME = re.compile(r"node=(\w+) ")
PARTING = "\n\n"
WORDS = "weigh cost against gain, name the risks and say in one sentence what you would do first and why; "

INSTRUCTION_CHARACTERS = 400
LARGE_CHARACTERS = 20 * 1024


@dataclass(frozen=True)
class Scenario:
    """Calls of models and which of them need the answers of which others."""

    parents: Mapping[str, tuple[str, ...]]
    """By node, in topological order."""
    characters: int = INSTRUCTION_CHARACTERS
    """Of each instruction."""
    separate: bool = False
    """Each call is a request of its own, all of them at once; else the nodes are one workflow."""

    @property
    def levels(self) -> int:
        """Calls on the longest path."""
        depths: dict[str, int] = {}
        for node, parents in self.parents.items():
            depths[node] = 1 + max((depths[parent] for parent in parents), default=0)
        return max(depths.values())


def _independent(names: Iterable[str]) -> Mapping[str, tuple[str, ...]]:
    return dict.fromkeys(names, ())


SCENARIOS: Mapping[str, Scenario] = {
    "one": Scenario(_independent(["task"])),
    "chain": Scenario({"first": (), "second": ("first",), "third": ("second",), "fourth": ("third",)}),
    "parallel": Scenario(_independent(["north", "east", "south", "west"])),
    "graph": Scenario(
        {
            "content": (),
            "solution": ("content",),
            "cost": ("solution",),
            "risk": ("solution",),
            "recommendation": ("cost", "risk"),
        }
    ),
    "large": Scenario(_independent(["document"]), characters=LARGE_CHARACTERS),
    "independent": Scenario(_independent(f"task{number}" for number in range(10)), separate=True),
}
"""The six GraphBit measures itself by."""


def instruction(name: str, characters: int = INSTRUCTION_CHARACTERS) -> str:
    """What a node asks beside the answers of its parents; `name` is of letters, digits and underscores."""
    head = f"node={name} "
    return (head + WORDS * (characters // len(WORDS) + 1))[:characters]


def instructions(scenario: str) -> dict[str, str]:
    """Of every node of a scenario, by name."""
    plan = SCENARIOS[scenario]
    return {name: instruction(name, plan.characters) for name in plan.parents}


def prompt(answers: Iterable[str], told: str) -> str:
    """The whole prompt of a node."""
    return PARTING.join([*answers, told])


def name_of(asked: str) -> str:
    """The node whose instruction is in a prompt, `unnamed` where there is none."""
    found = NAME.search(asked)
    return found[1] if found else "unnamed"


def reply(asked: str) -> str:
    """What the server answers: the node's name and a hash (SHA-256, 16 hex digits) of the parts, sorted."""
    parts = PARTING.join(sorted(asked.split(PARTING)))
    return f"{name_of(asked)} says {hashlib.sha256(parts.encode()).hexdigest()[:16]}"


def answers(scenario: str) -> dict[str, str]:
    """What every node of a scenario must answer."""
    told = instructions(scenario)
    found: dict[str, str] = {}
    for name, parents in SCENARIOS[scenario].parents.items():
        found[name] = reply(prompt([found[parent] for parent in parents], told[name]))
    return found


def scenario_result(scenario: str, times: int, **_: object) -> list[dict[str, str]]:
    """What running a scenario `times` times, one after the other, must give."""
    return [answers(scenario)] * times


def many(calls: int) -> list[str]:
    """`calls` different prompts."""
    return [instruction(f"c{number}") for number in range(calls)]


def many_result(calls: int, **_: object) -> list[str]:
    """What they must be answered, in order."""
    return [reply(asked) for asked in many(calls)]


def many_sorted(calls: int, **_: object) -> list[str]:
    """`many_result` for a peer that loses the order of its prompts."""
    return sorted(many_result(calls))
