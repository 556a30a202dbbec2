"""A checkpoint that is cut off anywhere leaves a DuckDB file that the sink opens again, with every row once."""

from __future__ import annotations

import multiprocessing
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pytest

from onefold.connectors.duckdb import checkpoint
from onefold.connectors.duckdb.checkpoint import checkpoint_if_due, mend, only_when_asked

BLOCK_BYTES = 262144
PAGE_BYTES = 4096


@dataclass(frozen=True)
class Cut:
    """One checkpoint: the folder before it and after it, the copy that it made, the log up to its removal, and what
    the table holds."""

    before: Path
    after: Path
    saved: Path
    log: Path
    rows: Counter[tuple[int, str]]

    def put(self, folder: Path, body: bytes, *, saved: bool = True) -> Path:
        """A folder as a checkpoint leaves it that wrote so much."""
        folder.mkdir()
        (folder / "t.duckdb").write_bytes(body)
        shutil.copy(self.log, folder / "t.duckdb.wal")
        if saved:
            shutil.copy(self.saved, folder / ".t.duckdb.before-checkpoint")
        return folder / "t.duckdb"


def connected(path: Path) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(str(path))
    only_when_asked(connection)
    return connection


def fill(path: Path, rounds: range) -> None:
    """Appends, changes and deletes, one checkpoint a round but the last."""
    duckdb.connect(str(path)).close()
    for number in rounds:
        with path.open("rb") as file, connected(path) as connection:
            connection.begin()
            connection.execute("CREATE TABLE IF NOT EXISTS t (a BIGINT, b VARCHAR)")
            connection.execute("INSERT INTO t SELECT range + ?, hash(range) FROM range(30000)", [number * 20_000])
            connection.execute("UPDATE t SET b = 'changed ' || ? WHERE a % 7 = ?", [number, number % 7])
            connection.execute("DELETE FROM t WHERE a % 11 = ?", [number % 11])
            connection.execute(f"CREATE TABLE t{number} AS SELECT range AS x FROM range(1000)")
            connection.commit()
            if number != rounds[-1]:
                checkpoint_if_due(connection, path, file, due_bytes=0)


def rows_of(path: Path) -> Counter[tuple[int, str]]:
    with duckdb.connect(str(path), read_only=True) as connection:
        return Counter(connection.sql("SELECT a, b FROM t").fetchall())


@pytest.fixture(scope="module", params=[2, 6])
def cut(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Cut:
    before = tmp_path_factory.mktemp("before")
    fill(before / "t.duckdb", range(request.param))
    rows = rows_of(before / "t.duckdb")
    after = tmp_path_factory.mktemp("after") / "all"
    shutil.copytree(before, after)
    kept = tmp_path_factory.mktemp("kept")
    path = after / "t.duckdb"
    os.link(after / "t.duckdb.wal", kept / "wal")
    with pytest.MonkeyPatch.context() as patch, path.open("rb") as file, connected(path) as connection:
        patch.setattr(checkpoint, "remove", lambda saved, *, step: saved.rename(kept / "saved"))
        checkpoint_if_due(connection, path, file, due_bytes=0)
    return Cut(before, after, kept / "saved", kept / "wal", rows)


def cuts_of(cut: Cut) -> Iterator[tuple[str, bytes]]:
    """Every block that the checkpoint wrote, half written; and all blocks written without the header that counts."""
    old, new = (cut.before / "t.duckdb").read_bytes(), (cut.after / "t.duckdb").read_bytes()
    whole = old[: checkpoint.HEADER_BYTES] + new[checkpoint.HEADER_BYTES :]
    for begin in range(checkpoint.HEADER_BYTES, len(new), BLOCK_BYTES):
        is_written = old[begin : begin + BLOCK_BYTES] != new[begin : begin + BLOCK_BYTES]
        for pages in (1, 32) if is_written else ():
            torn = begin + pages * PAGE_BYTES
            yield f"block at {begin}, {pages} pages", old[:begin] + new[begin:torn] + old[torn:]
    yield "no header", whole


def test_wherever_it_is_cut_off_every_row_is_there_once(cut: Cut, tmp_path: Path) -> None:
    for number, (what, body) in enumerate(cuts_of(cut)):
        path = cut.put(tmp_path / str(number), body)
        mend(path)
        assert rows_of(path) == cut.rows, what
        connected(path).close()
        assert not path.with_name(".t.duckdb.before-checkpoint").exists()


def test_killed_while_it_mends_it_mends_again(cut: Cut, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def half(descriptor: int, pieces: Iterable[tuple[int, bytes]], *, step: str) -> None:
        for offset, piece in pieces:
            os.pwrite(descriptor, piece[: len(piece) // 2], offset)
        raise KeyboardInterrupt(step)

    for number, (what, body) in enumerate(cuts_of(cut)):
        path = cut.put(tmp_path / str(number), body)
        monkeypatch.setattr(checkpoint, "overwrite", half)
        with pytest.raises(KeyboardInterrupt):
            mend(path)
        monkeypatch.undo()
        mend(path)
        assert rows_of(path) == cut.rows, what


def test_without_the_copy_some_of_these_files_are_lost(cut: Cut, tmp_path: Path) -> None:
    lost = []
    for number, (what, body) in enumerate(cuts_of(cut)):
        try:
            rows_of(cut.put(tmp_path / str(number), body, saved=False))
        except duckdb.Error:
            lost.append(what)
    assert lost


def test_a_checkpoint_that_reached_its_end_is_not_undone(cut: Cut, tmp_path: Path) -> None:
    path = cut.put(tmp_path / "all", (cut.after / "t.duckdb").read_bytes())
    mend(path)
    assert path.read_bytes() == (cut.after / "t.duckdb").read_bytes()
    assert rows_of(path) == cut.rows


def test_a_file_that_another_process_holds_is_left_alone(cut: Cut, tmp_path: Path) -> None:
    path = cut.put(tmp_path / "held", (cut.before / "t.duckdb").read_bytes())
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    holder = context.Process(target=hold, args=(str(path), theirs))
    holder.start()
    assert ours.recv() == "held"
    mend(path)
    assert path.with_name(".t.duckdb.before-checkpoint").exists()
    ours.send("let go")
    holder.join()


def hold(path: str, pipe: object) -> None:
    connection = connected(Path(path))
    pipe.send("held")  # type: ignore[attr-defined]
    pipe.recv()  # type: ignore[attr-defined]
    connection.close()


def test_the_copy_of_another_database_is_not_put_back(cut: Cut, tmp_path: Path) -> None:
    path = cut.put(tmp_path / "other", b"")
    for file in (path, path.with_name("t.duckdb.wal")):
        file.unlink()
    fill(path, range(2))
    rows = rows_of(path)
    mend(path)
    assert rows_of(path) == rows


def test_duckdb_writes_nothing_by_itself_but_its_log(tmp_path: Path) -> None:
    path = tmp_path / "t.duckdb"
    duckdb.connect(str(path)).close()
    with connected(path) as connection:
        connection.execute("CREATE TABLE t AS SELECT range AS a, hash(range)::VARCHAR AS b FROM range(1000)")
    before = path.read_bytes()[: checkpoint.HEADER_BYTES]
    with connected(path) as connection:
        for _ in range(120):
            connection.execute("INSERT INTO t SELECT range, repeat(hash(range)::VARCHAR, 10) FROM range(1000)")
    assert path.with_name("t.duckdb.wal").stat().st_size > (16 << 20), "the size at which it would by default"
    assert path.read_bytes()[: checkpoint.HEADER_BYTES] == before


def test_a_failed_checkpoint_is_told_and_loses_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "t.duckdb"
    fill(path, range(2))
    rows = rows_of(path)
    monkeypatch.setattr(checkpoint, "_save", failing)
    with path.open("rb") as file, connected(path) as connection:
        checkpoint_if_due(connection, path, file, due_bytes=0)
    assert "will be tried again" in caplog.text
    assert rows_of(path) == rows


def failing(*_: object) -> Path:
    raise duckdb.IOException("No space left on device")
