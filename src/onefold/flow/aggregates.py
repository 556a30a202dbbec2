"""Aggregate expressions, split so that partial results merge: per batch, over epochs, and into the final value.

The result has DuckDB's type of the plain aggregate. Sums of integers are HUGEINT in DuckDB and so DECIMAL(38,0) in
Arrow: exact, never overflowing silently; cast where a BIGINT is wanted. Sums and averages of DOUBLE depend on the
order of addition in their last bits, as in DuckDB itself; avg of DECIMAL divides the exact sum, and may differ from
DuckDB's avg in the last bit.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import pyarrow as pa

from onefold.errors import NotSupported, check
from onefold.flow import syntax
from onefold.flow.expressions import Text, bind_columns, check_literals, parse_one, place_of, result_field
from onefold.flow.syntax import SqlError, Tree
from onefold.plan import Aggregate

__all__ = ["SUPPORTED", "SplitAggregate", "split"]

SUPPORTED = ("count", "count_if", "sum", "min", "max", "avg", "bool_and", "bool_or")

_SAME = {"count_star": "count", "countif": "count_if", "mean": "avg"}
_MERGED_BY = {
    "count": "CAST(sum({0}) AS BIGINT)",
    "count_if": "sum({0})",
    "sum": "sum({0})",
    "min": "min({0})",
    "max": "max({0})",
    "bool_and": "bool_and({0})",
    "bool_or": "bool_or({0})",
}
_NUMERIC = ("INT", "DECIMAL", "DOUBLE", "FLOAT", "REAL")
_RESTORED = ("HUGEINT", "UUID", "JSON")
"""Types that come back from Arrow as another: partial columns of them are cast back before they are used."""


@dataclass(frozen=True)
class SplitAggregate:
    """One aggregate of the plan, the Arrow fields of its partial columns, and the field of its result."""

    aggregate: Aggregate
    partial_fields: tuple[pa.Field, ...]
    field: pa.Field


def split(name: str, sql: str, schema: pa.Schema) -> SplitAggregate:
    """Split an aggregate expression over the columns of a schema. Raises ExpressionError, NotSupported.

    >>> found = split("mean", "avg(x)", pa.schema({"x": pa.float64()})).aggregate
    >>> list(found.partials.values()), found.final
    (['sum(x)', 'count(x)'], '(CAST(_mean_0 AS DOUBLE) / _mean_1)')
    """
    text = Text(sql, f"agg({name}=…)")
    tree = parse_one(text)
    calls = _outermost_calls(text, tree)
    plain = bind_columns(text, tree, schema)
    check_literals(text, tree, syntax.describe(syntax.render(tree), schema))
    result = result_field(text, plain).with_name(name)
    parts = _Parts(text, name, schema)
    final_tree = _replaced(tree, {id(call): parts.add(call) for call in calls})
    _refuse_columns_outside(text, final_tree, parts)
    final = _final(final_tree, plain, parts)
    aggregate = Aggregate(name, syntax.render(tree), parts.partials, parts.merges, final)
    return SplitAggregate(aggregate, tuple(parts.fields), result)


@dataclass
class _Parts:
    """The partial columns found so far; equal ones are kept once."""

    text: Text
    name: str
    schema: pa.Schema
    partials: dict[str, str] = field(default_factory=dict)
    merges: dict[str, str] = field(default_factory=dict)
    fields: list[pa.Field] = field(default_factory=list)
    natives: dict[str, str] = field(default_factory=dict)

    def add(self, call: Tree) -> Tree:
        """Split one call; gives the expression over partial columns that stands for it."""
        function = _supported(self.text, call)
        if function != "avg":
            return _one_item(self._column(call, function))
        argument = self._type_of(call["arguments"][0]["expression"])
        if not any(kind in argument for kind in _NUMERIC) or argument == "INTERVAL":
            raise NotSupported(
                f"avg of {argument} cannot be kept as mergeable parts.",
                found=self.text.shown(*place_of(self.text, call)),
                expected="a number",
                next_step="Average a number, for instance avg(epoch_us(x)).",
                place=self.text.place,
            )
        total, count = self._column(call, "sum"), self._column(call, "count")
        return _one_item(f"(CAST({total} AS DOUBLE) / {count})")

    def _column(self, call: Tree, function: str) -> str:
        sql = syntax.render(_renamed(call, function))
        known = next((name for name, partial in self.partials.items() if partial == sql), None)
        if known is not None:
            return self._reference(known)
        column = syntax.columns_of(sql, self.schema)[0]
        name = f"_{self.name}_{len(self.partials)}"
        self.partials[name] = sql
        self.fields.append(result_field(self.text, column).with_name(name))
        self.natives[name] = column.sql_type
        self.merges[name] = _MERGED_BY[function].format(self._reference(name))
        return self._reference(name)

    def _reference(self, name: str) -> str:
        native = self.natives[name]
        reference = syntax.quoted(name)
        return f"CAST({reference} AS {native})" if native in _RESTORED else reference

    def _type_of(self, argument: Tree) -> str:
        return syntax.columns_of(syntax.render(argument), self.schema)[0].sql_type


def _outermost_calls(text: Text, tree: Tree) -> list[Tree]:
    calls = [node for node in syntax.walk(tree) if _is_aggregate(node)]
    if not calls:
        raise text.error(
            "The expression holds no aggregate.",
            start=0,
            length=len(text.sql),
            next_step="Use one of " + ", ".join(SUPPORTED) + '; for instance "sum(amount)".',
        )
    inner = {id(node) for call in calls for node in syntax.walk(call) if node is not call}
    for call in calls:
        if id(call) in inner:
            start, length = place_of(text, call)
            raise text.error("An aggregate stands inside another.", start=start, length=length)
    return calls


def _supported(text: Text, call: Tree) -> str:
    function = str(call["function_name"]).lower()
    function = _SAME.get(function, function)
    reason = ""
    if function not in SUPPORTED:
        reason = f"{function} cannot be merged from partial results"
    elif call["distinct"]:
        reason = "DISTINCT needs every value it has seen, not a partial result"
    elif call["order_bys"]["orders"]:
        reason = "an ORDER BY inside an aggregate cannot be kept over epochs"
    elif len(call["arguments"]) > 1:
        reason = f"{function} with {len(call['arguments'])} arguments cannot be merged from partial results"
    elif any(node["class"] == "COLLATE" for node in syntax.walk(call)):
        reason = "a collation is not kept with partial results"
    if reason:
        raise NotSupported(
            f"The aggregate is not supported: {reason}.",
            found=text.shown(*place_of(text, call)),
            expected="one of " + ", ".join(SUPPORTED) + ", each with FILTER if wanted",
            next_step="Use dedup(…) before it for DISTINCT; compute the rest from supported ones.",
            place=text.place,
        )
    return function


def _refuse_columns_outside(text: Text, final_tree: Tree, parts: _Parts) -> None:
    lambdas = {
        str(ref["column_names"][0])
        for node in syntax.walk(final_tree)
        if node["class"] == "LAMBDA"
        for ref in syntax.walk(node["lhs"])
        if ref["class"] == "COLUMN_REF"
    }
    for node in syntax.walk(final_tree):
        if node["class"] == "COLUMN_REF" and str(node["column_names"][0]) not in {*parts.partials, *lambdas}:
            start, length = place_of(text, node)
            column = ".".join(node["column_names"])
            raise text.error(
                f"The column {column} is used outside an aggregate.",
                start=start,
                length=length,
                next_step=f"Aggregate it, for instance max({column}), or compute with it in a select(…) afterwards.",
            )


def _final(tree: Tree, plain: syntax.BoundColumn, parts: _Parts) -> str:
    partial_schema = pa.schema(parts.fields)
    final = syntax.render(tree)
    try:
        found = syntax.columns_of(final, partial_schema)[0]
        if found.sql_type != plain.sql_type:
            final = f"CAST({final} AS {plain.sql_type})"
            found = syntax.columns_of(final, partial_schema)[0]
    except SqlError as error:
        raise parts.text.error(f"The expression cannot be computed from partial results: {error.message}") from None
    check(found.arrow_type == plain.arrow_type, "an aggregate has the type of the plain one", final=final)
    return final


def _is_aggregate(node: Tree) -> bool:
    return node["class"] == "FUNCTION" and str(node["function_name"]).lower() in syntax.aggregate_names()


def _renamed(call: Tree, function: str) -> Tree:
    renamed = copy.deepcopy(call)
    if function == "count" and not call["arguments"]:
        function = "count_star"
    renamed["function_name"] = function
    renamed["qualified_name"] = {"path": [function]}
    return renamed


def _one_item(sql: str) -> Tree:
    return syntax.parse(sql)[0]


def _replaced(tree: object, by_identity: dict[int, Tree]) -> Tree:
    def walk(node: object) -> object:
        if isinstance(node, dict):
            return by_identity.get(id(node)) or {key: walk(child) for key, child in node.items()}
        return [walk(child) for child in node] if isinstance(node, list) else node

    replaced = walk(tree)
    check(isinstance(replaced, dict), "a tree stays a tree")
    return replaced  # type: ignore[return-value]
