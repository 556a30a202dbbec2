"""The sources and sinks of onefold as cases of the contract suites."""

from __future__ import annotations

import datetime as dt
import gzip
import json
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from onefold.connectors.delta import delta
from onefold.connectors.duckdb import DuckdbFile
from onefold.connectors.files import files
from onefold.connectors.iceberg import IcebergTable, iceberg
from onefold.connectors.memory import memory
from onefold.connectors.sqlite import SqliteFile
from onefold.protocols import Sink
from onefold.testing.contracts import SinkCase, SourceCase
from onefold.types import Mode
from tests.contract.forks import copy_of_deltalake, deltalake_anew


def _block(folder: Path, table: str) -> None:
    """Where the target would be there is something else."""
    for name in ("target.duckdb", "target.sqlite", "catalog.sqlite"):
        (folder / name).mkdir()
    (folder / "lake").write_text("a file, no folder")


def _iceberg(folder: Path, table: str, **options: Any) -> IcebergTable:
    catalog = {
        "type": "sql",
        "uri": f"sqlite:///{folder / 'catalog.sqlite'}",
        "warehouse": f"file://{folder}/warehouse",
    }
    return iceberg(("contract", table), catalog, **options)


def _delta(folder: Path, table: str, mode: Mode, key: tuple[str, ...]) -> Sink:
    copy_of_deltalake()
    return delta(folder / "lake" / table.replace("/", "_")).as_sink(mode, key)


SINKS = [
    SinkCase(
        "memory",
        lambda folder, table, mode, key: memory(f"{folder}/{table}").as_sink(mode, key),
        is_local=True,
        make_unavailable=lambda folder, table: memory(f"{folder}/{table}").set_down(True),
    ),
    SinkCase(
        "duckdb",
        lambda folder, table, mode, key: DuckdbFile(str(folder / "target.duckdb")).table(table).as_sink(mode, key),
        make_unavailable=_block,
    ),
    SinkCase(
        "sqlite",
        lambda folder, table, mode, key: SqliteFile(str(folder / "target.sqlite")).table(table).as_sink(mode, key),
        make_unavailable=_block,
    ),
    SinkCase(
        "files-parquet",
        lambda folder, table, mode, key: files(folder / "lake" / table.replace("/", "_")).as_sink(mode, key),
        make_unavailable=_block,
    ),
    SinkCase(
        "files-json",
        lambda folder, table, mode, key: files(folder / "lake" / table.replace("/", "_"), format="json").as_sink(
            mode, key
        ),
        make_unavailable=_block,
    ),
    SinkCase(
        "iceberg",
        lambda folder, table, mode, key: _iceberg(folder, table).as_sink(mode, key),
        make_unavailable=_block,
        fences=True,
    ),
    SinkCase(
        "delta",
        _delta,
        make_unavailable=_block,
        fences=True,
        after_fork=deltalake_anew,
    ),
]


def _line(number: int) -> bytes:
    return json.dumps({"n": number}).encode() + b"\n"


def _numbers_in_json(batch: pa.RecordBatch) -> list[int]:
    return [json.loads(value)["n"] for value in batch.column("_value").to_pylist()]


def _numbers_in_csv(batch: pa.RecordBatch) -> list[int]:
    return [int(value.split(b",")[0]) for value in batch.column("_value").to_pylist()]


def _numbers_in_rows(batch: pa.RecordBatch) -> list[int]:
    return list(batch.column("n").to_pylist())


def _next(folder: Path, suffix: str) -> Path:
    return folder / f"part-{len(list(folder.glob('part-*'))):04d}.{suffix}"


def _feed_new_file(folder: Path, numbers: Sequence[int]) -> None:
    if numbers:
        _next(folder, "jsonl").write_bytes(b"".join(map(_line, numbers)))


def _feed_growing_file(folder: Path, numbers: Sequence[int]) -> None:
    with (folder / "part-0.jsonl").open("ab") as file:
        file.writelines(map(_line, numbers))


def _feed_small_files(folder: Path, numbers: Sequence[int]) -> None:
    for number in numbers:
        _next(folder, "jsonl").write_bytes(_line(number).rstrip(b"\n") + (b"\n" if number % 2 else b""))


def _feed_packed(suffix: str, pack: Callable[[bytes], bytes]) -> Callable[[Path, Sequence[int]], None]:
    def feed(folder: Path, numbers: Sequence[int]) -> None:
        half = len(numbers) // 2
        if numbers:  # two members, cut in the middle of a line
            whole = b"".join(map(_line, numbers))
            cut = len(b"".join(map(_line, numbers[:half]))) + 3
            _next(folder, f"jsonl.{suffix}").write_bytes(pack(whole[:cut]) + pack(whole[cut:]))

    return feed


def _feed_csv(folder: Path, numbers: Sequence[int]) -> None:
    if numbers:
        rows = "".join(f'{number},"two\nlines, ""{number}"""\n' for number in numbers)
        _next(folder, "csv").write_text(f"n,text\n{rows}")


def _feed_parquet(folder: Path, numbers: Sequence[int]) -> None:
    if numbers:
        pq.write_table(pa.table({"n": pa.array(numbers, pa.int64())}), _next(folder, "parquet"), row_group_size=7)


def _feed_sqlite(folder: Path, numbers: Sequence[int]) -> None:
    connection = sqlite3.connect(folder / "source.sqlite")
    connection.execute("CREATE TABLE IF NOT EXISTS events (id INTEGER PRIMARY KEY, n INTEGER, text TEXT)")
    connection.executemany("INSERT INTO events (n, text) VALUES (?, ?)", [(number, "x" * 20) for number in numbers])
    connection.commit()
    connection.close()


def _feed_delta(folder: Path, numbers: Sequence[int]) -> None:
    import deltalake

    rows = pa.table({"n": pa.array(numbers, pa.int64())})
    deltalake.write_deltalake(folder / "table", rows, mode="append")


def _lose_delta(folder: Path) -> None:
    for path in (folder / "table").glob("*.parquet"):
        path.unlink()


def _lose_sqlite(folder: Path) -> None:
    connection = sqlite3.connect(folder / "source.sqlite")
    connection.execute("DELETE FROM events")
    connection.commit()
    connection.close()


def _iceberg_input(folder: Path) -> IcebergTable:
    return _iceberg(folder, "input")


def _feed_iceberg(folder: Path, numbers: Sequence[int]) -> None:
    endpoint = _iceberg_input(folder)
    catalog = endpoint.catalog.connect()
    catalog.create_namespace_if_not_exists("contract")
    table = catalog.create_table_if_not_exists(endpoint.names, pa.schema([("n", pa.int64()), ("text", pa.string())]))
    half = len(numbers) // 2
    for part in (numbers[:half], numbers[half:]) if numbers else ():
        table.append(pa.table({"n": pa.array(part, pa.int64()), "text": ["x" * 20] * len(part)}))


def _lose_iceberg(folder: Path) -> None:
    table = _iceberg_input(folder).catalog.connect().load_table(_iceberg_input(folder).names)
    table.append(pa.table({"n": pa.array([99], pa.int64()), "text": ["x"]}))
    table.maintenance.expire_snapshots().older_than(dt.datetime(2100, 1, 1, tzinfo=dt.UTC)).commit()


def _lose_files(folder: Path) -> None:
    for path in folder.glob("part-*"):
        path.unlink()


def _truncate_files(folder: Path) -> None:
    for path in folder.glob("part-*"):
        path.write_bytes(path.read_bytes()[:5])


def _rewrite_files(folder: Path) -> None:
    for path in folder.glob("part-*"):
        path.write_bytes(path.read_bytes().replace(b"1", b"2"))


def _remove_folder(folder: Path) -> None:
    folder.rmdir()


def _files_case(
    name: str,
    suffix: str,
    feed: Callable[[Path, Sequence[int]], None],
    numbers: Callable[[pa.RecordBatch], list[int]] = _numbers_in_json,
    lose: Callable[[Path], None] | None = _lose_files,
) -> SourceCase:
    return SourceCase(
        f"files-{name}",
        lambda folder: files(folder / f"*.{suffix}", complete="rename").as_source(None),
        feed,
        numbers,
        lose,
        _remove_folder,
    )


def _memory_name(folder: Path) -> str:
    return f"source {folder}"


SOURCES = [
    SourceCase(
        "memory",
        lambda folder: memory(_memory_name(folder)).as_source(None),
        lambda folder, numbers: memory(_memory_name(folder)).feed([{"n": number} for number in numbers]),
        _numbers_in_rows,
        lambda folder: memory(_memory_name(folder)).forget_input(20),
        lambda folder: memory(_memory_name(folder)).set_down(True),
    ),
    _files_case("new", "jsonl", _feed_new_file),
    _files_case("growing", "jsonl", _feed_growing_file, lose=_truncate_files),
    _files_case("small", "jsonl", _feed_small_files, lose=None),
    _files_case("gzip", "jsonl.gz", _feed_packed("gz", gzip.compress)),
    _files_case("zstd", "jsonl.zst", _feed_packed("zst", zstandard.ZstdCompressor().compress)),
    _files_case("csv", "csv", _feed_csv, _numbers_in_csv, _rewrite_files),
    _files_case("parquet", "parquet", _feed_parquet, _numbers_in_rows),
    SourceCase(
        "sqlite",
        lambda folder: SqliteFile(str(folder / "source.sqlite")).table("events").as_source(None),
        _feed_sqlite,
        _numbers_in_rows,
        _lose_sqlite,
        lambda folder: None,
    ),
    SourceCase(
        "iceberg",
        lambda folder: _iceberg_input(folder).as_source(None),
        _feed_iceberg,
        _numbers_in_rows,
        _lose_iceberg,
        lambda folder: None,
    ),
    SourceCase(
        "delta",
        lambda folder: delta(folder / "table").as_source(None),
        _feed_delta,
        _numbers_in_rows,
        _lose_delta,
        lambda folder: None,
    ),
]
