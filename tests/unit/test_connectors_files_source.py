"""Files as a source: growth, completeness, and what may not happen to a file."""

from __future__ import annotations

import gzip
import importlib.util
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from onefold.connectors.files import FilesSource, files
from onefold.errors import InputLost, NotSupported, SettingMissing, SourceError, SourceUnavailable
from onefold.formats.csv import Csv
from onefold.formats.lines import CUT_MARK
from onefold.protocols import Limit, Read, Reading
from onefold.state.rowlog import RowLog
from onefold.types import PartitionId, Position
from tests.needs import need

FILES = PartitionId("files")
AMPLE = Limit(1 << 20, 1 << 30)
NOW = 1_700_000_000.0


class Clock:
    """Stands still until it is told."""

    def __init__(self) -> None:
        self.passed = 0.0

    def monotonic(self) -> float:
        return self.passed

    def now(self) -> float:
        return NOW + self.passed


class Reader:
    """Reads as the engine does, restarting at will. Never waits."""

    def __init__(self, pattern: Path, clock: Clock, complete: str = "age:2s", kind: str | None = None) -> None:
        self.endpoint = files(pattern, complete=complete, format=kind)
        self.clock = clock
        self.position: Position = None
        self.memory: list[pa.RecordBatch] = []
        self.source = self._opened()

    def _opened(self) -> FilesSource:
        source = self.endpoint.as_source(None)
        source._clock = self.clock
        source.open(pa.Table.from_batches(self.memory, source.memory))
        return source

    def restart(self) -> Reader:
        self.source.close()
        self.source = self._opened()
        return self

    def read(self, limit: Limit = AMPLE) -> Read:
        read = self.source.read(FILES, self.position, limit, 0.0)
        self.position = json.loads(json.dumps(read.next))
        if read.remember is not None:
            self.memory.append(read.remember)
        return read

    def lines(self) -> list[bytes]:
        """Everything that can be read now."""
        found: list[bytes] = []
        for _ in range(1000):
            read = self.read()
            found += [value for batch in read.batches for value in batch.column("_value").to_pylist()]
            if not read.batches:
                return found
        raise AssertionError("reading does not end")

    @property
    def is_idle(self) -> bool:
        return self.read().is_idle


@pytest.fixture
def clock() -> Clock:
    return Clock()


def write(path: Path, content: bytes, *, age: float = 0.0, clock: Clock | None = None) -> None:
    """Append, and set when that was."""
    with path.open("ab") as file:
        file.write(content)
    moment = NOW + (clock.passed if clock else 0.0) - age
    os.utime(path, (moment, moment))


def test_a_line_is_read_when_it_is_whole(tmp_path: Path, clock: Clock) -> None:
    write(tmp_path / "a.jsonl", b"one\ntw")
    reader = Reader(tmp_path / "*.jsonl", clock)
    assert reader.lines() == [b"one"]
    assert not reader.is_idle
    write(tmp_path / "a.jsonl", b"o")
    assert reader.lines() == []
    write(tmp_path / "a.jsonl", b"\nthree\n")
    assert reader.lines() == [b"two", b"three"]
    assert reader.is_idle


def test_the_unterminated_last_line_of_a_finished_file_is_a_record(tmp_path: Path, clock: Clock) -> None:
    write(tmp_path / "a.jsonl", b"one\ntwo")
    reader = Reader(tmp_path / "*.jsonl", clock)
    assert reader.lines() == [b"one"]
    clock.passed = 2.0
    assert reader.lines() == [b"two"]
    assert reader.is_idle
    assert reader.restart().lines() == []


def test_a_file_that_appears_later_is_read_later_whatever_its_name(tmp_path: Path, clock: Clock) -> None:
    write(tmp_path / "b.jsonl", b"1\n")
    reader = Reader(tmp_path / "*.jsonl", clock)
    assert reader.lines() == [b"1"]
    write(tmp_path / "c.jsonl", b"3\n")
    write(tmp_path / "a.jsonl", b"2\n")
    assert reader.lines() == [b"2", b"3"]
    assert reader.restart().lines() == []
    assert [row["path"] for batch in reader.memory for row in batch.to_pylist()] == ["b.jsonl", "a.jsonl", "c.jsonl"]


@pytest.mark.parametrize("restarts", [False, True])
def test_files_that_grow_together_lose_nothing(tmp_path: Path, clock: Clock, restarts: bool) -> None:
    reader, found, expected = Reader(tmp_path / "*.log", clock), [], []
    for round_ in range(12):
        for name in ("a", "b", "c"):
            line = f"{name}{round_}".encode()
            expected.append(line)
            whole = line + b"\n"
            cut = round_ % len(whole)
            write(tmp_path / f"{name}.log", whole[:cut], clock=clock)
            found += reader.lines()
            write(tmp_path / f"{name}.log", whole[cut:], clock=clock)
            found += reader.lines()
        clock.passed += 1.0
        if restarts:
            reader.restart()
    clock.passed += 10.0
    found += reader.lines()
    assert sorted(found) == sorted(expected)
    assert reader.is_idle


def test_switching_between_growing_files_is_rare_enough_to_be_remembered(tmp_path: Path, clock: Clock) -> None:
    reader = Reader(tmp_path / "*.log", clock)
    for _ in range(100):
        write(tmp_path / "a.log", b"x\n", clock=clock)
        write(tmp_path / "b.log", b"y\n", clock=clock)
        clock.passed += 0.1
        reader.lines()
    assert sum(len(batch) for batch in reader.memory) <= 10


def test_a_marker_says_when_a_file_may_be_read(tmp_path: Path, clock: Clock) -> None:
    write(tmp_path / "a.jsonl", b"one")
    reader = Reader(tmp_path / "*", clock, complete="marker:.done", kind="json")
    assert reader.lines() == []
    assert reader.is_idle
    (tmp_path / "a.jsonl.done").touch()
    assert reader.lines() == [b"one"]


def test_compressed_files_are_read_when_finished(tmp_path: Path, clock: Clock) -> None:
    packed = gzip.compress(b"one\ntwo\n")
    write(tmp_path / "a.jsonl.gz", packed[:-4])
    reader = Reader(tmp_path / "*.gz", clock, kind="json")
    assert reader.lines() == []
    assert not reader.is_idle
    write(tmp_path / "a.jsonl.gz", packed[-4:])
    clock.passed = 2.0
    assert reader.lines() == [b"one", b"two"]


def zstd(content: bytes) -> bytes:
    """One frame."""
    need(importlib.util.find_spec("zstandard"), "no zstandard")
    import zstandard

    return zstandard.ZstdCompressor().compress(content)


PACK = {"gz": gzip.compress, "zst": zstd}


@pytest.mark.parametrize("kind", PACK)
def test_compressed_pieces_one_after_the_other_are_one_file(tmp_path: Path, clock: Clock, kind: str) -> None:
    pack = PACK[kind]
    write(tmp_path / f"a.jsonl.{kind}", pack(b"one\ntw") + pack(b"") + pack(b"o\nthree\n"), age=10)
    assert Reader(tmp_path / f"*.{kind}", clock, kind="json").lines() == [b"one", b"two", b"three"]


@pytest.mark.parametrize("kind", PACK)
@pytest.mark.parametrize("kept", [-1, -4, 12])
@pytest.mark.parametrize("before", [b"", b"zero\n" * 1000])
def test_a_truncated_compressed_file_is_an_error_not_an_early_end(
    tmp_path: Path, clock: Clock, kind: str, kept: int, before: bytes
) -> None:
    pack = PACK[kind]
    whole = (pack(before) if before else b"", pack(b"one\ntwo\n" * 1000))
    write(tmp_path / f"a.jsonl.{kind}", whole[0] + whole[1][:kept], age=10)
    with pytest.raises(SourceError, match=rf"a\.jsonl\.{kind} is not a whole {kind} file"):
        Reader(tmp_path / f"*.{kind}", clock, kind="json").lines()


def test_a_half_written_parquet_file_waits_then_is_an_error(tmp_path: Path, clock: Clock) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1 half")
    os.utime(tmp_path / "a.parquet", (NOW, NOW))
    reader = Reader(tmp_path / "*.parquet", clock)
    assert reader.read().batches == []
    clock.passed = 3.0
    with pytest.raises(SourceError, match=r"a\.parquet is not a whole Parquet file"):
        reader.read()


def test_parquet_resumes_at_any_row_of_any_group(tmp_path: Path, clock: Clock) -> None:
    pq.write_table(pa.table({"n": range(100)}), tmp_path / "a.parquet", row_group_size=30)
    os.utime(tmp_path / "a.parquet", (NOW - 9, NOW - 9))
    for size in (1, 29, 30, 31, 100):
        reader, found = Reader(tmp_path / "*.parquet", clock), []
        while not (read := reader.restart().read(Limit(size, 1 << 30))).is_idle:
            found += [
                row["_offset"] for batch in read.batches for row in batch.to_pylist() if row["n"] == row["_offset"]
            ]
        assert found == list(range(100))


class TestLoss:
    """Never a silent jump."""

    @pytest.fixture
    def reader(self, tmp_path: Path, clock: Clock) -> Reader:
        write(tmp_path / "a.jsonl", b"one\ntwo\nthree\n")
        reader = Reader(tmp_path / "*.jsonl", clock)
        assert sum(map(len, reader.read(Limit(1, 1 << 30)).batches)) == 1
        return reader

    def test_a_file_that_vanished_is_named_with_the_offset(self, reader: Reader, tmp_path: Path) -> None:
        (tmp_path / "a.jsonl").unlink()
        with pytest.raises(InputLost, match=r"a\.jsonl vanished") as caught:
            reader.restart().read()
        assert "byte 4" in str(caught.value)

    def test_a_file_that_shrank(self, reader: Reader, tmp_path: Path) -> None:
        os.truncate(tmp_path / "a.jsonl", 2)
        with pytest.raises(InputLost):
            reader.restart().read()

    def test_a_file_whose_read_part_was_rewritten(self, reader: Reader, tmp_path: Path) -> None:
        (tmp_path / "a.jsonl").write_bytes(b"ONE\ntwo\nthree\nfour\n")
        with pytest.raises(InputLost, match="was replaced"):
            reader.restart().read()

    def test_a_rewrite_behind_the_first_kilobyte_is_seen_too(self, tmp_path: Path, clock: Clock) -> None:
        write(tmp_path / "a.jsonl", b"same\n" * 1000)
        reader = Reader(tmp_path / "*.jsonl", clock)
        reader.read(Limit(900, 1 << 30))
        (tmp_path / "a.jsonl").write_bytes(b"same\n" * 500 + b"else\n" * 500)
        with pytest.raises(InputLost, match="was rewritten"):
            reader.restart().read()

    def test_a_fresh_file_that_vanishes_may_have_held_more(self, reader: Reader, tmp_path: Path) -> None:
        reader.lines()
        (tmp_path / "a.jsonl").unlink()
        with pytest.raises(InputLost):
            reader.restart().lines()

    def test_a_finished_file_may_be_removed_once_it_is_read(self, reader: Reader, tmp_path: Path, clock: Clock) -> None:
        clock.passed = 5.0
        reader.lines()
        (tmp_path / "a.jsonl").unlink()
        write(tmp_path / "b.jsonl", b"four\n")
        assert reader.restart().lines() == [b"four"]

    def test_a_file_truncated_while_it_is_followed(self, reader: Reader, tmp_path: Path) -> None:
        reader.lines()
        os.truncate(tmp_path / "a.jsonl", 2)
        with pytest.raises(InputLost, match="shrank"):
            reader.read()

    def test_a_file_replaced_by_a_longer_one_with_the_same_beginning_goes_on(
        self, reader: Reader, tmp_path: Path
    ) -> None:
        reader.lines()
        (tmp_path / "new").write_bytes(b"one\ntwo\nthree\nfour\n")
        (tmp_path / "new").rename(tmp_path / "a.jsonl")
        assert reader.lines() == [b"four"]

    def test_a_file_rewritten_after_it_was_read_is_named_and_not_read_again(
        self, reader: Reader, tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
    ) -> None:
        clock.passed = 5.0
        reader.lines()
        write(tmp_path / "b.jsonl", b"b\n")
        assert reader.lines() == [b"b"]
        (tmp_path / "a.jsonl").write_bytes(b"something else, and longer than before\n")
        with caplog.at_level(logging.WARNING, "onefold"):
            assert reader.lines() == []
            assert reader.lines() == []
        assert [
            record.getMessage() for record in caplog.records if "a.jsonl was rewritten" in record.getMessage()
        ] != []
        assert len(caplog.records) == 1
        assert ["a.jsonl" in remark for remark in reader.source.remarks()] == [True]
        (tmp_path / "a.jsonl").rename(tmp_path / "new.jsonl")
        assert reader.lines() == [b"something else, and longer than before"]
        assert reader.source.remarks() == []

    @pytest.mark.parametrize("content", [b"one\ntwo\nTHREE\n", b"one\n", b"one\ntwo\nTHREE\nfour\n"])
    def test_what_is_written_over_a_file_that_was_read_is_named(
        self, reader: Reader, tmp_path: Path, clock: Clock, content: bytes
    ) -> None:
        clock.passed = 5.0
        reader.lines()
        write(tmp_path / "b.jsonl", b"b\n", clock=clock)
        assert reader.lines() == [b"b"]
        (tmp_path / "a.jsonl").write_bytes(content)
        assert reader.restart().lines() == []
        assert ["a.jsonl was rewritten" in remark for remark in reader.source.remarks()] == [True]


class TestRenames:
    """A file is followed under its new name; what comes in its old place is a new file."""

    @pytest.fixture
    def reader(self, tmp_path: Path, clock: Clock) -> Reader:
        write(tmp_path / "app.jsonl", b"one\ntwo\n", age=9)
        return Reader(tmp_path / "*.jsonl", clock)

    @pytest.mark.parametrize("restarts", [False, True])
    @pytest.mark.parametrize("others", [0, 1])
    @pytest.mark.parametrize("name", ["app-1.jsonl", "z.jsonl"])
    def test_a_file_that_was_read_is_not_read_again(
        self, reader: Reader, tmp_path: Path, clock: Clock, restarts: bool, others: int, name: str
    ) -> None:
        assert reader.lines() == [b"one", b"two"]
        for _ in range(others):  # app.jsonl is not the newest segment any more
            write(tmp_path / "b.jsonl", b"b\n", age=9)
            assert reader.lines() == [b"b"]
        (tmp_path / "app.jsonl").rename(tmp_path / name)
        reader = reader.restart() if restarts else reader
        assert reader.lines() == []
        assert reader.is_idle
        write(tmp_path / "app.jsonl", b"new\n")
        assert reader.lines() == [b"new"]
        write(tmp_path / name, b"three\n", age=9)  # the writer still had it open
        reader = reader.restart() if restarts else reader
        assert reader.lines() == [b"three"]
        clock.passed = 9.0
        assert reader.restart().lines() == []
        assert reader.source.remarks() == []

    @pytest.mark.parametrize("restarts", [False, True])
    def test_a_file_that_is_renamed_while_it_is_read_is_read_to_its_end(
        self, reader: Reader, tmp_path: Path, restarts: bool
    ) -> None:
        assert sum(map(len, reader.read(Limit(1, 1 << 30)).batches)) == 1
        (tmp_path / "app.jsonl").rename(tmp_path / "app-1.jsonl")
        write(tmp_path / "app.jsonl", b"new\n")
        reader = reader.restart() if restarts else reader
        assert reader.lines() == [b"two", b"new"]
        assert reader.restart().lines() == []

    def test_a_fresh_file_that_was_read_and_renamed_is_no_loss(self, tmp_path: Path, clock: Clock) -> None:
        write(tmp_path / "app.jsonl", b"one\n")
        reader = Reader(tmp_path / "*.jsonl", clock)
        assert reader.lines() == [b"one"]
        (tmp_path / "app.jsonl").rename(tmp_path / "app-1.jsonl")
        assert reader.restart().lines() == []
        write(tmp_path / "app-1.jsonl", b"two\n")
        assert reader.lines() == [b"two"]

    def test_rotation_again_and_again_loses_and_doubles_nothing(self, reader: Reader, tmp_path: Path) -> None:
        found = reader.lines()
        for count in range(6):
            for old in reversed(range(count)):
                (tmp_path / f"app.{old}.jsonl").rename(tmp_path / f"app.{old + 1}.jsonl")
            (tmp_path / "app.jsonl").rename(tmp_path / "app.0.jsonl")
            write(tmp_path / "app.jsonl", f"{count}\n".encode(), age=9 if count % 2 else 0)
            reader = reader if count % 3 else reader.restart()
            found += reader.lines()
        assert found == [b"one", b"two", *(str(count).encode() for count in range(6))]
        assert reader.restart().lines() == []

    def test_a_second_name_of_a_file_is_the_same_file(self, reader: Reader, tmp_path: Path) -> None:
        assert reader.lines() == [b"one", b"two"]
        os.link(tmp_path / "app.jsonl", tmp_path / "b.jsonl")
        assert reader.restart().lines() == []

    def test_compressed_and_parquet_files_are_followed(self, tmp_path: Path, clock: Clock) -> None:
        write(tmp_path / "a.jsonl.gz", gzip.compress(b"one\n"), age=9)
        pq.write_table(pa.table({"n": [1]}), tmp_path / "a.parquet")
        packed, rows = Reader(tmp_path / "*.gz", clock, kind="json"), Reader(tmp_path / "*.parquet", clock, "rename")
        assert (packed.lines(), sum(map(len, rows.read().batches))) == ([b"one"], 1)
        (tmp_path / "a.jsonl.gz").rename(tmp_path / "b.jsonl.gz")
        (tmp_path / "a.parquet").rename(tmp_path / "b.parquet")
        assert (packed.restart().lines(), rows.restart().read().batches) == ([], [])

    def test_a_later_file_with_the_same_bytes_and_inode_is_a_new_file(
        self, reader: Reader, tmp_path: Path, clock: Clock
    ) -> None:
        assert reader.lines() == [b"one", b"two"]
        clock.passed = 5.0
        reader.lines()
        kept = tmp_path / "kept"
        (tmp_path / "app.jsonl").rename(kept)  # its inode, given to a file that was written later
        os.utime(kept, (NOW + 4, NOW + 4))
        kept.rename(tmp_path / "b.jsonl")
        assert reader.restart().lines() == [b"one", b"two"]
        assert ["may" in remark or "copy" in remark for remark in reader.source.remarks()] == [True]

    @pytest.mark.parametrize("is_in_hand", [False, True])
    def test_files_that_were_copied_elsewhere_and_back_are_known_by_their_paths(
        self, reader: Reader, tmp_path: Path, is_in_hand: bool
    ) -> None:
        """As from a backup: each has the number that another one had."""
        paths = [tmp_path / f"{name}.jsonl" for name in "abc"]
        for path in paths:
            path.write_text("".join(f'{{"n": "{path.stem}{n}"}}\n' for n in range(40)))
        found: list[bytes] = []
        if is_in_hand:
            for batch in reader.read(Limit(70, 1 << 30)).batches:
                found += batch["_value"].to_pylist()
        else:
            found += reader.lines()
        bodies = [(path.read_bytes(), path.stat().st_mtime_ns) for path in paths]
        for path in paths:
            path.rename(path.with_suffix(".old"))
        for place, path in enumerate(paths):
            other = paths[(place + 1) % len(paths)].with_suffix(".old")
            body, modified = bodies[place]
            other.write_bytes(body)
            os.utime(other, ns=(modified, modified))
            other.rename(path)
        found += reader.restart().lines()
        found = [line.strip() for line in found if line.startswith(b"{")]
        assert sorted(found) == sorted(line for body, _ in bodies for line in body.splitlines())

    def test_a_copy_of_a_truncated_file_is_named(self, reader: Reader, tmp_path: Path) -> None:
        assert reader.lines() == [b"one", b"two"]
        (tmp_path / "app-1.jsonl").write_bytes((tmp_path / "app.jsonl").read_bytes())
        (tmp_path / "app.jsonl").write_bytes(b"")
        assert reader.restart().lines() == [b"one", b"two"]
        assert any("is a copy" in remark for remark in reader.source.remarks())

    def test_what_earlier_versions_remembered_is_read(self, reader: Reader, tmp_path: Path) -> None:
        assert reader.lines() == [b"one", b"two"]
        added = ("inode", "left_sum", "left_modified")
        log = RowLog(reader.source.memory)
        log.apply_delta([batch.drop_columns([*added]) for batch in reader.memory])
        reader.memory = log.table().to_batches()
        reader.position = {name: reader.position[name] for name in ("file", "at", "sum", "whole")}
        assert reader.restart().lines() == []
        write(tmp_path / "b.jsonl", b"b\n")
        assert reader.lines() == [b"b"]


class TestCsv:
    """A header a file, and quotes that hide line ends."""

    def read(self, folder: Path, schema: pa.Schema | None = None) -> list[bytes]:
        source = files(folder / "*.csv", complete="rename").as_source(None)
        if schema is not None:
            source.told(Reading("flow", "in", Csv(), schema))
        source.open(None)
        return [
            value for batch in source.read(FILES, None, AMPLE, 0.0).batches for value in batch["_value"].to_pylist()
        ]

    def test_the_header_of_every_file_is_left_out(self, tmp_path: Path) -> None:
        (tmp_path / "a.csv").write_bytes(b'n,t\n1,"x\ny"\n')
        (tmp_path / "b.csv").write_bytes(b"n,t\n")
        (tmp_path / "c.csv").write_bytes(b"n,t\r\n2,z\r\n")
        assert self.read(tmp_path) == [b'1,"x\ny"', b"2,z"]

    def test_a_header_with_other_columns_stops_the_read(self, tmp_path: Path) -> None:
        (tmp_path / "a.csv").write_bytes(b"t,n\nx,1\n")
        with pytest.raises(SourceError, match="header"):
            self.read(tmp_path, pa.schema([("n", pa.int64()), ("t", pa.string())]))


def test_a_record_that_is_too_long_comes_in_marked_pieces(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"ok\n" + b"x" * 12_000 + b"\nok\n")
    source = files(tmp_path / "*.jsonl", complete="rename", max_record_bytes=5000).as_source(None)
    source.open(None)
    values = [v for batch in source.read(FILES, None, AMPLE, 0.0).batches for v in batch["_value"].to_pylist()]
    assert [value.endswith(CUT_MARK) for value in values] == [False, True, True, False, False]


def test_two_million_malformed_lines_are_read_in_bounded_memory(tmp_path: Path) -> None:
    with (tmp_path / "a.jsonl").open("wb") as file:
        for _ in range(20):
            file.write(b"{not json at all}\n" * 100_000)
    source = files(tmp_path / "*.jsonl", complete="rename").as_source(None)
    source.open(None)
    before, most, rows = pa.total_allocated_bytes(), 0, 0
    position: Position = None
    while not (read := source.read(FILES, position, Limit(50_000, 4 << 20), 0.0)).is_idle:
        position = read.next
        rows += sum(map(len, read.batches))
        most = max(most, pa.total_allocated_bytes() - before)
    assert rows == 2_000_000
    assert most < 64 << 20


def test_a_pattern_with_a_setting_is_resolved_when_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ONEFOLD_TEST_IN", raising=False)
    endpoint = files("${ONEFOLD_TEST_IN}/payments/*.jsonl")
    assert (endpoint.label, endpoint.default_name) == ("files(${ONEFOLD_TEST_IN}/payments/*.jsonl)", "payments")
    source = endpoint.as_source(None)
    with pytest.raises(SettingMissing):
        source.open(None)
    monkeypatch.setenv("ONEFOLD_TEST_IN", str(tmp_path))
    (tmp_path / "payments").mkdir()
    (tmp_path / "payments" / "a.jsonl").write_bytes(b"1\n")
    source.open(None)
    [batch] = source.read(FILES, None, AMPLE, 0.0).batches
    assert batch["_file"].to_pylist() == ["a.jsonl"]


def test_a_folder_is_read_with_its_subfolders_but_without_private_ones(tmp_path: Path, clock: Clock) -> None:
    for name in ("a.jsonl", "sub/b.jsonl", "_onefold/c.jsonl", "_tmp/d.jsonl", ".e.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write(tmp_path / name, name.encode() + b"\n")
    assert Reader(tmp_path, clock, kind="json").lines() == [b"a.jsonl", b"sub/b.jsonl"]


@pytest.mark.parametrize("call", [{"complete": "never"}, {"complete": "marker:x"}, {"format": "word"}])
def test_what_is_not_known_is_refused_when_the_flow_is_built(call: dict[str, str]) -> None:
    with pytest.raises(NotSupported):
        files("in/*.jsonl", **call).as_source(None)  # type: ignore[arg-type]


def test_a_name_that_does_not_tell_its_format_is_refused() -> None:
    with pytest.raises(NotSupported, match="does not tell the format"):
        files("in/*").as_source(None)


def test_the_folder_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(SourceUnavailable, match="does not exist"):
        files(tmp_path / "no" / "*.jsonl").as_source(None).open(None)


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[FilesSource]:
    source = files(tmp_path / "*.jsonl").as_source(None)
    source.open(None)
    yield source
    source.close()


def test_check_tells_without_opening(tmp_path: Path, opened: FilesSource) -> None:
    assert [result.status for result in opened.check(None)] == ["warning"]
    write(tmp_path / "a.jsonl", b"1\n")
    assert [result.status for result in opened.check(None)] == ["ok"]
