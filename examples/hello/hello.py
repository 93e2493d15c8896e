"""The workflow of hello.yaml in Python: python -m examples.hello.hello."""

from __future__ import annotations

from typing import Any

from flowcore import Workflow, node
from flownodes.text.clean import clean
from flowruntime import run

PEOPLE = [
    {"name": "  Ada ", "language": "en"},
    {"name": "", "language": "en"},
    {"name": "Émilie", "language": "fr"},
]


@node("hello.named", kind="filter")
def named(person: dict[str, Any]) -> bool:
    """Lets people with a name pass."""
    return person["name"] != ""


@node("hello.greet")
def greet(name: str, language: str) -> str:
    """A greeting in that language."""
    return f"{'Bonjour' if language == 'fr' else 'Hello'} {name}"


wf = Workflow("hello")
people = wf.add("memory.source", id="people", config={"values": PEOPLE})
person = wf.add(named, id="named")
name = wf.add(clean, id="clean")
greeting = wf.add(greet, id="greet")
screen = wf.add("stdio.sink", id="screen", config={"format": "lines"})
wf.chain(people, person)
wf.connect(person["out.name"], name)
wf.connect(name, greeting["name"])
wf.connect(person["out.language"], greeting["language"])
wf.chain(greeting, screen)

if __name__ == "__main__":
    print(run(wf, name=" Grace", language="fr").captured["screen"][0])
