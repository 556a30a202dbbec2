"""SQL of the DuckDB sink: its token, its rows, the table that it writes to. No transaction begins or ends here."""

from __future__ import annotations

from dataclasses import dataclass

import duckdb
import numpy as np
import pyarrow as pa

from onefold.connectors.spooling import OP_COLUMN, refuse_token, refuse_view, stored_schema
from onefold.errors import SchemaError, TokenRefused
from onefold.types import Binding, EpochNumber, SealId, Token, TokenMove

__all__ = [
    "TableName", "demand_table", "ensure_table", "ensure_tokens", "is_gone", "move_token", "others", "quoted",
    "read_token", "refuse_inexact", "write",
]  # fmt: skip

_TOKENS = '"_onefold_tokens"'
_ORDER = "_onefold_order"
_CREATE_TOKENS = f"""
    CREATE TABLE IF NOT EXISTS {_TOKENS} (
        flow VARCHAR NOT NULL, lane VARCHAR NOT NULL, sink VARCHAR NOT NULL,
        epoch BIGINT NOT NULL, seal VARCHAR NOT NULL, ends VARCHAR NOT NULL, target VARCHAR,
        PRIMARY KEY (flow, lane, sink))
"""


@dataclass(frozen=True)
class TableName:
    """A table and how it is shown."""

    schema: str
    name: str
    label: str

    @property
    def qualified(self) -> str:
        """As SQL reads it."""
        return f"{quoted(self.schema)}.{quoted(self.name)}"


# --------------------------------------------------------------------------------------------------------------- token


def ensure_tokens(connection: duckdb.DuckDBPyConnection) -> None:
    """The table of tokens; one that is older than the column `target` gets it, with NULL in the rows it has."""
    connection.execute(_CREATE_TOKENS)
    if "target" not in _described(connection, _TOKENS):
        connection.execute(f"ALTER TABLE {_TOKENS} ADD COLUMN target VARCHAR")


def others(connection: duckdb.DuckDBPyConnection, table: TableName, binding: Binding) -> list[tuple[str, str, str]]:
    """(flow, lane, sink) of every other token for this table."""
    owner = (binding.flow, binding.lane, binding.sink)
    rows = connection.execute(f"SELECT flow, lane, sink, target FROM {_TOKENS} WHERE target IS NOT NULL").fetchall()
    return [row[:3] for row in rows if row[:3] != owner and _folded(row[3]) == _folded(table.qualified)]


def is_gone(connection: duckdb.DuckDBPyConnection, table: TableName, binding: Binding) -> bool:
    """Whether the token was moved with rows of this table, and the table is not there."""
    moved = connection.execute(
        f"SELECT target FROM {_TOKENS} WHERE flow = ? AND lane = ? AND sink = ? AND target IS NOT NULL",
        [binding.flow, binding.lane, binding.sink],
    ).fetchall()
    if not any(_folded(target) == _folded(table.qualified) for (target,) in moved):
        return False
    names = connection.execute("SELECT table_schema, table_name FROM information_schema.tables").fetchall()
    return (_folded(table.schema), _folded(table.name)) not in {(_folded(one), _folded(two)) for one, two in names}


def read_token(connection: duckdb.DuckDBPyConnection, binding: Binding) -> Token | None:
    """The sink's token."""
    row = connection.execute(
        f"SELECT epoch, seal, ends FROM {_TOKENS} WHERE flow = ? AND lane = ? AND sink = ?",
        [binding.flow, binding.lane, binding.sink],
    ).fetchone()
    if row is None:
        return None
    return Token(EpochNumber(row[0]), SealId(row[1]), Token.from_json(row[2]).ends)


def move_token(connection: duckdb.DuckDBPyConnection, table: TableName, binding: Binding, move: TokenMove) -> None:
    """Compare-and-set inside the transaction. Raises TokenRefused; the caller's transaction is then forgotten."""
    owner = [binding.flow, binding.lane, binding.sink]
    new = [move.new.epoch, move.new.seal, move.new.to_json(), table.qualified]
    if move.expected is None:
        sql = f"INSERT INTO {_TOKENS} (epoch, seal, ends, target, flow, lane, sink) VALUES (?, ?, ?, ?, ?, ?, ?)"
        moved = read_token(connection, binding) is None
        if moved:
            connection.execute(sql, [*new, *owner])
    else:
        moved = bool(
            connection.execute(
                f"UPDATE {_TOKENS} SET epoch = ?, seal = ?, ends = ?, target = ? "
                "WHERE flow = ? AND lane = ? AND sink = ? AND epoch = ? AND seal = ? RETURNING epoch",
                [*new, *owner, move.expected.epoch, move.expected.seal],
            ).fetchall()
        )
    if not moved:
        raise _refused(connection, binding, move.expected)


def _folded(name: str) -> bytes:
    """DuckDB takes names that differ in the case of ASCII letters for one."""
    return name.encode().lower()


def _refused(connection: duckdb.DuckDBPyConnection, binding: Binding, expected: Token | None) -> TokenRefused:
    connection.rollback()
    return refuse_token(binding, read_token(connection, binding), expected)


# ---------------------------------------------------------------------------------------------------------------- rows


def write(connection: duckdb.DuckDBPyConnection, table: TableName, binding: Binding, rows: pa.Table) -> None:
    """Append the rows, or apply them by key, the last one of a key in order."""
    if binding.mode == "append":
        columns = ", ".join(quoted(name) for name in rows.schema.names)
        connection.register("_onefold_rows", rows)
        connection.execute(f"INSERT INTO {table.qualified} ({columns}) SELECT {columns} FROM _onefold_rows")
        return
    numbered = rows.append_column(_ORDER, pa.array(np.arange(rows.num_rows, dtype=np.int64)))
    connection.register("_onefold_rows", numbered)
    key = ", ".join(quoted(name) for name in binding.key)
    connection.execute(
        "CREATE TEMP TABLE _onefold_last AS SELECT * FROM _onefold_rows "
        f"QUALIFY row_number() OVER (PARTITION BY {key} ORDER BY {_ORDER} DESC) = 1"
    )
    connection.execute(_merge_sql(table, binding))
    connection.execute("DROP TABLE _onefold_last")


def _merge_sql(table: TableName, binding: Binding) -> str:
    stored = stored_schema(binding).names
    same = " AND ".join(f"target.{quoted(name)} IS NOT DISTINCT FROM fresh.{quoted(name)}" for name in binding.key)
    changes = ", ".join(f"{quoted(name)} = fresh.{quoted(name)}" for name in stored if name not in binding.key)
    columns = ", ".join(quoted(name) for name in stored)
    values = ", ".join(f"fresh.{quoted(name)}" for name in stored)
    has_op = OP_COLUMN in binding.schema.names
    lines = [f"MERGE INTO {table.qualified} AS target USING _onefold_last AS fresh ON ({same})"]
    if has_op:
        lines.append(f"WHEN MATCHED AND fresh.{quoted(OP_COLUMN)} = 'delete' THEN DELETE")
    if changes:
        lines.append(f"WHEN MATCHED THEN UPDATE SET {changes}")
    condition = f" AND fresh.{quoted(OP_COLUMN)} <> 'delete'" if has_op else ""
    lines.append(f"WHEN NOT MATCHED{condition} THEN INSERT ({columns}) VALUES ({values})")
    return "\n".join(lines)


# -------------------------------------------------------------------------------------------------------------- schema


def ensure_table(connection: duckdb.DuckDBPyConnection, table: TableName, binding: Binding) -> None:
    """Create the table, unless it is there, and see `demand_table`."""
    _demand_no_view(connection, table, binding)
    connection.register("_onefold_shape", stored_schema(binding).empty_table())
    connection.execute(f"CREATE TABLE IF NOT EXISTS {table.qualified} AS SELECT * FROM _onefold_shape")
    demand_table(connection, table, binding)


def demand_table(connection: duckdb.DuckDBPyConnection, table: TableName, binding: Binding) -> None:
    """Raise SchemaError unless the table has exactly our columns and types, and compares keys by their bytes."""
    _demand_no_view(connection, table, binding)
    connection.register("_onefold_shape", stored_schema(binding).empty_table())
    expected = _described(connection, "_onefold_shape")
    found = _described(connection, table.qualified)
    for name in [*expected, *found]:
        if found.get(name) != expected.get(name):
            raise SchemaError(
                f"Column {name} of {table.label} is not what the flow writes.",
                found=found.get(name, "no such column"),
                expected=expected.get(name, "no such column"),
                next_step="Change the flow's select, or alter or rename the table.",
                sink=binding.sink,
                column=name,
            )
    if binding.mode == "upsert":
        _refuse_collations(connection, table, binding)


def _demand_no_view(connection: duckdb.DuckDBPyConnection, table: TableName, binding: Binding) -> None:
    views = connection.execute("SELECT schema_name, view_name FROM duckdb_views() WHERE NOT internal").fetchall()
    if (_folded(table.schema), _folded(table.name)) in {(_folded(one), _folded(two)) for one, two in views}:
        refuse_view(binding, table.label)


def _described(connection: duckdb.DuckDBPyConnection, relation: str) -> dict[str, str]:
    return {row[0]: row[1] for row in connection.execute(f"DESCRIBE {relation}").fetchall()}


def _refuse_collations(connection: duckdb.DuckDBPyConnection, table: TableName, binding: Binding) -> None:
    """Under a collation different keys would be one: IS NOT DISTINCT FROM follows it."""
    made = connection.execute(
        "SELECT sql FROM duckdb_tables() WHERE schema_name = ? AND table_name = ? AND NOT temporary",
        [table.schema, table.name],
    ).fetchall()
    default = connection.execute("SELECT current_setting('default_collation')").fetchall()
    if any(" COLLATE " in sql for (sql,) in made) or any(name for (name,) in default):
        raise SchemaError(
            f"{table.label} has a collation under which different keys are equal.",
            next_step="Use a table without COLLATE for upserts.",
            sink=binding.sink,
        )


def refuse_inexact(kind: pa.DataType, column: str, label: str) -> None:
    """Raise SchemaError for types that DuckDB would round, shift or not take."""
    is_inexact = (
        pa.types.is_duration(kind)
        or pa.types.is_interval(kind)
        or pa.types.is_null(kind)
        or pa.types.is_float16(kind)
        or pa.types.is_date64(kind)
        or pa.types.is_decimal256(kind)
        or (pa.types.is_decimal(kind) and kind.scale < 0)
        or pa.types.is_union(kind)
    )
    if is_inexact:
        raise SchemaError(
            f"{label} cannot keep column {column} exactly.",
            found=str(kind),
            expected="a type that DuckDB stores without loss",
            next_step="Cast it in select(…), for instance to BIGINT or VARCHAR.",
            column=column,
        )
    for index in range(kind.num_fields):
        refuse_inexact(kind.field(index).type, column, label)


def quoted(name: str) -> str:
    """An identifier as DuckDB reads it back."""
    return '"' + name.replace('"', '""') + '"'
