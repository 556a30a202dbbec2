"""Sources and sinks that only declare what they are, for tests of building."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pyarrow as pa

import onefold as of
from onefold.protocols import Format, Limit, Read, SinkPromise, SourcePromise
from onefold.types import Binding, CommitClass, EpochHead, Mode, PartitionId, Position, Receipt, Token

SCHEMA = {"event_id": "VARCHAR", "merchant": "VARCHAR", "amount": "DECIMAL(18,2)", "paid_at": "TIMESTAMP"}


@dataclass
class FakeSource:
    """A source that only declares."""

    promise: SourcePromise
    memory: pa.Schema | None = None

    def open(self, remembered: pa.Table | None) -> None:
        raise AssertionError("building must not connect")

    def partitions(self) -> Mapping[PartitionId, tuple[Position, Position | None]]:
        raise AssertionError("building must not connect")

    def read(self, partition: PartitionId, start: Position, limit: Limit, wait_seconds: float) -> Read:
        raise AssertionError("building must not connect")

    def settle(self, positions: Mapping[PartitionId, Position]) -> None: ...

    def close(self) -> None: ...


@dataclass
class FakeSink:
    """A sink that only declares."""

    promise: SinkPromise

    def open(self, binding: Binding) -> Token | None:
        raise AssertionError("building must not connect")

    def prepare(self, epoch: EpochHead, batches: Iterable[pa.RecordBatch]) -> Receipt:
        raise AssertionError("building must not connect")

    def commit(self, receipts: Sequence[Receipt], move: object) -> None: ...

    def close(self) -> None: ...


@dataclass
class Fake:
    """An endpoint of the test's wishes."""

    default_name: str
    payload: Literal["bytes", "rows"] = "bytes"
    commit_class: CommitClass = CommitClass.TRANSACTIONAL
    modes: frozenset[Mode] = frozenset({"append", "upsert"})
    deletes: bool = False
    together: bool = False
    is_replayable: bool = True
    inferred: pa.Schema | None = None
    made: list[object] = field(default_factory=list)

    @property
    def label(self) -> str:
        return f"fake({self.default_name})"

    def as_source(self, format: Format | None) -> FakeSource:  # noqa: A002 - the protocol's word
        meta = pa.schema({"_file": pa.string(), "_offset": pa.int64()})
        return FakeSource(SourcePromise(self.is_replayable, True, self.payload, meta, "an error"))

    def as_sink(self, mode: Mode, key: tuple[str, ...]) -> FakeSink:
        self.made.append((mode, key))
        return FakeSink(SinkPromise(self.commit_class, self.modes, self.label, self.deletes, self.together, ("x < y",)))

    def infer_schema(self) -> pa.Schema:
        assert self.inferred is not None
        return self.inferred


def payments_of(flow: of.Flow, **options: Any) -> of.Stream:
    options = {"event_time": "paid_at", "lateness": "10 minutes"} | options
    return flow.read(Fake(options.pop("endpoint", "payments")), SCHEMA, **options)
