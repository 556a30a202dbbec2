"""A folder as a data set: its commit log, what plain readers see, what old instances cannot do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import cast

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from onefold import disk
from onefold.connectors.files import FilesSink, files
from onefold.connectors.files.encoding import encoding_named
from onefold.connectors.files.log import KEPT_ENTRIES, CommitLog, Entry
from onefold.errors import DiskFull, FileCorrupt, NotSupported, OutcomeUnknown, SinkUnavailable, TokenRefused
from onefold.testing.contract_case import SinkBench, SinkCase, move, numbered, token
from onefold.types import Guarantee, Receipt

LOG = "_onefold/flow.0.sink/log"
STAGED = "_onefold/flow.0.sink/staged"


def bench_of(folder: Path, kind: type[FilesSink] = FilesSink, **changes: object) -> SinkBench:
    case = SinkCase("files", lambda root, table, mode, key: kind(str(root / table), encoding_named("parquet", "test")))
    return SinkBench(case, folder, **changes)  # type: ignore[arg-type]


@pytest.fixture
def bench(tmp_path: Path) -> SinkBench:
    return bench_of(tmp_path)


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    return tmp_path / "target"


def at(step: str, moment: str, action: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    """Do something once, when a durable step is reached."""

    def observe(name: str, when: str) -> None:
        if (name, when) == (step, moment):
            monkeypatch.setattr(disk, "observer", None)
            action()

    monkeypatch.setattr(disk, "observer", observe)


def commit(bench: SinkBench, sink: object, first: int, last: int | None = None, history: str = "a") -> None:
    for epoch in range(first, (last or first) + 1):
        receipt = bench.prepare(cast("FilesSink", sink), epoch, numbered(epoch))
        cast("FilesSink", sink).commit([receipt], move(epoch - 1, epoch, history))


def test_plain_readers_see_whole_committed_files_only(bench: SinkBench, lake: Path) -> None:
    sink, _ = bench.instance()
    large = [{"id": number, "name": "x" * 100} for number in range(5000)]
    receipt = bench.prepare(sink, 1, large)
    assert receipt.kind == "native"
    assert list(lake.rglob("*.parquet")) == []
    sink.commit([receipt, bench.prepare(sink, 2, numbered(1))], move(0, 2))
    assert sum(pq.read_metadata(path).num_rows for path in lake.glob("*.parquet")) == 5001
    assert list((lake / STAGED).iterdir()) == []
    assert not list((lake / "_onefold").rglob("*.parquet"))


def test_small_epochs_delivered_together_share_one_file(bench: SinkBench, lake: Path) -> None:
    sink, _ = bench.instance()
    receipts = [bench.prepare(sink, epoch, numbered(epoch)) for epoch in range(1, 20)]
    assert {receipt.kind for receipt in receipts} == {"spool"}
    sink.commit(receipts, move(0, 19))
    assert len(list(lake.glob("*.parquet"))) == 1


def test_the_log_stays_short(bench: SinkBench, lake: Path) -> None:
    sink, _ = bench.instance()
    commit(bench, sink, 1, 60)
    assert len(list((lake / LOG).iterdir())) <= KEPT_ENTRIES + 1
    assert bench.instance(2)[1] == token(60)
    assert bench.ids() == list(range(1, 61))


class _Believing(CommitLog):
    """Takes a free number for the next one."""

    def is_newest(self, entry: Entry) -> bool:
        return True


class Believing(FilesSink):
    @property
    def _log(self) -> CommitLog:
        return _Believing(self._folder, self._owner)


def sleep_through_compaction(bench: SinkBench, monkeypatch: pytest.MonkeyPatch) -> object:
    """An instance stops right before its entry; meanwhile another makes so many that the number is free again."""
    zombie, _ = bench.instance(1)
    commit(bench, zombie, 1)
    later, _ = bench.instance(2)
    receipt = bench.prepare(zombie, 2, numbered(-2))
    at("files.commit", "before", lambda: commit(bench, later, 2, 80), monkeypatch)
    try:
        return zombie.commit([receipt], move(1, 2, "z"))
    except (OutcomeUnknown, TokenRefused) as error:
        return error


def test_a_number_that_is_free_again_is_no_win(bench: SinkBench, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(sleep_through_compaction(bench, monkeypatch), OutcomeUnknown)
    assert bench.ids() == list(range(1, 81))
    again, found = bench.instance(3)
    assert found == token(80)
    commit(bench, again, 81, 120)
    assert bench.ids() == list(range(1, 121))


def test_without_looking_again_it_would_be_a_duplicate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    believing = bench_of(tmp_path, Believing)
    assert sleep_through_compaction(believing, monkeypatch) is None
    assert -2 in believing.ids()


def test_open_finishes_the_names_that_a_killed_commit_did_not_give(
    bench: SinkBench, lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def die() -> None:
        raise Killed

    sink, _ = bench.instance()
    at("files.publish", "before", die, monkeypatch)
    with pytest.raises(Killed):
        commit(bench, sink, 1)
    assert list(lake.glob("*.parquet")) == []
    assert bench.instance(2)[1] == token(1)
    assert len(list(lake.glob("*.parquet"))) == 1


@pytest.mark.parametrize("epoch", [1, 3])
def test_leftovers_that_may_still_land_are_kept_and_outrun_ones_removed(
    epoch: int, bench: SinkBench, lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise DiskFull

    sink, _ = bench.instance()
    if epoch > 1:
        commit(bench, sink, 1, epoch - 1)
    at("files.entry", "before", fail, monkeypatch)
    with pytest.raises(SinkUnavailable):
        commit(bench, sink, epoch)
    [leftover] = (lake / STAGED).iterdir()
    later, _ = bench.instance(2)
    assert leftover.exists(), "the instance that made it may be about to commit it"
    commit(bench, later, epoch)
    bench.instance(3)
    assert list((lake / STAGED).iterdir()) == []
    assert bench.ids() == list(range(1, epoch + 1))


def test_a_flipped_byte_in_a_staged_file_stops_the_commit(bench: SinkBench, lake: Path) -> None:
    sink, _ = bench.instance()
    receipt = bench.prepare(sink, 1, [{"id": number, "name": "x" * 100} for number in range(5000)])
    [staged] = (lake / STAGED).iterdir()
    body = bytearray(staged.read_bytes())
    body[len(body) // 2] ^= 1
    staged.write_bytes(body)
    with pytest.raises(FileCorrupt) as corrupt:
        sink.commit([receipt], move(0, 1))
    assert corrupt.value.where["file"] == staged
    assert not list(lake.glob("*.parquet"))


def test_a_flipped_byte_in_a_file_that_waits_for_its_name_is_seen_by_who_opens_next(
    bench: SinkBench, lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink, _ = bench.instance()
    receipt = bench.prepare(sink, 1, numbered(1, 2, 3))

    def killed() -> None:
        raise KeyboardInterrupt

    at("files.publish", "before", killed, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        sink.commit([receipt], move(0, 1))
    [staged] = (lake / STAGED).iterdir()
    body = bytearray(staged.read_bytes())
    body[len(body) // 2] ^= 1
    staged.write_bytes(body)
    with pytest.raises(FileCorrupt) as corrupt:
        bench.instance(2)
    assert corrupt.value.where["file"] == staged


def test_a_staged_file_that_is_gone_stops_the_commit(bench: SinkBench, lake: Path) -> None:
    sink, _ = bench.instance()
    receipt: Receipt = bench.prepare(sink, 1, [{"id": n, "name": "x" * 100} for n in range(5000)])
    [staged] = (lake / STAGED).iterdir()
    staged.unlink()
    with pytest.raises(FileCorrupt, match="not what was prepared"):
        sink.commit([receipt], move(0, 1))
    assert bench.look() == ([], None)


def test_a_repeated_delivery_without_a_token_replaces_nothing(bench: SinkBench) -> None:
    weaker = bench.under(guarantee=Guarantee.AT_LEAST_ONCE)
    sink, _ = weaker.instance()
    receipt = weaker.prepare(sink, 1, numbered(1, 2))
    sink.commit([receipt], None)
    sink.commit([receipt], None)
    assert weaker.ids() == [1, 1, 2, 2]


@pytest.mark.parametrize("what", [b'"rows":1', b"parquet.staged", b'"number":1', b'"epoch\\":1', b"\n"])
def test_a_damaged_entry_is_named(bench: SinkBench, lake: Path, what: bytes) -> None:
    sink, _ = bench.instance()
    commit(bench, sink, 1)
    [entry] = (lake / LOG).glob("*.json")
    body = entry.read_bytes()
    place = body.index(what) + len(what) - 1
    entry.write_bytes(body[:20] if what == b"\n" else body[:place] + b"7" + body[place + 1 :])
    with pytest.raises(FileCorrupt) as caught:
        bench.instance(2)
    assert str(entry) in str(caught.value)


def test_a_column_may_be_added_later(bench: SinkBench) -> None:
    sink, _ = bench.instance()
    commit(bench, sink, 1)
    wider = bench.under(schema=pa.schema([("id", pa.int64()), ("name", pa.string()), ("more", pa.float64())]))
    second, found = wider.instance(2)
    assert found == token(1)
    second.commit([wider.prepare(second, 2, [{"id": 2, "name": "n2", "more": 0.5}])], move(1, 2))
    assert [row["more"] for row in wider.look()[0]] == [None, 0.5]


@pytest.mark.parametrize("name", ["out.jsonl", "out.parquet", "out/*.parquet", "a.csv.gz"])
def test_a_single_file_is_refused_with_the_way_out(name: str) -> None:
    with pytest.raises(NotSupported, match="is not a folder") as caught:
        files(name).as_sink("append", ())
    assert 'of.files("' in caught.value.next_step


def test_upserts_are_refused_with_the_way_out() -> None:
    with pytest.raises(NotSupported, match="appended rows only"):
        files("out").as_sink("upsert", ("id",))


def test_a_format_that_is_not_written_is_refused() -> None:
    with pytest.raises(NotSupported, match="cannot be written as csv"):
        files("out", format="csv").as_sink("append", ())


def test_what_one_flow_wrote_another_reads(bench: SinkBench, lake: Path) -> None:
    sink, _ = bench.instance()
    commit(bench, sink, 1, 3)
    source = files(lake / "*.parquet", complete="rename").as_source(None)
    source.open(None)
    from onefold.protocols import Limit
    from onefold.types import PartitionId

    read = source.read(PartitionId("files"), None, Limit(100, 1 << 20), 0.0)
    assert [row["id"] for batch in read.batches for row in batch.to_pylist()] == [1, 2, 3]


@pytest.mark.parametrize("gone", ["newest", "all"])
def test_a_log_that_lost_entries_is_no_log_that_never_had_them(bench: SinkBench, lake: Path, gone: str) -> None:
    """Found by deleting them: later epochs were then delivered a second time."""
    sink, _ = bench.instance()
    commit(bench, sink, 1, 3)
    entries = sorted((lake / LOG).glob("*.json"))
    for path in entries if gone == "all" else entries[-1:]:
        path.unlink()
    with pytest.raises(FileCorrupt, match="expected: entry 3"):
        bench.instance()
