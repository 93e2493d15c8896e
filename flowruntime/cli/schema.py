"""flow schema: the JSON Schema of workflow files, for editors."""

from __future__ import annotations

import json

from flowcore.schema import workflow_schema


def schema() -> int:
    """Print the JSON Schema of workflow files.

    `flow schema > flowrx.schema.json` puts it where the first line of a saved workflow points editors to.
    """
    print(json.dumps(workflow_schema(), indent=2))
    return 0
