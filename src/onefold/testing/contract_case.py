"""What the contract suites are given, and the words that they use."""

from __future__ import annotations

import datetime as dt
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa

from onefold.protocols import Sink, Source
from onefold.spool import FolderSpool
from onefold.types import (
    Binding,
    EpochHead,
    EpochNumber,
    Guarantee,
    Incarnation,
    Mode,
    Receipt,
    SealId,
    Token,
    TokenMove,
)

__all__ = ["ContractBroken", "SinkBench", "SinkCase", "SourceCase", "expect", "raises"]

ROWS = pa.schema([("id", pa.int64()), ("name", pa.string())])


class ContractBroken(AssertionError):
    """A source or sink does not keep a promise of its protocol."""


@dataclass(frozen=True)
class SinkCase:
    """A sink under test.

    Args:
        name: shown to people.
        make: (folder, table, mode, key) -> a new Sink on the target `table` in that folder. Two made alike share the
            target, also across processes unless is_local.
        is_local: the target lives in this process only.
        make_unavailable: (folder, table): afterwards the target cannot be opened. None: there is no such state.
        fences: opening an instance ends all earlier ones, even before it commits.
        is_finite: the target has no infinity; a row with one is refused.
        after_fork: called first in a child, for a library that does not survive a fork.
        has_plain_columns: names of columns are letters, digits and _; others are refused.
    """

    name: str
    make: Callable[[Path, str, Mode, tuple[str, ...]], Sink]
    is_local: bool = False
    make_unavailable: Callable[[Path, str], None] | None = None
    fences: bool = False
    is_finite: bool = False
    after_fork: Callable[[], None] = lambda: None
    has_plain_columns: bool = False


@dataclass(frozen=True)
class SourceCase:
    """A source under test.

    Args:
        name: shown to people.
        make: folder -> a new Source over what is in that folder.
        feed: (folder, numbers): append a record for each number.
        numbers: a batch -> the numbers in it, in order.
        lose: (folder): destroy input that may not have been read yet. None: it cannot be lost.
        make_unavailable: (folder): afterwards it cannot be opened.
    """

    name: str
    make: Callable[[Path], Source]
    feed: Callable[[Path, Sequence[int]], None]
    numbers: Callable[[pa.RecordBatch], list[int]]
    lose: Callable[[Path], None] | None = None
    make_unavailable: Callable[[Path], None] | None = None


@dataclass
class SinkBench:
    """One target, and instances of a flow that work on it.

    mode, key: of the sink. schema: of its rows. table, flow, sink: names. is_shared: see Binding.
    """

    case: SinkCase
    folder: Path
    mode: Mode = "append"
    key: tuple[str, ...] = ()
    schema: pa.Schema = ROWS
    table: str = "target"
    flow: str = "flow"
    sink: str = "sink"
    is_shared: bool = False
    guarantee: Guarantee = Guarantee.EXACTLY_ONCE
    opened: list[Sink] = field(default_factory=list)

    def binding(self, incarnation: int = 1) -> Binding:
        """The binding of an instance."""
        return Binding(
            journal="0123456789abcdef",
            flow=self.flow,
            lane="0",
            sink=self.sink,
            incarnation=Incarnation(incarnation),
            schema=self.schema,
            mode=self.mode,
            key=self.key,
            guarantee=self.guarantee,
            spool=FolderSpool(self.folder / "spool"),
            is_shared=self.is_shared,
        )

    def instance(self, incarnation: int = 1) -> tuple[Sink, Token | None]:
        """A new instance, opened, and the token that it found."""
        sink = self.case.make(self.folder, self.table, self.mode, self.key)
        token = sink.open(self.binding(incarnation))
        self.opened.append(sink)
        return sink, token

    def prepare(
        self, sink: Sink, epoch: int, rows: Sequence[Mapping[str, Any]], *, move: TokenMove | None = None
    ) -> Receipt:
        """Prepare rows under the epoch's usual seal."""
        batches = [pa.RecordBatch.from_pylist([dict(row) for row in rows], self.schema)]
        return sink.prepare(EpochHead(EpochNumber(epoch), seal(epoch), move), batches)

    def look(self) -> tuple[list[dict[str, Any]], Token | None]:
        """Rows and token as a reader finds them after recovery: a new instance opens, then reads back.

        Where opening ends the instances at work, it is left out.
        """
        read_back: Any = self.case.make(self.folder, self.table, self.mode, self.key)
        if not self.case.fences:
            read_back, _ = self.instance(incarnation=9)
        table, token = read_back.read_back(self.binding(9))
        return table.to_pylist(), token

    def ids(self) -> list[int]:
        """The ids in the target, sorted."""
        return sorted(row["id"] for row in self.look()[0])

    def close(self) -> None:
        """Close every instance, twice."""
        for sink in self.opened:
            sink.close()
            sink.close()

    def under(self, **changes: Any) -> SinkBench:
        """Another sink beside this one."""
        return replace(self, opened=[], **changes)


def seal(epoch: int, history: str = "a") -> SealId:
    """The seal id of an epoch in one history."""
    return SealId(f"{history}{epoch:031d}")


def token(epoch: int, history: str = "a") -> Token:
    """The token after an epoch, with positions that are hard to keep."""
    ends = {"read ü": {"p'1": {"file": epoch, "at": 2**53 + 1, "deep": [None, "\"'"]}}}
    return Token(EpochNumber(epoch), seal(epoch, history), json.loads(json.dumps(ends)))


def move(start: int, end: int, history: str = "a") -> TokenMove:
    """From the token after `start` (0: none) to that after `end`."""
    return TokenMove(token(start) if start else None, token(end, history))


def numbered(*ids: int) -> list[dict[str, Any]]:
    """Rows with these ids."""
    return [{"id": number, "name": f"n{number}"} for number in ids]


def expect(holds: bool, promise: str, *, found: object = None, expected: object = None) -> None:
    """Raise ContractBroken unless it holds."""
    if not holds:
        sides = f"\n  found: {found!r}\n  expected: {expected!r}" if (found, expected) != (None, None) else ""
        raise ContractBroken(f"{promise}{sides}")


def equal(found: object, expected: object, promise: str) -> None:
    """Raise ContractBroken unless both are equal."""
    expect(found == expected, promise, found=found, expected=expected)


def raises(error: type[Exception] | tuple[type[Exception], ...], action: Callable[[], object], promise: str) -> None:
    """Raise ContractBroken unless the action raises this error."""
    try:
        result = action()
    except error:
        return
    except Exception as other:
        raise ContractBroken(f"{promise}: {type(other).__name__} instead: {other}") from other
    raise ContractBroken(f"{promise}: nothing was raised, it gave {result!r}")


def after_restart(receipt: Receipt) -> Receipt:
    """As the journal gives it back: only its fields, nothing that lived in memory."""
    return Receipt(**{**vars(receipt), "detail": dict(receipt.detail)})


def bits(value: object) -> object:
    """Something that equal values share, NaN with NaN."""
    if isinstance(value, float):
        return "NaN" if math.isnan(value) else value
    if isinstance(value, dt.datetime) and value.tzinfo is not None:
        return value.timestamp(), value.microsecond
    return value


def typed_values() -> list[tuple[pa.DataType, list[Any]]]:
    """Types, each with values that are hard to keep."""
    early = dt.datetime(1901, 12, 13, 20, 45, 51, 999999)  # noqa: DTZ001  (naive on purpose)
    aware = early.replace(tzinfo=dt.UTC)
    big = Decimal("12345678901234567890123456.0123456789")
    return [
        (pa.bool_(), [True, False]),
        (pa.int8(), [-128, 127]),
        (pa.int64(), [-(2**63), 2**63 - 1, 2**53 + 1]),
        (pa.uint64(), [2**64 - 1]),
        (pa.float32(), [1.5, -0.25]),
        (pa.float64(), [0.1, 1e308, 5e-324, math.inf]),
        (pa.decimal128(38, 10), [big, -big, Decimal("0.0000000001")]),
        (pa.decimal128(18, 2), [Decimal("12.30")]),
        (pa.string(), ["", "ü日\U0001f600", "a\nb'\"", "NULL", "0123"]),
        (pa.large_string(), ["x"]),
        (pa.dictionary(pa.int32(), pa.string()), ["x", "y"]),
        (pa.binary(), [b"", b"\x00\xff'"]),
        (pa.date32(), [dt.date(1, 1, 1), dt.date(1969, 12, 31), dt.date(9999, 12, 31)]),
        (pa.time64("us"), [dt.time(23, 59, 59, 999999)]),
        (pa.timestamp("us"), [early]),
        (pa.timestamp("ms"), [early.replace(microsecond=999000)]),
        (pa.timestamp("us", "UTC"), [aware]),
        (pa.timestamp("us", "Europe/Berlin"), [aware]),
        (pa.timestamp("ns"), [early]),
        (pa.list_(pa.int64()), [[1, None], []]),
        (pa.struct([("a", pa.int64()), ("b", pa.list_(pa.string()))]), [{"a": 1, "b": ["x", None]}]),
        (pa.map_(pa.string(), pa.int64()), [[("k", 1)]]),
    ]
