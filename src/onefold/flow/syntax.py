"""SQL text as DuckDB itself parses it: a JSON tree, and back to text.

Using DuckDB's own parser and printer, not a second one, means that what is checked here is what is run later.
The one connection is private, in memory, without access to files, and guarded by a lock.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias

import duckdb
import pyarrow as pa

from onefold.errors import check

__all__ = [
    "ROWS", "BoundColumn", "SqlError", "Tree", "aggregate_names", "columns_of", "describe", "evaluate",
    "function_names", "parse", "place", "quoted", "render", "walk",
]  # fmt: skip

Tree: TypeAlias = dict[str, Any]
"""One node of DuckDB's syntax tree, as json_serialize_sql gives it."""

ROWS = "__onefold_rows"
"""The name of the empty table that expressions are bound against."""

_PREFIX = "SELECT "
_lock = threading.Lock()


@dataclass(eq=False)
class SqlError(Exception):
    """What DuckDB said about a text: start and length are in characters of that text, -1 where unknown."""

    message: str
    kind: str
    name: str
    start: int
    length: int


@dataclass(frozen=True)
class BoundColumn:
    """One column of a bound query: its name, DuckDB's type as text, the Arrow type it is exported as."""

    name: str
    sql_type: str
    arrow_type: pa.DataType


@cache
def _connection() -> duckdb.DuckDBPyConnection:
    con = duckdb.connect(":memory:", config={"autoinstall_known_extensions": False, "autoload_known_extensions": False})
    for setting in (
        "SET TimeZone = 'UTC'",
        "SET errors_as_json = true",
        "SET threads = 1",
        "SET enable_external_access = false",
        "SET lock_configuration = true",
    ):
        con.execute(setting)
    return con


def parse(text: str) -> list[Tree]:
    """The items of a select list. Raises SqlError on bad syntax, and when the text is more than a select list."""
    answer = json.loads(_one_text("SELECT json_serialize_sql(?)", _PREFIX + text + "\n"))
    if answer["error"]:
        position = int(answer.get("position") or -1)
        start, length = _span(text, position, answer.get("location"))
        raise SqlError(str(answer["error_message"]).splitlines()[0], "SYNTAX_ERROR", "", start, length)
    statements = answer["statements"]
    if len(statements) != 1 or not _is_plain_list(statements[0]["node"]):
        raise SqlError("only an expression is allowed here, not a query", "NOT_AN_EXPRESSION", "", -1, 0)
    items: list[Tree] = statements[0]["node"]["select_list"]
    return items


def render(tree: Tree) -> str:
    """The text of one expression, without its alias and without comments."""
    statement = json.loads(_template())
    statement["statements"][0]["node"]["select_list"] = [{**tree, "alias": ""}]
    text = _one_text("SELECT json_deserialize_sql(?)", json.dumps(statement))
    check(text.startswith(_PREFIX), "a rendered expression is a select list")
    return text.removeprefix(_PREFIX)


def walk(tree: Any) -> Iterator[Tree]:
    """All nodes of a tree that have a class, the outer before the inner."""
    if isinstance(tree, dict):
        if "class" in tree:
            yield tree
        for child in tree.values():
            yield from walk(child)
    elif isinstance(tree, list):
        for child in tree:
            yield from walk(child)


def columns_of(select_list: str, schema: pa.Schema) -> list[BoundColumn]:
    """Bind a select list against an empty table of the schema. Raises SqlError."""
    con, query = _connection(), f"{_PREFIX}{select_list}\nFROM {ROWS}"
    with _lock:
        con.register(ROWS, schema.empty_table())
        try:
            relation = con.sql(query)
            names = list(zip(relation.columns, map(str, relation.types), strict=True))
            arrow = relation.to_arrow_table().schema
        except duckdb.Error:
            raise _explained(con, select_list, query) from None
        finally:
            con.unregister(ROWS)
    return [BoundColumn(name, kind, arrow.field(i).type) for i, (name, kind) in enumerate(names)]


def describe(select_list: str, schema: pa.Schema) -> list[tuple[str, list[str]]]:
    """The optimised plan of a select list: (operator, the texts of its expressions)."""
    con = _connection()
    with _lock:
        con.register(ROWS, schema.empty_table())
        try:
            rows = con.execute(f"EXPLAIN (FORMAT json) {_PREFIX}{select_list}\nFROM {ROWS}").fetchall()
        finally:
            con.unregister(ROWS)
    check(len(rows) == 1, "EXPLAIN gives one row")
    found: list[tuple[str, list[str]]] = []
    waiting = list(json.loads(rows[0][1]))
    while waiting:
        node = waiting.pop()
        texts = [text for value in node.get("extra_info", {}).values() for text in _texts(value)]
        found.append((str(node["name"]), texts))
        waiting.extend(node.get("children", []))
    return found


def evaluate(expression: str) -> None:
    """Compute a constant expression. Raises SqlError when it has no value."""
    with _lock:
        try:
            _connection().execute(_PREFIX + expression).complete()  # fetched, some values would need pytz
        except duckdb.Error as error:
            raise _sql_error(expression, error) from None


def place(text: str, tree: Tree) -> tuple[int, int]:
    """Where a parsed node stands in its text: (first character, length); (-1, 0) where unknown."""
    position, length = int(tree.get("query_location", -1)), int(tree.get("query_location_length", 0))
    return _span(text, position, f"[{position}, {length}]")


def quoted(name: str) -> str:
    """A column's name as an SQL identifier.

    >>> quoted('a "b"')
    '"a ""b\"""'
    """
    return '"' + name.replace('"', '""') + '"'


@cache
def aggregate_names() -> frozenset[str]:
    """The names of DuckDB's aggregate functions, in lower case."""
    return _functions("aggregate") - _functions("scalar")


@cache
def function_names() -> frozenset[str]:
    """The names of DuckDB's scalar and aggregate functions that people write, in lower case."""
    return frozenset(name for name in _functions("scalar") | _functions("aggregate") if name[:1].isalpha())


def _functions(kind: str) -> frozenset[str]:
    return frozenset(name for name, found in _all_functions() if found == kind)


@cache
def _all_functions() -> tuple[tuple[str, str], ...]:
    """Names in lower case, and kinds. Listing them takes DuckDB 40 ms, so they are asked for once."""
    query = "SELECT DISTINCT lower(function_name), function_type FROM duckdb_functions()"
    with _lock:
        return tuple(_connection().execute(query).fetchall())


@cache
def _template() -> str:
    return _one_text("SELECT json_serialize_sql(?)", "SELECT 1")


def _one_text(query: str, parameter: str) -> str:
    with _lock:
        rows = _connection().execute(query, [parameter]).fetchall()
    check(len(rows) == 1, "a query for one value gives one row")
    return str(rows[0][0])


def _is_plain_list(node: Tree) -> bool:
    return (
        node["type"] == "SELECT_NODE"
        and not node["modifiers"]
        and not node["cte_map"]["map"]
        and node["from_table"]["type"] == "EMPTY"
        and not node["group_expressions"]
        and node["aggregate_handling"] == "STANDARD_HANDLING"
        and all(node[clause] is None for clause in ("where_clause", "having", "sample", "qualify"))
    )


def _explained(con: duckdb.DuckDBPyConnection, select_list: str, query: str) -> SqlError:
    """Only `execute` honours errors_as_json, which is where places come from."""
    try:
        con.execute(query).fetchall()
    except duckdb.Error as error:
        return _sql_error(select_list, error)
    return SqlError("it cannot be bound", "", "", -1, 0)


def _sql_error(text: str, error: duckdb.Error) -> SqlError:
    message = str(error)
    try:
        body = json.loads(message[message.index("{") :])
    except ValueError:
        return SqlError(message.splitlines()[0], type(error).__name__, "", -1, 0)
    start, length = _span(text, int(body.get("position") or -1), body.get("location"))
    kind = str(body.get("error_subtype") or type(error).__name__)
    return SqlError(str(body["exception_message"]), kind, str(body.get("name") or ""), start, length)


def _span(text: str, position: int, location: str | None) -> tuple[int, int]:
    """DuckDB counts bytes of the whole query; give characters of the text."""
    start = position - len(_PREFIX)
    raw = text.encode()
    if start < 0 or start > len(raw):
        return -1, 0
    length = max(1, json.loads(location)[1]) if location else 1
    before = raw[:start].decode(errors="ignore")
    return len(before), max(1, len(raw[start : start + length].decode(errors="ignore")))


def _texts(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    return [str(item) for item in value] if isinstance(value, list) else []
