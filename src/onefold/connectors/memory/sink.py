"""The sink: a table with its token beside it, moved together under a lock; it can be told to fail."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal

import pyarrow as pa

from onefold.connectors.memory.store import Fault, MemoryStore, TokenKey, store_named
from onefold.connectors.spooling import SpooledSink, refuse_taken, refuse_token, rows_of, same_token, stored_schema
from onefold.disk import durable_step
from onefold.errors import OutcomeUnknown, RowsRefused, SchemaError, SinkUnavailable
from onefold.protocols import SinkPromise
from onefold.types import (
    Binding,
    CommitClass,
    EpochHead,
    Handle,
    JsonValue,
    Receipt,
    Token,
    TokenMove,
    canonical_json,
)

__all__ = ["MemorySink"]


class MemorySink(SpooledSink):
    """Append, upsert, deletes; spooled, or staged in the store for commit="together"."""

    def __init__(self, name: str) -> None:
        self._name = name

    @property
    def promise(self) -> SinkPromise:
        """Transactional while the process lives."""
        return SinkPromise(
            commit_class=CommitClass.TRANSACTIONAL,
            modes=frozenset({"append", "upsert"}),
            target=self._label,
            deletes=True,
            can_prepare_together=True,
            conditions=("the rows live in this process's memory and end with it",),
        )

    def open(self, binding: Binding) -> Token | None:
        """The token. Raises SinkUnavailable while the store is down, TargetTaken, SchemaError for another schema."""
        self._binding = binding
        store = self._store
        with store.lock:
            self._refuse_when_down(store)
            refuse_taken(binding, self._label, store.tokens.keys() - {_token_key(binding)})
            schema = stored_schema(binding)
            written = store.written()
            if written is None:
                store.table = schema.empty_table()
            elif not written.schema.equals(schema):
                raise SchemaError(
                    f"{self._label} already holds rows of another schema.",
                    found=str(written.schema),
                    expected=str(schema),
                    sink=binding.sink,
                )
            return store.tokens.get(_token_key(binding))

    def prepare(self, epoch: EpochHead, batches: Iterable[pa.RecordBatch]) -> Receipt:
        """Spooled; with a move in the head: staged in the store, as a database keeps a prepared transaction."""
        if epoch.move is None:
            return super().prepare(epoch, batches)
        binding, store = self.binding, self._store
        rows = pa.Table.from_batches(list(batches), binding.schema)
        detail: dict[str, JsonValue] = {
            "journal": binding.journal,
            "incarnation": binding.incarnation,
            "seal": epoch.seal,
        }
        handle = Handle(binding.journal, binding.incarnation, epoch.number, epoch.seal, detail)
        with durable_step("memory.prepare"), store.lock:
            self._refuse_when_down(store)
            store.staged[canonical_json(detail)] = (_token_key(binding), handle, rows)
        return Receipt(epoch.number, "native", rows.num_rows, rows.nbytes, detail)

    def commit(self, receipts: Sequence[Receipt], move: TokenMove | None) -> None:
        """Rows and token in one step under the store's lock."""
        binding, store = self.binding, self._store
        with durable_step("memory.commit"), store.lock:
            self._refuse_when_down(store)
            fault = store.faults.popleft() if store.faults else None
            if fault is not None and fault != "unknown-landed":
                raise _failure(fault, binding)
            found = store.tokens.get(_token_key(binding))
            if move is not None and not same_token(found, move.expected):
                raise refuse_token(binding, found, move.expected)
            _apply(store, binding, _rows(store, binding, receipts))
            for receipt in receipts:
                store.staged.pop(canonical_json(receipt.detail), None)
            if move is not None:
                store.tokens[_token_key(binding)] = move.new
            if fault is not None:
                raise _failure(fault, binding)

    def handles(self) -> Sequence[Handle]:
        """Staged rows of this flow's sink that were neither committed nor aborted."""
        store = self._store
        with store.lock:
            return [handle for owner, handle, _ in store.staged.values() if owner == _token_key(self.binding)]

    def abort(self, handle: Handle) -> None:
        """Drop staged rows."""
        with durable_step("memory.abort"), self._store.lock:
            self._store.staged.pop(canonical_json(handle.detail), None)

    def read_back(self, binding: Binding) -> tuple[pa.Table, Token | None]:
        """Rows and token under one lock."""
        store = self._store
        with store.lock:
            written = store.written()
            if written is None:
                raise SinkUnavailable(f"{self._label} was never written.", sink=binding.sink)
            return written, store.tokens.get(_token_key(binding))

    @property
    def _store(self) -> MemoryStore:
        return store_named(self._name)

    @property
    def _label(self) -> str:
        return f"memory({self._name})"

    def _refuse_when_down(self, store: MemoryStore) -> None:
        if store.is_down:
            raise SinkUnavailable(f"{self._label} is down.", sink=self.binding.sink)


def _token_key(binding: Binding) -> TokenKey:
    return (binding.flow, binding.lane, binding.sink)


def _failure(fault: Fault, binding: Binding) -> Exception:
    if fault == "unavailable":
        return SinkUnavailable("The sink was told to be unavailable.", sink=binding.sink)
    if fault == "rows-refused":
        return RowsRefused("The sink was told to refuse these rows.", sink=binding.sink)
    return OutcomeUnknown("The sink was told to lose its answer.", sink=binding.sink)


def _rows(store: MemoryStore, binding: Binding, receipts: Sequence[Receipt]) -> pa.Table:
    tables = []
    for receipt in receipts:
        if receipt.kind == "spool":
            tables.append(rows_of(binding, [receipt]))
            continue
        staged = store.staged.get(canonical_json(receipt.detail))
        if staged is None:
            raise OutcomeUnknown("The staged rows are no longer there.", sink=binding.sink, epoch=receipt.epoch)
        tables.append(staged[2])
    return pa.concat_tables(tables) if tables else binding.schema.empty_table()


def _apply(store: MemoryStore, binding: Binding, rows: pa.Table) -> None:
    if binding.mode == "append":
        store.table = pa.concat_tables([store.written(), rows])
        return
    if store.keyed is None:
        current = [] if store.table is None else store.table.to_pylist()
        store.keyed = {_key_of(row, binding.key): row for row in current}
    for row in rows.to_pylist():
        operation = row.pop("_op", "upsert")
        key = _key_of(row, binding.key)
        if operation == "delete":
            store.keyed.pop(key, None)
        else:
            store.keyed[key] = row


def _key_of(row: Mapping[str, object], key: Sequence[str]) -> tuple[object, ...]:
    return tuple(_comparable(row[name]) for name in key)


def _comparable(value: object) -> object:
    """A key value as IS NOT DISTINCT FROM sees it: NULL equals NULL, NaN equals NaN."""
    if isinstance(value, (float, Decimal)) and math.isnan(value):
        return ("NaN",)
    return repr(value) if isinstance(value, (list, dict)) else value
