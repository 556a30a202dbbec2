"""What the sinks share: keeping their binding, and preparing rows in onefold's own spool.

A sink that spools inherits `SpooledSink` and adds `promise`, `open` and `commit`.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from urllib.parse import quote

import pyarrow as pa

from onefold.errors import (
    InvariantBroken,
    NotSupported,
    SchemaError,
    SettingMissing,
    SinkRefused,
    SinkRestored,
    SinkUnavailable,
    TargetTaken,
    TokenRefused,
    check,
)
from onefold.types import Binding, EpochHead, Mode, Receipt, Token

__all__ = [
    "OP_COLUMN", "RESERVED_PREFIX", "SpooledSink", "check_key", "check_names", "described", "file_failure",
    "file_name", "measured", "refuse_gone", "refuse_taken", "refuse_token", "refuse_view", "refusing_changes",
    "resolved_path", "rows_of", "same_token", "stored_schema", "target_path",
]  # fmt: skip

OP_COLUMN = "_op"
"""In upserts of a change stream: "upsert" or "delete"."""

RESERVED_PREFIX = "_onefold_"
"""Tables and columns of ours begin with it; columns of the user may not."""


class SpooledSink:
    """The default `prepare`, and the binding that it needs.

    The binding stays after `close`, and is there even when `open` could not connect: a sink that is down still
    takes rows into the spool.
    """

    _binding: Binding | None = None

    @property
    def binding(self) -> Binding:
        """Who this sink works for. A check fails before `open`."""
        if self._binding is None:
            raise InvariantBroken("A sink was used before it was opened.", sink=type(self).__name__)
        return self._binding

    def prepare(self, epoch: EpochHead, batches: Iterable[pa.RecordBatch]) -> Receipt:
        """Put the rows into binding.spool. If killed inside: nothing that anyone refers to. Raises DiskError."""
        binding = self.binding
        counted = Counted(batches)
        name = file_name(f"{binding.sink}-{epoch.number}-{binding.incarnation}-{epoch.seal[:8]}")
        detail, inline = binding.spool.put(name, counted, binding.schema)
        return Receipt(epoch.number, "spool", counted.rows, counted.size_bytes, detail, inline)

    def close(self) -> None:
        """Nothing is held open between deliveries."""


class Counted:
    """Batches that are counted as they pass."""

    def __init__(self, batches: Iterable[pa.RecordBatch]) -> None:
        self._batches = batches
        self.rows = 0
        self.size_bytes = 0

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        for batch in self._batches:
            self.rows += batch.num_rows
            self.size_bytes += batch.nbytes
            yield batch


def rows_of(binding: Binding, receipts: Sequence[Receipt]) -> pa.Table:
    """The rows of spooled receipts, in their order, as one table of exactly binding.schema. Raises FileCorrupt."""
    tables = [binding.spool.get(receipt.detail, receipt.inline) for receipt in receipts]
    for receipt, table in zip(receipts, tables, strict=True):
        check(receipt.kind == "spool", "a spooled receipt comes back to a sink that spools", sink=binding.sink)
        check(table.num_rows == receipt.rows, "the spool gives back every row", sink=binding.sink, epoch=receipt.epoch)
        check(table.schema.equals(binding.schema), "spooled rows have the sink's schema", sink=binding.sink)
    return pa.concat_tables(tables) if tables else binding.schema.empty_table()


def measured(batches: Iterable[pa.RecordBatch], most_bytes: int) -> tuple[bool, Iterable[pa.RecordBatch]]:
    """Whether the batches are larger than that, and all of them: no more are taken at once than it needs to tell."""
    rest = iter(batches)
    taken: list[pa.RecordBatch] = []
    size = 0
    for batch in rest:
        taken.append(batch)
        size += batch.nbytes
        if size > most_bytes:
            break
    return size > most_bytes, itertools.chain(taken, rest)


def same_token(left: Token | None, right: Token | None) -> bool:
    """Whether both are absent, or both name one seal of one epoch."""
    if left is None or right is None:
        return left is right
    return (left.epoch, left.seal) == (right.epoch, right.seal)


def refuse_token(binding: Binding, found: Token | None, expected: Token | None) -> TokenRefused:
    """The error of a compare-and-set that did not find what it expected."""
    return TokenRefused(
        f"Sink {binding.sink} does not hold the token that this instance left there.",
        found=described(found),
        expected=described(expected),
        flow=binding.flow,
        lane=binding.lane,
        sink=binding.sink,
    )


def refuse_gone(binding: Binding, label: str) -> None:
    """Raise: the sink's token says that rows were written to a table, and there is no such table."""
    raise SinkRestored(
        f"{label} is gone, and the token of what was written to it is still there.",
        sink=binding.sink,
        found="no such table",
        expected="the table that the token was moved with",
        next_step="Restore the table. To write everything again: delete the sink's row of _onefold_tokens and `onefold "
        "reset` the flow.",
    )


def refuse_view(binding: Binding, label: str) -> None:
    """Raise: rows are written to tables."""
    raise SchemaError(
        f"{label} is a view.", found="a view", expected="a table", next_step="Name its table.", sink=binding.sink
    )


@contextlib.contextmanager
def refusing_changes(label: str, binding: Binding) -> Iterator[None]:
    """Around a second look at a table that was right when the sink was opened: raises SinkRefused for SchemaError."""
    try:
        yield
    except SchemaError as error:
        raise SinkRefused(
            f"{label} was changed meanwhile.",
            found=f"{error.summary} {error.found}",
            next_step=error.next_step,
            sink=binding.sink,
        ) from error


def refuse_taken(binding: Binding, label: str, others: Iterable[Sequence[str]]) -> None:
    """Raise TargetTaken if the target has tokens of others, as (flow, lane, sink), and is not shared knowingly."""
    found = sorted(f"flow {flow}, sink {sink}" for flow, _, sink in others)
    if found and not binding.is_shared:
        raise TargetTaken(found="; ".join(found), flow=binding.flow, sink=binding.sink, target=label)


def check_key(mode: Mode, key: Sequence[str], label: str) -> None:
    """Raise NotSupported unless upserts name a key and appends do not."""
    if mode == "upsert" and not key:
        raise NotSupported(f"An upsert into {label} needs a key.", next_step='Name its columns: key=["…"].')
    if mode == "append" and key:
        raise NotSupported(
            f"An append to {label} takes no key.", found=list(key), next_step="Use upsert, or drop key=."
        )


def check_names(binding: Binding, label: str) -> None:
    """Raise SchemaError unless the columns can stand in a table of SQL: distinct without case, and not ours."""
    seen: dict[str, str] = {}
    for name in binding.schema.names:
        other = seen.setdefault(name.lower(), name)
        if other is not name:
            raise SchemaError(f"{label} takes columns {other} and {name} for one.", sink=binding.sink, column=name)
        if name.lower().startswith(RESERVED_PREFIX) or not name or "\0" in name:
            raise SchemaError(f"Column {name!r} cannot be stored.", sink=binding.sink, column=name)
    missing = [name for name in binding.key if name not in stored_schema(binding).names]
    if missing:
        raise SchemaError(f"The key of {label} is not in its rows.", found=missing, sink=binding.sink)


def described(token: Token | None) -> str:
    """A token in words, short."""
    return "no token" if token is None else f"epoch {token.epoch}, seal {token.seal}"


def file_name(text: str) -> str:
    """Any text as one safe file name: other characters are percent-encoded, so different texts stay different."""
    return quote(text, safe="-_ ").replace(" ", "%20").replace(".", "%2E")


def stored_schema(binding: Binding) -> pa.Schema:
    """The columns that the target keeps: all, but `_op` of an upsert says what to do and is not kept."""
    return pa.schema([column for column in binding.schema if binding.mode == "append" or column.name != OP_COLUMN])


def target_path(text: str) -> str:
    """The path for a sink's fingerprint: absolute, or as written while a ${NAME} of it has no value.

    Building a flow must not need its settings; running it does, and there every one has a value.
    """
    try:
        return str(resolved_path(text))
    except SettingMissing:
        return text


def resolved_path(text: str) -> Path:
    """A path that may hold ${NAME} as an absolute one. Raises SettingMissing."""
    from onefold.settings import resolve

    return Path(resolve(text)).expanduser().absolute()


def file_failure(
    path: Path, label: str, found: object, *, sink: str | None, is_foreign: bool
) -> SinkRefused | SinkUnavailable:
    """What a database file's error means: one that trying again cannot mend, or one that may pass.

    is_foreign: the file is there and is no database that we can open.
    """
    if not path.parent.is_dir():
        why, next_step = f"there is no folder {path.parent}", "Make the folder"
    elif path.is_dir():
        why, next_step = f"{path} is a folder", "Name a file"
    elif is_foreign:
        why, next_step = f"{path} is no database of this kind, or of a newer version", "Name another file"
    elif not os.access(path if path.exists() else path.parent, os.W_OK):
        why, next_step = f"this user may not write {path}", "Grant it, or name another file"
    else:
        return SinkUnavailable(f"{label} cannot be written now.", found=found, sink=sink)
    return SinkRefused(
        f"{label} cannot be written: {why}.",
        found=found,
        next_step=f"{next_step}, then run again: nothing is lost.",
        sink=sink,
    )
