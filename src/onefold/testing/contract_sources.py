"""What every source must keep."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from onefold.clock import SystemClock
from onefold.errors import InputLost, SourceUnavailable
from onefold.protocols import Informed, Limit, Read, Reading, Source
from onefold.testing.contract_case import ContractBroken, SourceCase, equal, expect, raises
from onefold.types import PartitionId, Position

__all__ = ["SOURCE_CONTRACTS", "SourceBench"]

_MOST_READS = 2000
_SECONDS = 10.0
_FED = 30
_AMPLE = Limit(rows=1 << 20, size_bytes=1 << 30)


@dataclass
class SourceBench:
    """A source over a folder, read as the engine reads it: positions and memory go through JSON and Arrow."""

    case: SourceCase
    folder: Path
    remembered: list[pa.RecordBatch] = field(default_factory=list)
    source: Source | None = None

    def open(self, *, all_meta: bool = False) -> Source:
        """A new source, given all that was remembered. all_meta: every column that it offers is read."""
        self.close()
        self.source = self.case.make(self.folder)
        if all_meta and isinstance(self.source, Informed):
            names = tuple(self.source.promise.meta.names)
            self.source.told(Reading("flow", "read", None, pa.schema([]), names))
        schema = self.source.memory
        self.source.open(None if schema is None else pa.Table.from_batches(self.remembered, schema))
        return self.source

    def close(self) -> None:
        """Twice."""
        if self.source is not None:
            self.source.close()
            self.source.close()

    def start(self, source: Source) -> tuple[PartitionId, Position]:
        """The only partition, and where it begins."""
        [(partition, (earliest, _))] = source.partitions().items()
        return partition, earliest

    def drain(
        self, source: Source, start: Position, limit: Limit = _AMPLE, keep: Callable[[Read], None] | None = None
    ) -> tuple[list[int], Position]:
        """Read until idle. keep is given every read."""
        partition, _ = self.start(source)
        numbers: list[int] = []
        for _ in range(_MOST_READS):
            read = source.read(partition, start, limit, 0.05)
            expect(sum(map(len, read.batches)) <= limit.rows, "a read gives no more rows than asked for")
            numbers += [number for batch in read.batches for number in self.case.numbers(batch)]
            if read.remember is not None:
                self.remembered.append(read.remember)
            if keep is not None:
                keep(read)
            start = json.loads(json.dumps(read.next))
            if read.is_idle:
                return numbers, start
        raise ContractBroken("the source says when it is idle")


def all_input_comes_once_in_order(bench: SourceBench) -> None:
    """Whatever the limits."""
    bench.case.feed(bench.folder, range(100))
    bench.case.feed(bench.folder, range(100, 137))
    for limit in (_AMPLE, Limit(1, 1 << 30), Limit(7, 1 << 30), Limit(1 << 20, 1), Limit(1 << 20, 100)):
        bench.remembered.clear()
        source = bench.open()
        numbers, _ = bench.drain(source, bench.start(source)[1], limit)
        equal(numbers, list(range(137)), f"all rows once, in order, under {limit}")


def every_position_can_be_read_again(bench: SourceBench) -> None:
    """On the same source and on one opened anew: the same rows to the end."""
    bench.case.feed(bench.folder, range(40))
    source = bench.open()
    seen: list[tuple[Position, int, int]] = []
    count = 0

    def keep(read: Read) -> None:
        nonlocal count
        count += sum(map(len, read.batches))
        seen.append((json.loads(json.dumps(read.next)), count, len(bench.remembered)))

    bench.drain(source, bench.start(source)[1], Limit(9, 1 << 30), keep)
    for position, done, _ in seen:
        again, _ = bench.drain(source, position)
        equal(again, list(range(done, 40)), "the same source reads on from any position")
    every = list(bench.remembered)
    for position, done, known in seen:
        bench.remembered = every[:known]
        again, _ = bench.drain(bench.open(), position)
        equal(again, list(range(done, 40)), "a new source reads on from any position")


def reading_has_no_effect(bench: SourceBench) -> None:
    """The same read twice gives the same."""
    bench.case.feed(bench.folder, range(20))
    source = bench.open()
    partition, start = bench.start(source)
    first, second = (_next_rows(source, partition, start, Limit(5, 1 << 30)) for _ in range(2))
    equal(_numbers(bench, first), _numbers(bench, second), "the same rows")
    equal(first.next, second.next, "the same position")
    equal(_rows(first.remember), _rows(second.remember), "the same memory")


def _next_rows(source: Source, partition: PartitionId, start: Position, limit: Limit) -> Read:
    """What is read from a place, once rows come: a server may need longer than one wait to send them."""
    for _ in range(_MOST_READS):
        read = source.read(partition, start, limit, 0.05)
        if read.batches:
            return read
    raise ContractBroken("rows that are there are read")


def later_input_is_read_after_a_restart(bench: SourceBench) -> None:
    """Position and memory are all that a new process needs."""
    bench.case.feed(bench.folder, range(10))
    source = bench.open()
    numbers, position = bench.drain(source, bench.start(source)[1])
    for round_ in range(3):
        bench.case.feed(bench.folder, range(10 + 5 * round_, 15 + 5 * round_))
        more, position = bench.drain(bench.open() if round_ % 2 else source, position)
        source = bench.source or source
        numbers += more
    equal(numbers, list(range(25)), "nothing is lost or repeated at a restart")


def a_read_ends_where_it_is_told(bench: SourceBench) -> None:
    """Limit.until: stop before that position."""
    bench.case.feed(bench.folder, range(_FED))
    source = bench.open()
    partition, start = bench.start(source)
    middles: list[tuple[Position, int]] = []
    done = 0

    def keep(read: Read) -> None:
        nonlocal done
        done += sum(map(len, read.batches))
        middles.append((json.loads(json.dumps(read.next)), done))

    bench.drain(source, start, Limit(11, 1 << 30), keep)
    end, done = next(middle for middle in middles if 0 < middle[1] < _FED)
    source = bench.open()
    clock, found, place = SystemClock(), [], json.loads(json.dumps(start))
    deadline = clock.monotonic() + _SECONDS
    while place != end and clock.monotonic() < deadline:
        read = source.read(partition, place, Limit(1 << 20, 1 << 30, until=end), 0.05)
        found += _numbers(bench, read)
        place = json.loads(json.dumps(read.next))
    equal(found, list(range(done)), "nothing at or behind the end is read")
    equal(place, end, "it comes to the end that it was told")


def an_empty_source_is_idle(bench: SourceBench) -> None:
    """It gives nothing, moves nowhere, and says so in time."""
    bench.case.feed(bench.folder, [])
    source = bench.open()
    partition, start = bench.start(source)
    clock = SystemClock()
    deadline = clock.monotonic() + _SECONDS
    while True:
        read = source.read(partition, start, _AMPLE, 0.0)
        equal((_numbers(bench, read), read.next), ([], start), "nothing, nowhere")
        if read.is_idle or clock.monotonic() > deadline:
            break
    expect(read.is_idle, "idle")


def rows_say_where_they_come_from(bench: SourceBench) -> None:
    """The meta columns are there, and name each row differently."""
    bench.case.feed(bench.folder, range(10))
    source = bench.open(all_meta=True)
    _, start = bench.start(source)
    found: list[pa.RecordBatch] = []
    bench.drain(source, start, keep=lambda read: found.extend(read.batches))
    table = pa.Table.from_batches(found)
    meta = source.promise.meta
    equal([table.schema.field(name).type for name in meta.names], meta.types, "meta columns as promised")
    places = {json.dumps(row, default=str) for row in table.select(meta.names).to_pylist()}
    equal(len(places), len(table), "every row has its own place")
    if source.promise.payload == "bytes":
        expect("_value" in table.schema.names, "bytes come in _value")


def lost_input_is_an_error(bench: SourceBench) -> None:
    """Never a silent jump."""
    if bench.case.lose is None:
        return
    bench.case.feed(bench.folder, range(50))
    source = bench.open()
    partition, start = bench.start(source)
    read = source.read(partition, start, Limit(5, 1 << 30), 0.0)
    if read.remember is not None:
        bench.remembered.append(read.remember)
    source.close()
    bench.case.lose(bench.folder)
    raises(InputLost, lambda: bench.drain(bench.open(), read.next), "input that is gone is named")


def a_source_that_is_not_there_is_unavailable(bench: SourceBench) -> None:
    """When it is opened."""
    if bench.case.make_unavailable is not None:
        bench.case.make_unavailable(bench.folder)
        raises(SourceUnavailable, bench.open, "an unreachable source is unavailable")


def settling_and_closing_are_harmless(bench: SourceBench) -> None:
    """settle may be repeated; close may come twice, and before open."""
    bench.case.feed(bench.folder, range(5))
    never_opened = bench.case.make(bench.folder)
    never_opened.close()
    source = bench.open()
    partition, start = bench.start(source)
    numbers, position = bench.drain(source, start)
    source.settle({partition: position})
    source.settle({partition: position})
    bench.case.feed(bench.folder, range(5, 8))
    more, _ = bench.drain(bench.open(), position)
    equal(numbers + more, list(range(8)), "settled input is not needed again")


SOURCE_CONTRACTS = (
    all_input_comes_once_in_order,
    every_position_can_be_read_again,
    reading_has_no_effect,
    later_input_is_read_after_a_restart,
    a_read_ends_where_it_is_told,
    an_empty_source_is_idle,
    rows_say_where_they_come_from,
    lost_input_is_an_error,
    a_source_that_is_not_there_is_unavailable,
    settling_and_closing_are_harmless,
)


def _numbers(bench: SourceBench, read: Read) -> list[int]:
    return [number for batch in read.batches for number in bench.case.numbers(batch)]


def _rows(batch: pa.RecordBatch | None) -> Sequence[Any]:
    return [] if batch is None else batch.to_pylist()
