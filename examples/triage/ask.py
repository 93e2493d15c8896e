"""Ask the triage workflow one thing: python examples/triage/ask.py my card was stolen."""

import sys
from pathlib import Path

from flowruntime import load_workflow, run

HERE = Path(__file__).parent
workflow = load_workflow(HERE / "triage.yaml", params={"home": str(HERE)})
result = run(workflow, text=" ".join(sys.argv[1:]) or "my card was stolen")
result.raise_for_state()

for queue, answers in result.captured.items():
    for answer in answers:
        print(f"{queue}: {answer['intent']}, {answer['confidence']:.0%} sure")
