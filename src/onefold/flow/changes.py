"""What becomes of a change stream on its way to a copy: an upsert that is to hold the rows as they are now.

A delete holds its key and little else, and an update may end a match. So a copy cannot be filtered row by row: a row
that does not match becomes a delete of its key, and a delete always passes. Conditions over the key, over columns of
the source such as `_table` and over `_op` are told by every change of a row: these drop rows. A history (`append`, or
whatever comes behind a select without `_op`) holds what happened, and is filtered like any stream.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

from onefold.errors import NotSupported
from onefold.flow import syntax
from onefold.flow.syntax import Tree
from onefold.plan import (
    OP_COLUMN,
    AggregateNode,
    ExplodeNode,
    MapNode,
    Node,
    Output,
    ReadNode,
    SelectNode,
    UnionNode,
    WhereNode,
)
from onefold.protocols import Copied, Copy

__all__ = ["for_copies", "tell_sources"]

Origin: TypeAlias = tuple[str, str]
"""A column where it came into the flow: the node, and its name there."""

OP: Origin = ("", OP_COLUMN)


def for_copies(nodes: Sequence[Node], outputs: Sequence[Output]) -> tuple[Node, ...]:
    """The nodes, with conditions split where they filter a copy.

    Raises NotSupported for steps that would leave rows in a copy that are gone, or make rows of deletes.
    """
    graph = _Graph(nodes)
    splits: dict[str, tuple[str, str]] = {}
    for output in outputs:
        graph.refuse_rows_of_deletes(output)
        copied = {node.name for path in graph.paths(output) for node in path}
        for node in graph.above(output.input):
            if isinstance(node, WhereNode):
                split = graph.split(node, output) if node.name in copied else (node.predicate, "")
                if splits.setdefault(node.name, split) != split:
                    raise _serves_two(node, output)
        graph.refuse_wrong_steps(output, {name for name in copied if splits.get(name, ("", ""))[1]})
    return tuple(
        replace(node, predicate=splits[node.name][0], stays=splits[node.name][1])
        if isinstance(node, WhereNode) and node.name in splits
        else node
        for node in nodes
    )


def tell_sources(nodes: Sequence[Node], outputs: Sequence[Output]) -> None:
    """Sources that know the keys of their rows are told which copies are made of them."""
    graph = _Graph(nodes)
    for read in nodes:
        if isinstance(read, ReadNode) and isinstance(read.source, Copied):
            read.source.copied(
                [
                    graph.copy(output, path)
                    for output in outputs
                    for path in graph.paths(output)
                    if path[-1] is read and graph.is_judged(output)
                ]
            )


class _Graph:
    """The nodes, and what their columns are made of."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self._nodes = {node.name: node for node in nodes}
        self._origins: dict[str, dict[str, frozenset[Origin]]] = {}
        for node in nodes:  # a node stands after its inputs
            origins = self._origins_of(node)
            self._origins[node.name] = origins | ({OP_COLUMN: frozenset({OP})} if _has_op(node) else {})
        self._reads = {node.name for node in nodes if isinstance(node, ReadNode)}
        self._meta = {
            (node.name, name)
            for node in nodes
            if isinstance(node, ReadNode)
            for name in node.schema.names
            if name not in node.declared.names
        }

    def above(self, name: str) -> list[Node]:
        """The node and all that it depends on."""
        found: dict[str, Node] = {}
        waiting = [name]
        while waiting:
            node = self._nodes[waiting.pop()]
            found[node.name] = node
            waiting.extend(node.inputs)
        return list(found.values())

    def paths(self, output: Output) -> list[list[Node]]:
        """Of an upsert with `_op`: the ways on which its changes come, each from its input up to where they begin."""
        node = self._nodes[output.input]
        return list(self._up([node])) if output.mode == "upsert" and _has_op(node) else []

    def _up(self, path: list[Node]) -> Iterator[list[Node]]:
        node = path[-1]
        inputs = [self._nodes[name] for name in node.inputs if _has_op(self._nodes[name])]
        if isinstance(node, SelectNode) and inputs and OP_COLUMN not in _named(node.columns[OP_COLUMN], inputs[0]):
            inputs = []  # `_op` is made anew
        if not inputs:
            yield path
        for above in inputs:
            yield from self._up([*path, above])

    def split(self, node: WhereNode, output: Output) -> tuple[str, str]:
        """The part of the condition that drops rows, and the part that makes deletes of them; "": there is none."""
        drops, stays = [], []
        key = self._key(output)
        for part in _conjuncts(syntax.parse(node.predicate)[0]):
            sql = syntax.render(part)
            made_of = self._made_of(sql, node)
            if made_of and made_of <= key | self._meta | {OP}:
                drops.append(sql)
            elif made_of & self._meta - key:
                raise NotSupported(
                    "A condition on a change stream mixes what a row holds with where its change came from.",
                    found=sql,
                    sink=output.name,
                    next_step='Write them as two: where("_table = \'…\'").where("amount > 0").',
                )
            else:
                stays.append(sql)
        return " AND ".join(drops) or "true", " AND ".join(stays)

    def refuse_wrong_steps(self, output: Output, filtering: set[str]) -> None:
        """Raises NotSupported where a copy would not be right. filtering: conditions that make deletes of rows."""
        for path in self.paths(output):
            for node in path:
                if isinstance(node, ReadNode):
                    self._refuse_event_time(node, output)
                if isinstance(node, ExplodeNode):
                    raise NotSupported(
                        "explode cannot be used on the way of a change stream to a copy: a delete has no elements, "
                        "and an update does not name those that are gone.",
                        sink=output.name,
                        next_step=f"Upsert the list itself, or drop {OP_COLUMN} with select(…) and append the history.",
                    )
                if isinstance(node, UnionNode):
                    self._refuse_union(node, output, filtering)

    def _refuse_event_time(self, node: ReadNode, output: Output) -> None:
        is_told = node.event_time is None or (node.name, node.event_time) in self._key(output)
        if isinstance(node.source, Copied) and not is_told:
            raise NotSupported(
                f"Changes by the event time {node.event_time} cannot make a copy: deletes have none and would be dead "
                "letters.",
                read=node.name,
                sink=output.name,
                next_step="Read without event_time=; changes come in the order in which they were committed.",
            )

    def _refuse_union(self, node: UnionNode, output: Output, filtering: set[str]) -> None:
        met: dict[str, str] = {}
        for name in node.inputs:
            above = self.above(name)
            for read in above:
                if isinstance(read, ReadNode) and _has_op(read) and met.setdefault(read.name, name) != name:
                    branches = {*(one.name for one in above), *(one.name for one in self.above(met[read.name]))}
                    if branches & filtering:
                        raise NotSupported(
                            "Two filtered streams of the same changes cannot be joined to one copy: what does not "
                            "match in one would be deleted though it matches in the other.",
                            found=f"read {read.name}, twice in {node.name}",
                            sink=output.name,
                            next_step="Write one condition with OR.",
                        )

    def refuse_rows_of_deletes(self, output: Output) -> None:
        """Raises NotSupported for an upsert behind a select that dropped `_op` unread."""
        if output.mode != "upsert" or self._key(output) & self._meta:  # keyed by changes: a history
            return
        for node in self.above(output.input):
            if isinstance(node, AggregateNode):
                return  # it has its own key
            if isinstance(node, SelectNode) and not _has_op(node) and self._drops_op_unread(node):
                raise NotSupported(
                    f"The changes were to be upserted without {OP_COLUMN}: their deletes would become rows.",
                    sink=output.name,
                    next_step=f"Keep {OP_COLUMN} in the select(…); or, if rows that are deleted at the source are to "
                    f"stay, say where(\"{OP_COLUMN} <> 'delete'\") before it.",
                )

    def _drops_op_unread(self, node: SelectNode) -> bool:
        above = self._nodes[node.inputs[0]]
        if not _has_op(above) or any(OP in made_of for made_of in self._origins[node.name].values()):
            return False
        wheres = (one for one in self.above(above.name) if isinstance(one, WhereNode))
        return not any(OP in self._made_of(where.predicate, where) for where in wheres)

    def is_judged(self, output: Output) -> bool:
        """Whether its key is known to be made of columns of reads: not of what a map computes."""
        return all(node in self._reads or not node for node, _ in self._key(output))

    def copy(self, output: Output, path: Sequence[Node]) -> Copy:
        """What the read at the end of the path is told."""
        read = path[-1].name
        only: dict[str, frozenset[str]] = {}
        is_narrowed = False
        for node in path:
            for part in _conjuncts(syntax.parse(node.predicate)[0]) if isinstance(node, WhereNode) else ():
                made_of = self._made_of(syntax.render(part), node)
                values = _values(part)
                if made_of & self._meta and len(made_of) == 1 and values is not None:
                    name = next(iter(made_of))[1]
                    only[name] = only.get(name, values) & values
                else:
                    is_narrowed |= bool(made_of & self._meta)
        latest = self._origins[output.input][output.latest_by] if output.latest_by else frozenset()
        return Copy(
            output.name,
            frozenset(name for node, name in self._key(output) if node == read),
            frozenset(name for node, name in latest if node == read),
            only,
            is_narrowed,
        )

    def _key(self, output: Output) -> frozenset[Origin]:
        origins = self._origins[output.input]
        return frozenset().union(*(origins[name] for name in output.key))

    def _made_of(self, sql: str, node: Node) -> frozenset[Origin]:
        above = self._nodes[node.inputs[0]]
        return frozenset().union(*(self._origins[above.name][name] for name in _named(sql, above)))

    def _origins_of(self, node: Node) -> dict[str, frozenset[Origin]]:
        match node:
            case ReadNode() | MapNode() | AggregateNode():
                fresh = {name: frozenset({(node.name, name)}) for name in node.schema.names}
                passed = self._origins[node.inputs[0]] if isinstance(node, MapNode) else {}
                return {name: passed.get(name, made) for name, made in fresh.items()}  # as the event time's name does
            case SelectNode():
                return {name: self._made_of(sql, node) for name, sql in node.columns.items()}
            case _:
                inputs = [self._origins[name] for name in node.inputs]
                return {name: frozenset().union(*(one[name] for one in inputs)) for name in node.schema.names}


def _has_op(node: Node) -> bool:
    return OP_COLUMN in node.schema.names


def _named(sql: str, above: Node) -> set[str]:
    """The columns of `above` that an expression names."""
    by_folded: Mapping[str, str] = {name.casefold(): name for name in above.schema.names}
    trees = (tree for item in syntax.parse(sql) for tree in syntax.walk(item) if tree["class"] == "COLUMN_REF")
    written = {str(part).casefold() for tree in trees for part in tree["column_names"]}
    return {by_folded[name] for name in written if name in by_folded}


def _conjuncts(tree: Tree) -> Iterator[Tree]:
    if tree["type"] == "CONJUNCTION_AND":
        for child in tree["children"]:
            yield from _conjuncts(child)
    else:
        yield tree


def _values(tree: Tree) -> frozenset[str] | None:
    """The texts that a column is compared with by = or IN; None: it is another condition."""
    if tree["type"] == "COMPARE_EQUAL":
        sides = [tree["left"], tree["right"]]
    elif tree["type"] == "COMPARE_IN":
        sides = list(tree["children"])
    else:
        return None
    constants = [side["literal"] for side in sides if side["class"] == "CONSTANT"]
    columns = [side for side in sides if side["class"] == "COLUMN_REF"]
    if len(columns) != 1 or len(constants) != len(sides) - 1 or any(one["kind"] != "STRING" for one in constants):
        return None
    return frozenset(str(one["text"]) for one in constants)


def _serves_two(node: WhereNode, output: Output) -> NotSupported:
    return NotSupported(
        "A condition on a change stream cannot serve this sink and another: in a copy, rows that do not match are "
        "deletes; in a history, or in a copy by another key, they are not.",
        found=node.predicate,
        sink=output.name,
        next_step="Write the where(…) once for each.",
    )
