"""SQL of the MySQL sink: its token, and the table that it writes to. No transaction begins or ends here, except that
every CREATE ends one: so they come before.

Source: MySQL's reference manual, chapters INFORMATION_SCHEMA Tables, Statements That Cause an Implicit Commit, and
INSERT … ON DUPLICATE KEY UPDATE.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from onefold.connectors.databases import bound, misfit, owner_of, read_token, was_moved
from onefold.connectors.mysql.session import Session
from onefold.connectors.mysql.types import declared_type, keeps_exactly, key_characters, quoted
from onefold.connectors.spooling import OP_COLUMN, stored_schema
from onefold.disk import durable_step
from onefold.errors import SchemaError, SinkRefused
from onefold.types import Binding, Token

__all__ = [
    "Shape", "TableName", "definition", "demand_rights", "demand_table", "ensure_token_row", "ensure_tokens",
    "is_gone", "is_there", "make_table", "read_rows",
]  # fmt: skip

_TOKENS = "_onefold_tokens"
OWNER_CHARACTERS = 250
"""Of flow, lane and sink each: the three are one key."""


@dataclass(frozen=True)
class TableName:
    """A table, the database of the tokens, and how it is shown."""

    database: str
    name: str
    tokens_database: str
    label: str

    @property
    def qualified(self) -> str:
        """As SQL reads it."""
        return f"{quoted(self.database)}.{quoted(self.name)}"

    @property
    def tokens(self) -> str:
        """The table of tokens."""
        return f"{quoted(self.tokens_database)}.{quoted(_TOKENS)}"

    @property
    def of_tokens(self) -> TableName:
        """The table of tokens, by itself."""
        return replace(self, database=self.tokens_database, name=_TOKENS, label=self.tokens)

    def folded(self) -> TableName:
        """As a server knows it that compares names without case."""
        return TableName(self.database.lower(), self.name.lower(), self.tokens_database.lower(), self.label)


@dataclass(frozen=True)
class Shape:
    """What a table can take, as it was found.

    definition: see the function. not_null: columns of the stream that refuse NULL. most_characters, most_bytes: how
    long their texts and bytes may be.
    """

    definition: str
    not_null: frozenset[str] = frozenset()
    most_characters: Mapping[str, int] = field(default_factory=dict)
    most_bytes: Mapping[str, int] = field(default_factory=dict)


# --------------------------------------------------------------------------------------------------------------- token


def ensure_tokens(session: Session, table: TableName, binding: Binding) -> None:
    """Make the table of tokens, unless it is there. Raises SinkRefused for one that has no transactions."""
    too_long = [name for name in owner_of(binding) if len(name) > OWNER_CHARACTERS]
    if too_long:
        raise SchemaError("A name is too long for the table of tokens.", found=too_long, expected=OWNER_CHARACTERS)
    if not is_there(session, table.of_tokens):
        _make_database(session, table.tokens_database)
        text = f"varchar({OWNER_CHARACTERS}) NOT NULL"
        with durable_step("mysql.create"):
            session.execute(
                f"CREATE TABLE IF NOT EXISTS {table.tokens} (flow {text}, lane {text}, sink {text}, "
                "epoch bigint NOT NULL, seal varchar(64) NOT NULL, ends longtext NOT NULL, target varchar(300), "
                f"opened bigint NOT NULL, PRIMARY KEY (flow, lane, sink)) {_options(session)}"
            )
    _demand_engine(session, table.of_tokens, binding)


def ensure_token_row(session: Session, table: TableName, binding: Binding) -> Token | None:
    """The sink's token, its row locked: whoever was moving it has ended, one way or the other.

    The row is there from the first opening on, because a row that another transaction is about to insert can be
    neither seen nor waited for. Each opening changes it: InnoDB shows a commit before it is on disk, and the commit of
    a change is on disk only with all that it has seen.
    """
    session.execute(
        f"INSERT INTO {bound(table.tokens)} (flow, lane, sink, epoch, seal, ends, opened) "
        "VALUES (%s, %s, %s, 0, '', '', 1) ON DUPLICATE KEY UPDATE opened = opened + 1",
        owner_of(binding),
    )
    return read_token(session, table, binding, is_locked=True)


def is_gone(session: Session, table: TableName, binding: Binding) -> bool:
    """Whether the token was moved with rows of this table, and the table is not there."""
    return was_moved(session, table, binding) and not is_there(session, table)


# --------------------------------------------------------------------------------------------------------------- table


def make_table(session: Session, table: TableName, binding: Binding) -> None:
    """Create the table from the stream's schema, with a unique index over the key of an upsert, unless it is there.

    Text is compared by its bytes, in all columns.
    """
    if is_there(session, table):
        return
    types = _declared_types(table, binding)
    columns = [f"{quoted(name)} {declared} NULL" for name, declared in types.items()]
    if binding.mode == "upsert":
        columns.append(f"UNIQUE KEY `_onefold_key` ({', '.join(map(quoted, binding.key))})")
    _make_database(session, table.database)
    with durable_step("mysql.create"):
        session.execute(
            f"CREATE TABLE IF NOT EXISTS {table.qualified} ({', '.join(columns)}) {_options(session)} "
            "ROW_FORMAT=DYNAMIC"
        )


def demand_table(session: Session, table: TableName, binding: Binding) -> Shape:
    """What the table can take.

    Raises SchemaError, SinkRefused: no table, one without transactions, a missing column, a type that would change
    values, a column that must be given and is not, no unique key, a key that takes different texts for one, another
    unique index by which an upsert could hit a wrong row.
    """
    if not is_there(session, table):
        raise SinkRefused(
            f"{table.label} does not exist.",
            next_step="Make the table, or say create=True to have it made from the stream's schema.",
            sink=binding.sink,
        )
    _demand_engine(session, table, binding)
    before = definition(session, table)
    found = _columns(session, table)
    types = _declared_types(table, binding)
    for column in stored_schema(binding):
        there = found.get(column.name)
        if there is None or there.is_computed:
            what = "no such column" if there is None else "a computed one"
            raise misfit(table, binding, column.name, what, types[column.name])
        if not keeps_exactly(column.type, there.kind):
            raise misfit(table, binding, column.name, there.kind, types[column.name])
    ours = {name: found[name] for name in stored_schema(binding).names}
    for name, there in found.items():
        if name not in ours and there.must_be_given:
            raise misfit(table, binding, name, "NOT NULL without a default", "a column that may be left out")
    if binding.mode == "upsert":
        _demand_key(session, table, binding, found)
    return Shape(
        before,
        frozenset(name for name, there in ours.items() if there.is_not_null),
        {name: there.length for name, there in ours.items() if there.kind.startswith("varchar")},
        {name: there.length for name, there in ours.items() if there.is_counted_in_bytes},
    )


def demand_rights(session: Session, table: TableName, binding: Binding) -> None:
    """Do all that a delivery does, to no row: an epoch is not sealed that could never be delivered.

    Raises the client's error for what this user, or this server, may not do.
    """
    names = stored_schema(binding).names
    columns, first = ", ".join(map(quoted, names)), quoted(names[0])
    session.execute(f"INSERT INTO {table.qualified} ({columns}) SELECT {columns} FROM {table.qualified} WHERE FALSE")
    if binding.mode == "upsert":
        session.execute(f"UPDATE {table.qualified} SET {first} = {first} WHERE FALSE")
        if OP_COLUMN in binding.schema.names:
            session.execute(f"DELETE FROM {table.qualified} WHERE FALSE")


def definition(session: Session, table: TableName) -> str:
    """The table's CREATE statement, without the number that the next row gets."""
    text = session.execute(f"SHOW CREATE TABLE {table.qualified}").fetchone()[1]
    return re.sub(r"\bAUTO_INCREMENT=\d+ ?", "", text)


def is_there(session: Session, table: TableName) -> bool:
    """Whether there is such a table, which is no view."""
    return _engine(session, table) is not None


def read_rows(session: Session, table: TableName, schema: pa.Schema) -> Sequence[tuple[Any, ...]]:
    """Its rows; none when it is not there. A FLOAT is shown with six digits, unless it is made the double it is."""
    if not is_there(session, table):
        return ()
    columns = ", ".join(
        f"CAST({quoted(field.name)} AS DOUBLE)" if field.type.equals(pa.float32()) else quoted(field.name)
        for field in schema
    )
    rows: Sequence[tuple[Any, ...]] = session.execute(f"SELECT {columns} FROM {table.qualified}").fetchall()
    return rows


# --------------------------------------------------------------------------------------------------------------- inner


@dataclass(frozen=True)
class _Column:
    kind: str
    is_not_null: bool
    must_be_given: bool
    is_computed: bool
    is_numbered: bool
    collation: str | None
    length: int

    @property
    def is_counted_in_bytes(self) -> bool:
        """Of a text in another character set the server counts other bytes than we do."""
        is_ours = self.collation is None or self.collation.startswith("utf8mb4")
        return self.length > 0 and is_ours and not self.kind.startswith("varchar")


def _engine(session: Session, table: TableName) -> str | None:
    """The server may look names up without case where it keeps them with."""
    rows = session.execute(
        "SELECT table_schema, table_name, engine FROM information_schema.tables "
        "WHERE table_schema = %s AND table_name = %s AND table_type = 'BASE TABLE'",
        [table.database, table.name],
    ).fetchall()
    wanted = [table.database, table.name]
    for *names, engine in rows:
        if names == wanted or (session.folds_names and [name.lower() for name in names] == wanted):
            return str(engine)
    return None


def _demand_engine(session: Session, table: TableName, binding: Binding) -> None:
    engine = _engine(session, table)
    if (engine or "").lower() != "innodb":
        raise SinkRefused(
            f"{table.label} has no transactions that we could trust.",
            found=f"ENGINE={engine}",
            expected="ENGINE=InnoDB",
            next_step=f"ALTER TABLE {table.qualified} ENGINE=InnoDB",
            sink=binding.sink,
        )


def _make_database(session: Session, name: str) -> None:
    """Asked first: to create it, even if it is there, needs a right of its own."""
    found = session.execute("SELECT schema_name FROM information_schema.schemata WHERE schema_name = %s", [name])
    if (name,) not in found.fetchall():
        with durable_step("mysql.create"):
            session.execute(f"CREATE DATABASE IF NOT EXISTS {quoted(name)}")


def _options(session: Session) -> str:
    return f"ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE {session.exact}"


def _declared_types(table: TableName, binding: Binding) -> dict[str, str]:
    schema: pa.Schema = stored_schema(binding)
    longest = key_characters([schema.field(name) for name in binding.key]) if binding.key else 0
    return {
        column.name: declared_type(column, table.label, key_characters=longest if column.name in binding.key else 0)
        for column in schema
    }


def _columns(session: Session, table: TableName) -> dict[str, _Column]:
    rows = session.execute(
        """
        SELECT column_name, lower(column_type), is_nullable = 'NO', column_default IS NOT NULL, lower(extra),
               coalesce(generation_expression, '') <> '', collation_name, coalesce(character_maximum_length, 0)
        FROM information_schema.columns WHERE table_schema = %s AND table_name = %s
        """,
        [table.database, table.name],
    ).fetchall()
    return {
        name: _Column(
            kind=kind,
            is_not_null=bool(is_not_null),
            must_be_given=bool(is_not_null and not has_default and "auto_increment" not in extra and not is_computed),
            is_computed=bool(is_computed) or "row start" in extra or "row end" in extra,
            is_numbered="auto_increment" in extra,
            collation=collation,
            length=int(length),
        )
        for name, kind, is_not_null, has_default, extra, is_computed, collation, length in rows
    }


def _demand_key(session: Session, table: TableName, binding: Binding, found: Mapping[str, _Column]) -> None:
    for name in binding.key:
        column = found[name]
        if column.collation is not None and not _is_exact(column, session):
            is_long = not column.kind.startswith("varchar")
            kind = _declared_types(table, binding)[name] if is_long else column.kind
            null = "NOT NULL" if column.is_not_null else "NULL"
            wanted = f"{kind} CHARACTER SET utf8mb4 COLLATE {session.exact} {null}"
            fix = f"ALTER TABLE {table.qualified} MODIFY {quoted(name)} {wanted}"
            what = f"{column.kind} with the collation {column.collation}, under which different texts are equal"
            raise misfit(table, binding, name, column.kind if is_long else what, wanted, fix=fix)
    indexes = _unique_indexes(session, table)
    if not any(index.is_of(binding.key) for index in indexes.values()):
        key = ", ".join(map(quoted, binding.key))
        raise SchemaError(
            f"{table.label} has no unique key of the upsert's columns.",
            found="; ".join(map(str, indexes.values())) or "no unique index",
            expected=f"a primary key or a unique index over exactly {', '.join(binding.key)}, whole",
            next_step=f"ALTER TABLE {table.qualified} ADD UNIQUE KEY ({key})",
            sink=binding.sink,
        )
    numbered = {name for name, column in found.items() if column.is_numbered} - set(stored_schema(binding).names)
    for name, index in indexes.items():
        if not set(binding.key) <= index.whole and not numbered & index.whole:
            raise SchemaError(
                f"{table.label} has another unique index, by which an upsert would change a row of another key.",
                found=f"{name}: {index}",
                expected=f"none but that of {', '.join(binding.key)}, or of a number that the table gives",
                next_step=f"ALTER TABLE {table.qualified} DROP INDEX {quoted(name)}, or upsert by that key.",
                sink=binding.sink,
            )


@dataclass(frozen=True)
class _Index:
    """whole: columns that it holds wholly. parts: beginnings of columns, and expressions."""

    whole: frozenset[str]
    parts: int
    kind: str

    def is_of(self, key: tuple[str, ...]) -> bool:
        return self.whole == set(key) and not self.parts and self.kind == "BTREE"

    def __str__(self) -> str:
        rest = f" and {self.parts} parts" if self.parts else ""
        return f"{', '.join(sorted(self.whole))}{rest}" + ("" if self.kind == "BTREE" else f" ({self.kind})")


def _unique_indexes(session: Session, table: TableName) -> dict[str, _Index]:
    rows = session.execute(
        "SELECT index_name, column_name, sub_part, index_type FROM information_schema.statistics "
        "WHERE table_schema = %s AND table_name = %s AND non_unique = 0",
        [table.database, table.name],
    ).fetchall()
    found: dict[str, _Index] = {}
    for name, column, part, kind in rows:
        index = found.get(name, _Index(frozenset(), 0, kind))
        is_whole = column is not None and part is None
        found[name] = replace(
            index,
            whole=index.whole | ({column} if is_whole else frozenset()),
            parts=index.parts + (not is_whole),
        )
    return found


def _is_exact(column: _Column, session: Session) -> bool:
    """Whether texts are equal only when their bytes are: NO PAD, so that spaces at the end count."""
    return column.collation == session.exact and column.kind.startswith("varchar")
