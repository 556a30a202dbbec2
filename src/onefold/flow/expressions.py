"""SQL expressions, bound when the flow is built: what they give, or an error with the place and the nearest names."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from onefold.errors import ExpressionError
from onefold.flow import syntax
from onefold.flow.syntax import SqlError, Tree

__all__ = ["Bound", "Text", "bind", "bind_predicate", "nearest", "parse_one", "result_field", "star_columns"]

_REFUSED = {
    "SUBQUERY": "a subquery",
    "WINDOW": "a window function (OVER)",
    "PARAMETER": "a parameter",
    "POSITIONAL_REFERENCE": "a positional reference",
    "STAR": "`*`",
    "DEFAULT": "DEFAULT",
}
_PASSIVE_OPERATORS = {"PROJECTION", "PYTHON_ARROW_SCAN", "EMPTY_RESULT", "FILTER", "DUMMY_SCAN"}


@dataclass(frozen=True)
class Text:
    """A text of the user and where it was written, for instance `where`."""

    sql: str
    place: str

    def error(self, summary: str, *, start: int = -1, length: int = 1, next_step: str | None = None) -> ExpressionError:
        """An error that shows the text with a caret line under the spot."""
        return ExpressionError(summary, found=self.shown(start, length), next_step=next_step, place=self.place)

    def shown(self, start: int = -1, length: int = 1) -> str:
        """The text on lines of its own, with carets under the spot."""
        return "\n" + _with_carets(self.sql, start, length)


@dataclass(frozen=True)
class Bound:
    """An expression that binds.

    Args:
        sql: as DuckDB prints it, without comments and alias.
        field: the Arrow field of its result; its name is the alias, or the column's if it is a bare column, or "".
        sql_type: DuckDB's name of the type.
        column: the input column when the expression is just that.
    """

    sql: str
    field: pa.Field
    sql_type: str
    column: str | None


def bind(text: Text, schema: pa.Schema) -> Bound:
    """Bind a scalar expression against the columns of a schema. Raises ExpressionError, NotSupported.

    >>> bind(Text("amount * 2 -- twice", "select"), pa.schema({"amount": pa.int32()})).sql
    '(amount * 2)'
    """
    tree = parse_one(text)
    _refuse_aggregates(text, tree)
    sql = syntax.render(tree)
    column = bind_columns(text, tree, schema)
    _refuse_wrong_plans(text, tree, schema)
    bare = _bare_column(tree, schema)
    field = schema.field(bare) if bare is not None else result_field(text, column)
    return Bound(sql, field.with_name(tree["alias"] or bare or ""), column.sql_type, bare)


def bind_predicate(text: Text, schema: pa.Schema) -> str:
    """Bind a condition; gives its text. Raises ExpressionError when it is not BOOLEAN."""
    bound = bind(text, schema)
    if bound.sql_type != "BOOLEAN":
        raise text.error(
            f"The condition gives {bound.sql_type}, not BOOLEAN.",
            start=0,
            length=len(text.sql),
            next_step='Compare it with something, for instance "amount > 0".',
        )
    if bound.field.name not in ("", bound.column or ""):
        raise text.error("A condition has no name.", next_step="Remove the AS.")
    return bound.sql


def parse_one(text: Text) -> Tree:
    """The syntax tree of one expression, free of subqueries, window functions and the like."""
    trees = parse_items(text)
    if len(trees) != 1:
        raise text.error(f"One expression is expected here, not {len(trees)}.", next_step="Give each its own argument.")
    for node in syntax.walk(trees[0]):
        reason = _REFUSED.get(str(node["class"]))
        if reason is not None:
            start, length = place_of(text, node)
            raise text.error(
                f"{reason[0].upper()}{reason[1:]} cannot be used here.",
                start=start,
                length=length,
                next_step="An expression sees the columns of one row of its input, and nothing else.",
            )
    return trees[0]


def parse_items(text: Text) -> list[Tree]:
    """The syntax trees of a select list. Raises ExpressionError."""
    if not isinstance(text.sql, str) or not text.sql.strip():
        raise ExpressionError("An expression is empty.", found=repr(text.sql), expected="SQL text", place=text.place)
    try:
        return syntax.parse(text.sql)
    except SqlError as error:
        summary = "The expression is not valid SQL: " + error.message + "."
        raise text.error(summary, start=error.start, length=error.length) from None


def star_columns(text: Text, schema: pa.Schema) -> list[str] | None:
    """The columns that "*" or "* EXCLUDE (a, b)" stands for; None when the text is something else."""
    trees = parse_items(text)
    if len(trees) != 1 or trees[0]["class"] != "STAR" or trees[0]["columns"]:
        return None
    if any(trees[0][part] for part in ("relation_name", "replace_list", "rename_list", "expr")):
        raise text.error(
            "Only `*` and `* EXCLUDE (…)` can be used here.", next_step='Write the others as name="expression".'
        )
    try:
        return [column.name for column in syntax.columns_of(syntax.render(trees[0]), schema)]
    except SqlError as error:
        raise _binding_error(text, error, schema) from None


def bind_columns(text: Text, tree: Tree, schema: pa.Schema) -> syntax.BoundColumn:
    """What DuckDB says about an expression over an empty table. Raises ExpressionError."""
    try:
        return syntax.columns_of(syntax.render(tree), schema)[0]
    except SqlError as error:
        in_users_text = error
    try:
        syntax.columns_of(text.sql, schema)
    except SqlError as error:
        in_users_text = error
    raise _binding_error(text, in_users_text, schema) from None


def result_field(text: Text, column: syntax.BoundColumn) -> pa.Field:
    """The Arrow field of a computed column. Raises ExpressionError for types that Arrow does not carry exactly."""
    from onefold.formats.types import marked

    if column.sql_type in ("UUID", "JSON"):
        return marked("", column.sql_type)
    if column.sql_type == '"NULL"':
        raise text.error("The expression is NULL of no type.", next_step="Cast it, for instance NULL::VARCHAR.")
    kind = column.arrow_type
    if isinstance(kind, pa.BaseExtensionType) or column.sql_type.split("(")[0] in ("BIT", "UHUGEINT", "TIMETZ"):
        raise text.error(
            f"The expression has the type {column.sql_type}, which Arrow cannot carry exactly.",
            next_step="Cast it, for instance to VARCHAR.",
        )
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return pa.field("", kind)


def place_of(text: Text, tree: Tree) -> tuple[int, int]:
    """Where a node stands in the text: (first character, length); (-1, 0) where unknown."""
    return syntax.place(text.sql, tree)


def nearest(name: str, names: Sequence[str]) -> str:
    """A sentence that helps with a wrong name.

    >>> nearest("amont", ["merchant", "amount"])
    'Did you mean amount?'
    """
    by_folded = {known.casefold(): known for known in reversed(names)}
    close = difflib.get_close_matches(name.casefold(), by_folded, n=2, cutoff=0.65)
    if close:
        return "Did you mean " + " or ".join(by_folded[folded] for folded in close) + "?"
    return "There are: " + (", ".join(names) or "none") + "."


def check_literals(text: Text, tree: Tree, plan: list[tuple[str, list[str]]]) -> None:
    """Every constant that is cast must have a value in its type: the error belongs to the build, not to a row."""
    casts = [node for node in syntax.walk(tree) if _is_literal_cast(node)]
    for _, expressions in plan:
        for expression in expressions:
            casts += [node for node in _parsed(expression) if _is_literal_cast(node)]
    for node in casts:
        try:
            syntax.evaluate(syntax.render(node))
        except SqlError as error:
            literal = syntax.render(node["child"])
            start = text.sql.find(literal)
            summary = error.message.splitlines()[0].rstrip(".")
            raise text.error(
                f"The literal {literal} does not fit: {summary}.", start=start, length=len(literal)
            ) from None


def _refuse_aggregates(text: Text, tree: Tree) -> None:
    for node in syntax.walk(tree):
        if node["class"] == "FUNCTION" and node["function_name"].lower() in syntax.aggregate_names():
            start, length = place_of(text, node)
            raise text.error(
                f"The aggregate {node['function_name']} cannot be used in {text.place.split('(')[0]}.",
                start=start,
                length=length,
                next_step="Aggregate with group_by(…).agg(…).",
            )


def _refuse_wrong_plans(text: Text, tree: Tree, schema: pa.Schema) -> None:
    """Macros may hide aggregates and unnest makes rows: the plan shows both."""
    plan = syntax.describe(syntax.render(tree), schema)
    for operator, _ in plan:
        if operator == "UNNEST":
            raise text.error("unnest cannot be used here.", next_step="Use stream.explode(column).")
        if operator not in _PASSIVE_OPERATORS:
            raise text.error(
                "The expression needs more than one row of its input.", next_step="Aggregate with group_by(…).agg(…)."
            )
    check_literals(text, tree, plan)


def _binding_error(text: Text, error: SqlError, schema: pa.Schema) -> ExpressionError:
    lines = error.message.splitlines()
    next_step: str | None = None
    if error.kind == "COLUMN_NOT_FOUND":
        summary, next_step = f"There is no column {error.name}.", nearest(error.name, schema.names)
    elif error.kind == "MISSING_ENTRY" and "Function" in lines[0]:
        summary, next_step = f"There is no function {error.name}.", _nearest_function(error.name)
    else:
        summary = "The expression does not bind: " + lines[0].rstrip(".") + "."
        candidates = [line.strip() for line in lines[1:] if line.startswith("\t") and "(" in line]
        if candidates:
            next_step = "Candidates: " + "; ".join(candidates[:4]) + "."
    return text.error(summary, start=error.start, length=error.length, next_step=next_step)


def _nearest_function(name: str) -> str:
    close = difflib.get_close_matches(name.lower(), sorted(syntax.function_names()), n=3, cutoff=0.6)
    return f"Did you mean {' or '.join(close)}?" if close else "See DuckDB's documentation for its functions."


def _bare_column(tree: Tree, schema: pa.Schema) -> str | None:
    if tree["class"] != "COLUMN_REF" or len(tree["column_names"]) != 1:
        return None
    written = str(tree["column_names"][0]).casefold()
    return next((name for name in schema.names if name.casefold() == written), None)


def _is_literal_cast(node: Tree) -> bool:
    return node["class"] == "CAST" and not node["try_cast"] and node["child"]["class"] == "CONSTANT"


def _parsed(expression: str) -> list[Tree]:
    try:
        return [node for item in syntax.parse(expression) for node in syntax.walk(item)]
    except SqlError:  # plans also hold texts that are no expressions, such as names of operators
        return []


def _with_carets(sql: str, start: int, length: int) -> str:
    shown = []
    for line in sql.split("\n"):
        shown.append("    " + line)
        if 0 <= start <= len(line):
            shown.append("    " + " " * start + "^" * max(1, min(length, len(line) - start)))
        start -= len(line) + 1
    return "\n".join(shown)
