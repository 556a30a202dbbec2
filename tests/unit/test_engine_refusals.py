"""Under commit="together", rows that a sink refuses can become dead letters of their epoch."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import onefold as of
from onefold.connectors.memory.sink import MemorySink
from onefold.engines.embedded.deadletters import DeadLetter, dead_letters
from onefold.engines.embedded.runner import run
from onefold.errors import BuildError, NotSupported, RowsRefused, SinkUnavailable, TooManyDead
from onefold.protocols import RefusedRow
from onefold.types import EpochHead, Receipt
from spec.replay import check


class Evens(MemorySink):
    """Refuses odd numbers."""

    left_out: Sequence[RefusedRow] = ()

    def prepare(self, epoch: EpochHead, batches: Iterable[pa.RecordBatch]) -> Receipt:
        rows = pa.Table.from_batches(list(batches), self.binding.schema)
        numbers = rows.column("n").to_pylist()
        assert self.binding.is_sifted
        self.left_out = [RefusedRow(at, f"{n} is odd") for at, n in enumerate(numbers) if n % 2]
        taken = rows.filter(pa.array([n % 2 == 0 for n in numbers], pa.bool_()))
        return replace(super().prepare(epoch, taken.to_batches()), rows=rows.num_rows)

    def refused(self) -> Sequence[RefusedRow]:
        return self.left_out


class Failing(MemorySink):
    """Cannot prepare the second epoch."""

    def prepare(self, epoch: EpochHead, batches: Iterable[pa.RecordBatch]) -> Receipt:
        if epoch.number == 2:
            raise SinkUnavailable("No room.")
        return super().prepare(epoch, batches)


class Bench:
    """Numbers into `all`, which takes them, and `evens`, which does not."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.input, self.all, self.evens = (of.memory(f"{folder} {name}") for name in ("in", "all", "evens"))

    def flow(self, *, other: type[MemorySink] = MemorySink, mode: str = "append", **settings: Any) -> of.Flow:
        flow = of.Flow("sifted", commit="together", **{"epoch_rows": 4, **settings})
        rows = flow.read(self.input, schema={"n": "BIGINT"}, name="in", format="json")
        sink = Evens(self.evens.name)
        if mode == "append":
            rows.append(sink, name="evens", refused="dead-letter")
        else:
            rows.upsert(sink, key="n", name="evens", refused="dead-letter")
        rows.append(other(self.all.name), name="all")
        return flow

    def feed(self, *records: object) -> None:
        self.input.feed_bytes([record if isinstance(record, str) else {"n": record} for record in records])

    def run(self, flow: of.Flow | None = None) -> Any:
        return (flow or self.flow()).run(state=self.folder)

    def letters(self) -> Sequence[DeadLetter]:
        return dead_letters(self.folder / "sifted", limit=1000)[0]

    def books(self) -> Mapping[str, Any]:
        """What the newest seal says of all sinks."""
        sinks: Mapping[str, Any] = self.flow().status(state=self.folder).totals["sinks"]
        return sinks


def numbers(memory: Any) -> list[int]:
    return sorted(row["n"] for row in memory.rows())


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    for memory in (bench.input, bench.all, bench.evens):
        memory.clear()


def test_refused_rows_are_dead_letters_and_all_others_are_written(bench: Bench) -> None:
    bench.feed(*range(10))
    summary = bench.run()
    assert (numbers(bench.all), numbers(bench.evens)) == (list(range(10)), [0, 2, 4, 6, 8])
    assert [json.loads(letter.raw)["n"] for letter in bench.letters()] == [1, 3, 5, 7, 9]
    first = bench.letters()[0]
    assert (first.read, first.reason, first.detail) == ("sink evens", "refused", "1 is odd")
    assert json.loads(first.position) == {"epoch": 1, "row": 1}
    assert summary.dead == 5


def test_the_books_say_what_was_taken_and_what_was_refused(bench: Bench) -> None:
    bench.feed(*range(10))
    bench.run()
    books = bench.books()
    assert (books["evens"]["appended"], books["evens"]["refused"]) == (5, 5)
    assert (books["all"]["appended"], books["_dead_letters"]["appended"]) == (10, 5)
    assert "refused" not in books["all"]


def test_an_upsert_counts_the_keys_that_were_taken(bench: Bench) -> None:
    bench.feed(1, 2, 2, 3, 4)
    bench.run(bench.flow(mode="upsert"))
    books = bench.books()["evens"]
    assert (books["upserted"], books["appended"], books["refused"]) == (2, 0, 2)


def test_refused_rows_stand_behind_what_could_not_be_read(bench: Bench) -> None:
    bench.feed(1, "no number", 2)
    bench.run()
    assert sorted(letter.reason for letter in bench.letters()) == ["malformed", "refused"]
    assert bench.books()["_dead_letters"]["appended"] == 2


def test_an_epoch_of_refused_rows_alone_is_an_epoch(bench: Bench) -> None:
    bench.feed(1, 3, 5, 7, 9, 11)
    bench.run()
    assert numbers(bench.evens) == []
    assert len(bench.letters()) == 6
    bench.feed(12)
    bench.run()
    assert numbers(bench.evens) == [12]


def test_nothing_is_a_dead_letter_of_an_epoch_that_is_given_up(bench: Bench) -> None:
    bench.feed(*range(8))
    with pytest.raises(SinkUnavailable):
        bench.run(bench.flow(other=Failing))
    assert [json.loads(letter.raw)["n"] for letter in bench.letters()] == [1, 3]
    bench.run()
    assert [json.loads(letter.raw)["n"] for letter in bench.letters()] == [1, 3, 5, 7]
    assert (numbers(bench.all), numbers(bench.evens)) == (list(range(8)), [0, 2, 4, 6])


def test_a_run_with_refused_rows_is_a_path_of_the_model(bench: Bench) -> None:
    """Of the second epoch one sink takes nothing; its token moves with the others all the same."""
    bench.feed(*range(4), 1, 3, 5, 7, *range(4))
    trace: list[Mapping[str, Any]] = []
    run(bench.flow().plan, bench.folder / "sifted", until="drained", trace=trace.append)
    sinks = dict.fromkeys(("evens", "all", "_dead_letters"), "exactly-once")
    assert check([{"do": "begin", "sinks": sinks, "together": True}, *trace]) is None


def test_max_dead_holds_for_refused_rows(bench: Bench) -> None:
    bench.feed(*range(1, 400, 2))
    with pytest.raises(TooManyDead, match=r'refused.*\n.*sink .*"row":'):
        bench.run(bench.flow(max_dead="50%", epoch_rows=100))
    assert (numbers(bench.all), bench.letters()) == ([], [])


def test_an_epoch_whose_every_row_is_refused_stops_the_flow_unless_max_dead_is_said(bench: Bench) -> None:
    bench.feed(*range(1, 201, 2))
    with pytest.raises(RowsRefused, match="every row of an epoch") as refused:
        bench.run(bench.flow(epoch_rows=100))
    assert "1 is odd" in str(refused.value.found)
    assert (numbers(bench.all), bench.letters()) == ([], [])
    bench.run(bench.flow(max_dead=1.0, epoch_rows=100))
    assert (len(numbers(bench.all)), len(bench.letters())) == (100, 100)


def test_what_cannot_be_sifted_is_refused_when_the_flow_is_built(tmp_path: Path) -> None:
    apart = of.Flow("apart").read(of.memory("x"), schema={"n": "BIGINT"})
    with pytest.raises(NotSupported, match="nothing of their epoch is decided"):
        apart.append(of.memory("y"), refused="dead-letter")
    together = of.Flow("together", commit="together").read(of.memory("x"), schema={"n": "BIGINT"})
    with pytest.raises(NotSupported, match="cannot leave out rows"):
        together.append(of.files(str(tmp_path)), refused="dead-letter")
    with pytest.raises(BuildError, match="one of two ends"):
        together.append(of.memory("y"), refused="park")  # type: ignore[arg-type]
