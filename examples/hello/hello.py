"""The workflow of hello.yaml in Python: python -m examples.hello.hello."""

from __future__ import annotations

from flowcore import Workflow, node
from flowruntime import run

PEOPLE = [
    {"name": "Ada", "language": "en"},
    {"name": "", "language": "en"},
    {"name": "Émilie", "language": "fr"},
]


@node("hello.named", kind="filter")
def named(person: dict[str, str]) -> bool:
    """Lets those pass who have a name."""
    return person["name"] != ""


@node("hello.greet")
def greet(person: dict[str, str]) -> str:
    """A greeting in the person's language."""
    return f"Bonjour {person['name']} !" if person["language"] == "fr" else f"Hello {person['name']}!"


workflow = Workflow("hello")
workflow.chain(
    workflow.add("memory.source", id="people", config={"values": PEOPLE}),
    workflow.add(named),
    workflow.add(greet),
    workflow.add("stdio.sink", id="screen", config={"format": "lines"}),
)

if __name__ == "__main__":
    print(run(workflow, name="Grace", language="en").captured["screen"][0])
