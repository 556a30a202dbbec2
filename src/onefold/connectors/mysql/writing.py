"""Rows into a table: statements with many rows each, inside the caller's transaction.

LOAD DATA LOCAL would be as fast, takes wrong values with a warning, must be allowed by the server, and lets the server
ask for any file of ours. So the rows are literals.
Source: MySQL's reference manual, chapters INSERT … ON DUPLICATE KEY UPDATE and Range Optimization.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from onefold.connectors.mysql.connection import said
from onefold.connectors.mysql.literals import cells, joined, packed
from onefold.connectors.mysql.session import Session, pymysql
from onefold.connectors.mysql.tables import TableName
from onefold.connectors.mysql.types import quoted
from onefold.connectors.spooling import OP_COLUMN, stored_schema
from onefold.errors import RowsRefused
from onefold.types import Binding

__all__ = ["ROWS_AT_FAULT", "Writer"]

ROWS_AT_FAULT = frozenset({
    1048, 1062, 1118, 1169, 1216, 1217, 1242, 1263, 1264, 1265, 1292, 1364, 1365, 1366, 1367, 1369, 1390, 1406, 1411,
    1441, 1451, 1452, 1526, 1557, 1586, 1644, 1690, 1748, 1761, 1762, 1859, 1906, 3140, 3156, 3819, 3903, 4025, 4078,
})  # fmt: skip
"""Errors that say that rows do not fit: values, constraints, partitions, and what a trigger signals. They take back
their own statement, and no more."""

ROW_CHARACTERS = 300
"""Of a refused row in an error."""

STATEMENT_BYTES = 128 << 10
"""Of one statement, unless a single row is longer. Longer ones are no faster."""

BATCH_ROWS = 10_000
BATCH_BYTES = 16 << 20
"""Rows that are made literals at once: their bytes are in memory three times."""

KEYS_AT_ONCE = 200
"""Keys of one DELETE: up to so many the server looks up one by one."""

FRESH = "`_onefold_fresh`"


class Writer:
    """Writes to one table. names_rows: of a statement that is refused, find the row that is at fault."""

    def __init__(self, session: Session, table: TableName, binding: Binding, *, names_rows: bool = True) -> None:
        self._session = session
        self._table = table
        self._binding = binding
        self._names_rows = names_rows
        self._columns = ", ".join(map(quoted, stored_schema(binding).names))
        self._others = [name for name in stored_schema(binding).names if name not in binding.key]

    def append(self, rows: pa.Table) -> None:
        """Insert the rows. Raises RowsRefused and the client's errors, like the other verbs."""
        self._insert(rows, b"")

    def upsert(self, rows: pa.Table) -> None:
        """Put rows, one a key, in the place of those with the same key. `_op` says which are to go.

        NULL is a key value like any other, though a unique index takes two of them for different.
        """
        if OP_COLUMN in rows.schema.names:
            is_kept = pc.not_equal(rows.column(OP_COLUMN), "delete")
            self._delete(rows.filter(pc.invert(is_kept)))
            rows = rows.filter(is_kept)
        rows = rows.select(stored_schema(self._binding).names)
        has_null = _has_null(rows, self._binding.key)
        self._insert(rows.filter(pc.invert(has_null)), self._on_duplicate())
        self._upsert_keys_with_null(rows.filter(has_null))

    # ------------------------------------------------------------------------------------------------------- inner

    def _insert(self, rows: pa.Table, after: bytes) -> None:
        head = f"INSERT INTO {self._table.qualified} ({self._columns}) VALUES ".encode()
        for batch in _batches(rows):
            values = joined([cells(column) for column in batch.columns], before=b"(", after=b"),")
            self._write_all(head, values, cut=1, most_rows=len(values), after=after)

    def _on_duplicate(self) -> bytes:
        """What is done with a key that is there: all else is written, or, where nothing else is, the key on itself."""
        names = [quoted(name) for name in self._others or self._binding.key[:1]]
        if self._session.is_mariadb:
            changes = ", ".join(f"{name} = VALUES({name})" for name in names)
            return f" ON DUPLICATE KEY UPDATE {changes}".encode()
        changes = ", ".join(f"{name} = {FRESH}.{name}" for name in names)
        return f" AS {FRESH} ON DUPLICATE KEY UPDATE {changes}".encode()

    def _delete(self, rows: pa.Table) -> None:
        head = f"DELETE FROM {self._table.qualified} WHERE ".encode()
        for batch in _batches(rows.select(list(self._binding.key))):
            found = self._is_same(batch, after=b" OR ")
            self._write_all(head, found, cut=4, most_rows=KEYS_AT_ONCE)

    def _upsert_keys_with_null(self, rows: pa.Table) -> None:
        """Update those that are there, insert the others."""
        for batch in _batches(rows):
            same = self._is_same(batch.select(list(self._binding.key)))
            if self._others:
                changes = joined([_assigned(name, batch.column(name)) for name in self._others])
                head = f"UPDATE {self._table.qualified} SET ".encode()
                statements = joined([changes, same], before=head, between=b" WHERE ")
            else:
                head = f"SELECT 1 FROM {self._table.qualified} WHERE ".encode()
                statements = joined([same], before=head, after=b" LIMIT 1 FOR UPDATE")
            is_new = [not self._write_one(one.as_py()).rowcount for one in statements]
            self._insert(pa.Table.from_batches([batch]).filter(pa.array(is_new, pa.bool_())), b"")

    def _is_same(self, keys: pa.RecordBatch, *, after: bytes = b"") -> pa.LargeBinaryArray:
        """A condition a row that holds for its key, NULL included."""
        parts = [
            joined([cells(keys.column(name), is_compared=True)], before=f"{quoted(name)} <=> ".encode())
            for name in self._binding.key
        ]
        return joined(parts, before=b"(", between=b" AND ", after=b")" + after)

    def _write_all(
        self, head: bytes, rows: pa.LargeBinaryArray, *, cut: int, most_rows: int, after: bytes = b""
    ) -> None:
        """Statements of many rows each. One that is refused has left nothing, and is tried again by halves: most
        refusals do not say which row they are about."""
        for part, texts in packed(rows, cut=cut, most_bytes=STATEMENT_BYTES, most_rows=most_rows):
            try:
                self._write(b"".join([head, texts, after]))
            except pymysql().Error as error:
                if error.args[0] not in ROWS_AT_FAULT:
                    raise
                if len(part) == 1 or not self._names_rows:
                    raise self._refusal(error, bytes(texts)) from None
                self._write_all(head, part, cut=cut, most_rows=(len(part) + 1) // 2, after=after)

    def _write_one(self, sql: bytes) -> Any:
        try:
            return self._write(sql)
        except pymysql().Error as error:
            if error.args[0] not in ROWS_AT_FAULT:
                raise
            raise self._refusal(error, sql) from None

    def _refusal(self, error: Any, row: bytes) -> RowsRefused:
        text = row.decode("utf-8", "replace")
        shown = text if len(text) <= ROW_CHARACTERS else text[: ROW_CHARACTERS - 1] + "…"
        found = f"{said(error)}; the row: {shown}"
        return RowsRefused(f"{self._table.label} refuses rows.", found=found, sink=self._binding.sink)

    def _write(self, sql: bytes) -> Any:
        return self._session.write(sql, label=self._table.label, sink=self._binding.sink)


def _batches(rows: pa.Table) -> Iterator[pa.RecordBatch]:
    for batch in rows.to_batches(max_chunksize=BATCH_ROWS):
        yield from _halved(batch)


def _halved(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    if batch.num_rows <= 1 or batch.nbytes <= BATCH_BYTES:
        yield batch
        return
    half = batch.num_rows // 2
    yield from _halved(batch.slice(0, half))
    yield from _halved(batch.slice(half))


def _has_null(rows: pa.Table, key: Sequence[str]) -> pa.ChunkedArray:
    found = pc.is_null(rows.column(key[0]))
    for name in key[1:]:
        found = pc.or_(found, pc.is_null(rows.column(name)))
    return found


def _assigned(name: str, column: pa.Array) -> pa.LargeBinaryArray:
    return joined([cells(column)], before=f"{quoted(name)} = ".encode())
