"""Expressions bind when the flow is built, and say what is wrong with them."""

from __future__ import annotations

import doctest
import importlib
import threading

import pyarrow as pa
import pytest

from onefold.errors import ExpressionError, OnefoldError
from onefold.flow.expressions import Text, bind, bind_predicate, nearest, star_columns

SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "amount": pa.decimal128(18, 2),
        "Count": pa.int64(),
        "ok": pa.bool_(),
        "paid_at": pa.timestamp("us"),
        "zoned": pa.timestamp("us", "UTC"),
        "tags": pa.list_(pa.string()),
        "who": pa.struct([("name", pa.string())]),
        "with space": pa.int32(),
        "prix_é": pa.int32(),
    }
)


def refusal(sql: str, *, is_condition: bool = False) -> ExpressionError:
    with pytest.raises(ExpressionError) as caught:
        (bind_predicate if is_condition else bind)(Text(sql, "where"), SCHEMA)
    return caught.value


def caret_of(error: ExpressionError) -> str:
    """The piece of the text that the carets are under."""
    lines = str(error.found).splitlines()
    row = next(index for index, line in enumerate(lines) if line.strip() and set(line.strip()) == {"^"})
    start = lines[row].index("^")
    return lines[row - 1][start : start + lines[row].count("^")]


@pytest.mark.parametrize(
    ("sql", "arrow", "sql_type"),
    [
        ("amount * 0.02", pa.decimal128(18, 4), "DECIMAL(18,4)"),
        ("upper(id) || '!'", pa.string(), "VARCHAR"),
        ("paid_at + INTERVAL 1 HOUR", pa.timestamp("us"), "TIMESTAMP"),
        ("zoned", pa.timestamp("us", "UTC"), "TIMESTAMP WITH TIME ZONE"),
        ("who.name", pa.string(), "VARCHAR"),
        ("list_transform(tags, lambda t: upper(t))", pa.list_(pa.field("l", pa.string())), "VARCHAR[]"),
        ('"with space" + "prix_é"', pa.int32(), "INTEGER"),
        ("CASE WHEN ok THEN 1 END", pa.int32(), "INTEGER"),
        ("try_cast('x' AS INTEGER)", pa.int32(), "INTEGER"),
    ],
)
def test_an_expression_has_the_type_duckdb_gives_it(sql: str, arrow: pa.DataType, sql_type: str) -> None:
    bound = bind(Text(sql, "select"), SCHEMA)
    assert (bound.field.type, bound.sql_type) == (arrow, sql_type)


def test_uuid_and_json_results_stay_marked() -> None:
    assert bind(Text("id::UUID", "select"), SCHEMA).field.metadata == {b"onefold.type": b"UUID"}
    assert bind(Text("to_json(who)", "select"), SCHEMA).field.metadata == {b"onefold.type": b"JSON"}


@pytest.mark.parametrize(
    ("sql", "spot", "helps"),
    [
        ("amont > 0", "amont", "Did you mean amount?"),
        ("ok AND amount + unit_cost > 0", "unit_cost", "There are:"),
        ("'é' = id AND prix_e > 0", "prix_e", "Did you mean prix_é?"),
        ("uper(id) = 'A'", "uper(id)", "upper"),
        ("ok\n  AND amont > 0", "amont", "Did you mean amount?"),
        ("length(ok, 3)", "length(ok, 3)", "Candidates: length("),
        ("amount > 'x'::INT", "'x'", ""),
        ("amount > 'x'", "'x'", ""),
        ("paid_at < '2024-13-01'", "'2024-13-01'", ""),
        ("ok AND paid_at < TIMESTAMP '2024-99-01'", "'2024-99-01'", ""),
        ("Count IN (1, 'two')", "'two'", ""),
        ("CASE WHEN ok THEN 'never'::DATE END", "'never'", ""),
        ("sum(amount) > 1", "sum(amount)", "group_by"),
        ("(SELECT 1) = 1", "(SELECT 1)", "one row"),
        ("id IN (SELECT 1)", "(SELECT 1)", "one row"),
        ("row_number() OVER () = 1", "row_number() OVER ()", "one row"),
        ("$1 > 0", "$1", "one row"),
        ("#1 > 0", "#1", "one row"),
        ("COLUMNS(*) > 0", "*", "one row"),
    ],
)
def test_an_error_points_at_the_spot_and_helps(sql: str, spot: str, helps: str) -> None:
    error = refusal(sql)
    assert caret_of(error) == spot
    assert helps in error.next_step
    assert "__onefold" not in str(error)


@pytest.mark.parametrize(
    "sql",
    ["", "  ", "ok; DROP TABLE x", "ok; SELECT 1", "ok, ok", "ok FROM t", "ok ORDER BY 1", "DISTINCT ok", "ok LIMIT 1",
     "ok UNION SELECT true", "ok) FROM __onefold_rows; SELECT (true", "ok WHERE true", "read_csv('/etc/passwd')",
     "amount >", "unnest(tags)", "geomean(Count) > 1", "NULL", "rowid", "ok GROUP BY ALL", "-- only a comment",
     "id::BIT", "*", "ok HAVING true"],
)  # fmt: skip
def test_what_is_no_expression_over_one_row_is_refused(sql: str) -> None:
    with pytest.raises(ExpressionError):
        bind(Text(sql, "select"), SCHEMA)


def test_a_condition_must_be_boolean() -> None:
    assert caret_of(refusal("amount", is_condition=True)) == "amount"
    with pytest.raises(ExpressionError):
        bind_predicate(Text("ok AS x", "where"), SCHEMA)
    assert bind_predicate(Text("ok", "where"), SCHEMA) == "ok"


def test_comments_and_a_closing_semicolon_do_not_reach_the_engine() -> None:
    assert bind_predicate(Text("amount > 0 -- really\n AND ok /* yes */;", "where"), SCHEMA) == "((amount > 0) AND ok)"


def test_a_bare_column_is_known_as_one() -> None:
    bound = bind(Text("COUNT AS n", "select"), SCHEMA)
    assert (bound.column, bound.field.name, bound.field.type) == ("Count", "n", pa.int64())
    assert bind(Text("Count + 1", "select"), SCHEMA).column is None


def test_star_may_leave_columns_out() -> None:
    assert star_columns(Text("*", "select"), SCHEMA) == SCHEMA.names
    assert star_columns(Text("* EXCLUDE (amount, id)", "select"), SCHEMA) == SCHEMA.names[2:]
    assert star_columns(Text("amount", "select"), SCHEMA) is None
    for sql in ("* REPLACE (1 AS amount)", "* EXCLUDE (amont)", "t.*"):
        with pytest.raises(ExpressionError):
            star_columns(Text(sql, "select"), SCHEMA)


def test_files_are_out_of_reach() -> None:
    for sql in ("getenv('HOME')", "read_text('/etc/hostname')", "(FROM '/etc/hostname')"):
        with pytest.raises(OnefoldError):
            bind(Text(sql, "select"), SCHEMA)


def test_threads_may_bind_at_the_same_time() -> None:
    failures: list[BaseException] = []

    def work(number: int) -> None:
        schema = pa.schema({f"c{number}": pa.int64()})
        try:
            for _ in range(20):
                assert bind(Text(f"c{number} + 1", "select"), schema).field.type == pa.int64()
        except BaseException as error:  # noqa: BLE001 - shown by the assertion below
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert failures == []


def test_nearest_names_ignore_case() -> None:
    assert nearest("AMONT", ["Amount", "id"]) == "Did you mean Amount?"
    assert nearest("zzz", []) == "There are: none."


@pytest.mark.parametrize(
    "name",
    ["durations", "settings", "flow.syntax", "flow.expressions", "flow.aggregates", "flow.schema", "flow.run_settings",
     "flow.flow"],
)  # fmt: skip
def test_the_examples_in_the_docstrings_hold(name: str) -> None:
    result = doctest.testmod(importlib.import_module(f"onefold.{name}"))
    assert result.attempted > 0
    assert result.failed == 0
