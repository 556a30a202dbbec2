"""What is kept of sealed epochs, for how long, and that the state folder does not grow without end."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import onefold as of
from onefold.engines.embedded import archive, sealing, snapshotting
from onefold.engines.embedded.inline import InlineRun, ManualClock
from onefold.errors import FileCorrupt
from tests.unit.engine_bench import Bench, bench_of


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    yield from bench_of(tmp_path)


def asked(bench: Bench, query: str) -> int:
    with closing(sqlite3.connect(bench.folder / "journal.sqlite")) as con:
        return int(con.execute(query).fetchone()[0])


def records(bench: Bench) -> int:
    return asked(bench, "SELECT count(*) FROM record")


def payloads(bench: Bench) -> int:
    return asked(bench, "SELECT count(*) FROM attachment WHERE name LIKE 'rows/%'")


def let_settle(bench: Bench, run: InlineRun) -> None:
    bench.clock.advance(2)
    run.pump()


def stateful(bench: Bench, **settings: Any) -> of.Flow:
    """Dedup to `a`, sums by parity to `t`."""
    flow = of.Flow("bench", **{"epoch_rows": 1, **settings})
    rows = flow.read(bench.memory("in"), schema={"n": "BIGINT"}, name="in")
    rows.dedup("n", within=None).append(bench.memory("a"), name="a")
    sums = rows.select("n", parity="n % 2").group_by("parity").agg(total="sum(n)")
    sums.upsert(bench.memory("t"), key="parity", name="t")
    return flow


@pytest.mark.parametrize("kind", ["stateless", "state", "weaker"])
def test_the_journal_of_a_long_run_stays_bounded(bench: Bench, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "KEEP_EPOCHS", 20)
    monkeypatch.setattr(sealing, "CARRY_EVERY_RECORDS", 30)
    monkeypatch.setattr(snapshotting, "MOST_EPOCHS", 15)
    flow = bench.flow("a", "b", weaker={"b": "at-most-once"} if kind == "weaker" else None)
    if kind == "state":
        flow = stateful(bench)
    run = bench.open(flow)
    most = 0
    for _ in range(8):
        bench.feed(20)
        while run.step():
            pass
        let_settle(bench, run)
        most = max(most, records(bench))
    assert most < 120
    run.drain()
    assert bench.numbers("a") == list(range(160))
    bench.feed(1)
    bench.run(flow)
    assert bench.numbers("a") == list(range(161))


@pytest.mark.heavy
def test_the_file_of_a_journal_stays_bounded_over_thousands_of_epochs(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "KEEP_EPOCHS", 100)
    monkeypatch.setattr(sealing, "CARRY_EVERY_RECORDS", 100)
    run = bench.open(bench.flow("a"))
    sizes = []
    for _ in range(20):
        bench.feed(250)
        while run.step():
            pass
        let_settle(bench, run)
        sizes.append(sum(path.stat().st_size for path in bench.folder.rglob("*") if path.is_file()))
    run.drain()
    assert max(sizes[10:]) <= max(sizes[:10]) * 1.02, "pages more or less"
    assert bench.numbers("a") == list(range(5000))


@pytest.mark.parametrize(
    ("settings", "kept"),
    [({"keep_settled": "1 day"}, 20), ({"keep_settled": "5 seconds"}, 2), ({"keep_settled_bytes": 4 * 8}, 4)],
)
def test_settled_payloads_go_by_age_and_by_bytes(bench: Bench, settings: dict[str, Any], kept: int) -> None:
    run = bench.open(bench.flow("a", settle_every="1 second", **settings))
    for _ in range(20):
        bench.feed(1)
        run.step()
        let_settle(bench, run)
    assert payloads(bench) == kept
    run.drain()


class WallLeaps(ManualClock):
    """A wall clock that somebody sets, beside a time that passes evenly."""

    leap_seconds = 0.0

    def now(self) -> float:
        """See Clock."""
        return self.seconds + self.leap_seconds


YEARS = 4e8


@pytest.mark.parametrize("leaps", [(YEARS,), (-YEARS,), (YEARS, -YEARS), (-YEARS, YEARS)])
def test_a_wall_clock_that_leaps_loses_nothing_that_is_not_delivered(bench: Bench, leaps: tuple[float, ...]) -> None:
    clock = bench.clock = WallLeaps()
    run = bench.open(bench.flow("a", "b", settle_every="1 second"))
    for leap in leaps:
        bench.feed(2)
        while run.step():
            pass
        bench.memory("b").set_down(True)
        bench.feed(3)
        while run.step():
            pass
        clock.leap_seconds += leap
        let_settle(bench, run)
        bench.memory("b").set_down(False)
        clock.advance(100)
        run.pump()
    run.drain()
    assert bench.numbers("a") == bench.numbers("b") == list(range(5 * len(leaps)))


def test_settled_payloads_go_by_count(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "KEEP_EPOCHS", 5)
    run = bench.open(bench.flow("a"))
    bench.feed(20)
    while run.step():
        pass
    assert payloads(bench) == 20
    let_settle(bench, run)
    assert payloads(bench) == 5
    run.drain()


def test_files_of_the_spool_go_with_their_payloads_and_leftovers_are_swept(bench: Bench) -> None:
    flow = bench.flow("a", epoch_rows=100_000, keep_settled_bytes=1)
    bench.feed(100_000)
    run = bench.open(flow)
    run.step()
    files = list((bench.folder / "spool").iterdir())
    assert len(files) == 1
    let_settle(bench, run)
    assert list((bench.folder / "spool").iterdir()) == []
    run.drain()
    (bench.folder / "spool" / "1-left.arrow").write_bytes(b"killed before its seal")
    bench.open(flow).drain()
    assert list((bench.folder / "spool").iterdir()) == []


# ---------------------------------------------------------------------------------------------------------- snapshots


def test_state_comes_back_exactly_from_snapshots_and_deltas(bench: Bench) -> None:
    flow = stateful(bench, snapshot_every_bytes=1)
    for _ in range(6):
        bench.feed(5)
        bench.memory("in").feed([{"n": 1}, {"n": 2}])  # seen before
        run = bench.open(flow)
        while run.step():
            let_settle(bench, run)
        run.abandon()
    bench.run(flow)
    assert sorted(bench.numbers("a")) == list(range(30))
    found = {row["parity"]: int(row["total"]) for row in bench.memory("t").rows()}
    assert found == {0: sum(range(0, 30, 2)) + 6 * 2, 1: sum(range(1, 30, 2)) + 6}
    assert len(list((bench.folder / "snapshots").glob("*.snapshot"))) == 2
    assert asked(bench, "SELECT count(*) FROM attachment WHERE name LIKE 'state/%'") < 20


def test_a_corrupt_newest_snapshot_falls_back_to_the_one_before(bench: Bench) -> None:
    flow = stateful(bench, snapshot_every_bytes=1)
    run = bench.open(flow)
    for _ in range(5):
        bench.feed(4)
        while run.step():
            let_settle(bench, run)
    run.drain()
    *_, newest = sorted((bench.folder / "snapshots").glob("*.snapshot"))
    flip(newest)
    bench.memory("in").feed([{"n": n} for n in range(20)])
    bench.feed(1)
    again = bench.run(flow)
    assert any(newest.name in note for note in again.notes)
    assert sorted(bench.numbers("a")) == list(range(21))


def test_no_sound_snapshot_is_an_error_that_names_the_file(bench: Bench) -> None:
    flow = stateful(bench, snapshot_every_bytes=1)
    run = bench.open(flow)
    for _ in range(5):
        bench.feed(4)
        while run.step():
            let_settle(bench, run)
    run.drain()
    for path in (bench.folder / "snapshots").glob("*.snapshot"):
        flip(path)
    with pytest.raises(FileCorrupt) as corrupt:
        bench.open(flow)
    assert corrupt.value.where["file"].suffix == ".snapshot"
    assert "reset" in corrupt.value.next_step


def test_snapshots_come_also_when_every_run_is_short(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Deltas since the last snapshot count over restarts, or a flow run by the hour would replay ever more of them."""
    monkeypatch.setattr(snapshotting, "MOST_EPOCHS", 6)
    for _ in range(8):
        bench.feed(2)
        bench.run(stateful(bench))
    assert len(list((bench.folder / "snapshots").glob("*.snapshot"))) == 2


def flip(path: Path) -> None:
    body = bytearray(path.read_bytes())
    body[len(body) // 2] ^= 0x40
    path.write_bytes(body)
