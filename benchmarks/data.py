"""What every contender works on: rows, graphs, the functions in the nodes, the results they must give.

Owns: inputs and expected results, each a pure function of the parameters.
Does not own: how an engine runs them (benchmarks.ours, benchmarks.peers).

Always holds: standard library only, no randomness, no clock: two processes get the same.
"""

from __future__ import annotations

from typing import Any

Row = dict[str, Any]

LARGE = 3000


# --- stateless chain: map -> filter -> map -> map over small dicts ------------------------------------------


def rows(records: int) -> list[Row]:
    """`records` small dicts."""
    return [{"id": i, "amount": i % 1000} for i in range(records)]


def with_total(row: Row) -> Row:
    """The first map: a new dict."""
    return {"id": row["id"], "total": row["amount"] * 12}


def is_large(row: Row) -> bool:
    """The filter: keeps three of four rows."""
    return row["total"] >= LARGE


def with_fee(row: Row) -> Row:
    """The second map: arithmetic."""
    return {"id": row["id"], "total": row["total"] + 5}


def with_class(row: Row) -> Row:
    """The third map: a dict grows by a field."""
    return {**row, "class": "large"}


def chain_result(records: int, **_: object) -> list[Row]:
    """What the chain must give, in order."""
    return [with_class(with_fee(row)) for row in map(with_total, rows(records)) if is_large(row)]


# --- async stage: wait, then give back ----------------------------------------------------------------------


def doubled(records: int) -> list[int]:
    """What an async stage that doubles each number must give, in order."""
    return [2 * i for i in range(records)]


def profile_result(records: int, **_: object) -> list[int]:
    """What the workload of the profiles gives, in order."""
    return [2 * number for number in range(records)]


def async_stage_result(records: int, **_: object) -> list[int]:
    """`doubled`, whatever the stage's limit and delay."""
    return doubled(records)


# --- request: a DAG of ten nodes, each the sum of its inputs and its own number -----------------------------

DAG_CHILDREN: dict[int, tuple[int, ...]] = {
    0: (1, 2, 3), 1: (4,), 2: (4,), 3: (4,), 4: (5, 6, 7), 5: (8,), 6: (8,), 7: (8,), 8: (9,), 9: (),
}  # fmt: skip
"""Two diamonds of three branches in a row, then a tail: seven levels."""

DAG_PARENTS: dict[int, tuple[int, ...]] = {
    node: tuple(parent for parent, children in DAG_CHILDREN.items() if node in children)
    for node in DAG_CHILDREN
}


def dag_value(node: int, inputs: list[int]) -> int:
    """What node `node` answers; 1 million keeps the numbers small however often the graph is run."""
    return (sum(inputs) + node) % 1_000_000


def dag_result(requests: int, **_: object) -> list[int]:
    """The last node's value for each request 0 .. requests - 1."""
    return [_dag_request(request) for request in range(requests)]


def _dag_request(value: int) -> int:
    outputs: dict[int, int] = {}
    for node in sorted(DAG_CHILDREN):  # numbered in topological order
        outputs[node] = dag_value(node, [outputs[parent] for parent in DAG_PARENTS[node]] or [value])
    return outputs[max(outputs)]


# --- fan-out and back, independent nodes, siblings ----------------------------------------------------------


def fan_out_result(width: int, **_: object) -> int:
    """One node starts with 1, each of `width` nodes adds its number, the last sums them."""
    return sum(1 + node for node in range(width))


def names(prefix: str, width: int) -> list[str]:
    """Node names in order of number."""
    return [f"{prefix}{number}" for number in range(width)]


def independent_result(width: int, **_: object) -> list[int]:
    """Each of `width` nodes answers its number."""
    return list(range(width))


SIBLING_RESULT = {"slow": 1, "fast": 2, "child": 3}
"""`slow` and `fast` have one parent and answer 1 and 2; `child` answers one more than `fast`."""


def sibling_result(**_: object) -> dict[str, int]:
    """What the three nodes must answer."""
    return SIBLING_RESULT


# --- embeddings ---------------------------------------------------------------------------------------------


def texts(count: int) -> list[str]:
    """`count` different short texts."""
    return [f"text number {number}" for number in range(count)]


def vector(text: str) -> list[float]:
    """What the loopback server answers for `text`: exact in float32, different for different texts."""
    number = int(text.rsplit(" ", 1)[1])
    return [float(number), number / 2, float(len(text)), 1.0]


def vectors(count: int, **_: object) -> list[list[float]]:
    """What embedding `texts(count)` must give, in order."""
    return [vector(text) for text in texts(count)]


# --- the chain that YAML declares: condition, template of fields, rename, filter ----------------------------

MANY = 300
CHEAP = 1800


def orders(records: int) -> list[Row]:
    """`records` orders."""
    return [
        {"id": i, "amount": i % 1000, "customer": {"name": f"customer {i % 100}"}} for i in range(records)
    ]


def large_orders(records: int, **_: object) -> list[int]:
    """Ids of the orders the condition lets through."""
    return [order["id"] for order in orders(records) if order["amount"] >= MANY]


def to_bill(order: Row) -> Row:
    """The template of fields: a new dict, one field computed, one taken from within."""
    return {"id": order["id"], "total": order["amount"] * 2, "name": order["customer"]["name"]}


def to_client(bill: Row) -> Row:
    """The rename."""
    return {"client" if field == "name" else field: value for field, value in bill.items()}


def is_many(order: Row) -> bool:
    """The condition."""
    return order["amount"] >= MANY


def is_cheap(bill: Row) -> bool:
    """The filter."""
    return bill["total"] < CHEAP


def yaml_chain_result(records: int, **_: object) -> list[Row]:
    """What the chain must give, in order."""
    bills = [to_client(to_bill(order)) for order in orders(records) if is_many(order)]
    return [bill for bill in bills if is_cheap(bill)]
