"""Which columns of a node's rows anybody reads: the others are dropped before they are copied from table to table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from onefold.plan import OP_COLUMN, AggregateNode, DedupNode, Node, Plan, SelectNode, WhereNode

__all__ = ["needed_columns"]


def needed_columns(plan: Plan) -> Mapping[str, tuple[str, ...]]:
    """By node, in the order of its schema; never none. A node that nobody reads keeps all.

    An expression needs every column whose name occurs in its text: too many at times, never too few, since `*` and
    COLUMNS(…) are refused in expressions.
    """
    needed: dict[str, set[str]] = {node.name: set() for node in plan.nodes}
    is_read = {name for node in plan.nodes for name in node.inputs}
    for output in plan.outputs:
        needed[output.input].update(plan.node(output.input).schema.names)
    for node in reversed(plan.nodes):  # a node stands after its inputs
        if node.name not in is_read:
            needed[node.name].update(node.schema.names)
        for name in node.inputs:
            needed[name] |= _read_by(node, needed[node.name], plan.node(name).schema.names)
    return {node.name: _in_order(node, needed[node.name]) for node in plan.nodes}


def _in_order(node: Node, needed: set[str]) -> tuple[str, ...]:
    return tuple(name for name in node.schema.names if name in needed) or tuple(node.schema.names[:1])


def _read_by(node: Node, needed: set[str], columns: Iterable[str]) -> set[str]:
    match node:
        case WhereNode():
            op = {OP_COLUMN} if node.stays else set()
            return needed | op | _named_in([node.predicate, node.stays], columns)
        case SelectNode():
            return _named_in(node.columns.values(), columns)
        case DedupNode():
            return needed | {*node.key} | _given(node.event_time)
        case AggregateNode():
            texts = [sql for aggregate in node.aggregates for sql in aggregate.partials.values()]
            return {*node.keys} | _given(node.event_time) | _named_in(texts, columns)
        case _:
            return set(columns)


def _given(name: str | None) -> set[str]:
    return set() if name is None else {name}


def _named_in(texts: Iterable[str], columns: Iterable[str]) -> set[str]:
    text = "\n".join(texts).lower()
    return {name for name in columns if name.lower().replace('"', '""') in text}
