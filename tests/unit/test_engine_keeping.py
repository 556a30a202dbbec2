"""What is kept of sealed epochs, for how long, and that the state folder does not grow without end."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from onefold.engines.embedded import archive, conductor, snapshotting
from onefold.engines.embedded.inline import InlineRun
from tests.unit.engine_bench import Bench, bench_of


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    yield from bench_of(tmp_path)


def records(bench: Bench) -> list[tuple[int, str]]:
    with sqlite3.connect(bench.folder / "journal.sqlite") as con:
        return list(con.execute("SELECT number, kind FROM record ORDER BY number"))


def attachments(bench: Bench, prefix: str) -> int:
    with sqlite3.connect(bench.folder / "journal.sqlite") as con:
        return con.execute(
            "SELECT count(*) FROM attachment WHERE substr(name, 1, ?) = ?", (len(prefix), prefix)
        ).fetchone()[0]


def let_settle(bench: Bench, run: InlineRun) -> None:
    bench.clock.advance(60)
    run._pump()


@pytest.mark.parametrize("kind", ["stateless", "state", "weaker"])
def test_the_journal_of_a_long_run_stays_bounded(bench: Bench, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "KEEP_EPOCHS", 20)
    monkeypatch.setattr(conductor, "CARRY_EVERY_RECORDS", 30)
    monkeypatch.setattr(snapshotting, "MOST_EPOCHS", 15)
    flow = bench.flow("a", "b", weaker={"b": "at-most-once"} if kind == "weaker" else None)
    if kind == "state":
        flow = stateful(bench)
    run = bench.open(flow)
    most = 0
    for _ in range(12):
        bench.feed(20)
        while run.step():
            pass
        let_settle(bench, run)
        most = max(most, len(records(bench)))
    assert most < 150, most
    run.drain()
    assert bench.numbers("a") == list(range(240))
    bench.feed(1)
    bench.run(flow)
    assert bench.numbers("a") == list(range(241))


def stateful(bench: Bench, **settings: object):
    import onefold as of

    flow = of.Flow("bench", **{"epoch_rows": 1, **settings})
    rows = flow.read(bench.memory("in"), schema={"n": "BIGINT"}, name="in")
    rows.dedup("n", within=None).append(bench.memory("a"), name="a")
    rows.select("n", parity="n % 2").group_by("parity").agg(total="sum(n)").upsert(
        bench.memory("t"), key="parity", name="t"
    )
    return flow
