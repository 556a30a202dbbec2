"""Payloads are files that a seal names by size and checksum, or bytes inside it; nothing else is ever taken for one."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pyarrow as pa
import pytest

from onefold import disk
from onefold.errors import DiskFailed, DiskFull, FileCorrupt, OnefoldError
from onefold.spool import INLINE_BYTES, FolderSpool, from_ipc, to_ipc

SCHEMA = pa.schema([("n", pa.int64()), ("s", pa.string())])


def rows(count: int) -> list[pa.RecordBatch]:
    noise = [hashlib.blake2b(b"%d" % n, digest_size=8).hexdigest() for n in range(count)]
    return pa.table([pa.array(range(count)), pa.array(noise, pa.string())], schema=SCHEMA).to_batches(1000)


@pytest.fixture
def spool(tmp_path: Path) -> FolderSpool:
    return FolderSpool(tmp_path / "spool")


@pytest.mark.parametrize("count", [0, 1, 3000])
def test_rows_come_back(spool: FolderSpool, count: int) -> None:
    batches = rows(count)
    detail, inline = spool.put("x", batches, SCHEMA)
    assert spool.get(detail, inline).equals(pa.Table.from_batches(batches, SCHEMA))
    assert inline is not None
    assert list(spool.folder.iterdir()) == []


def test_large_payloads_are_files(spool: FolderSpool) -> None:
    batches = rows(30_000)
    detail, inline = spool.put("x", batches, SCHEMA)
    assert inline is None
    assert detail["size"] > INLINE_BYTES
    assert (spool.folder / detail["file"]).stat().st_size == detail["size"]
    assert spool.get(detail, None).equals(pa.Table.from_batches(batches, SCHEMA))
    spool.free(detail)
    spool.free(detail)
    assert list(spool.folder.iterdir()) == []


def test_an_arrow_stream_round_trips_empty_batches_and_odd_types() -> None:
    schema = pa.schema([("d", pa.decimal128(38, 4)), ("t", pa.timestamp("us", "UTC")), ("l", pa.list_(pa.float64()))])
    table = pa.table([[None], [0], [[float("nan"), None]]], schema=schema)
    batches = [*schema.empty_table().to_batches(), *table.to_batches()]
    assert str(from_ipc(to_ipc(batches, schema)).to_pylist()) == str(table.to_pylist())
    assert from_ipc(to_ipc([], schema)).schema.equals(schema)


@pytest.mark.parametrize("damage", ["flipped", "truncated", "emptied", "removed", "a folder"])
def test_a_file_that_is_not_what_was_put_is_named(spool: FolderSpool, damage: str) -> None:
    detail, _ = spool.put("x", rows(30_000), SCHEMA)
    path = spool.folder / detail["file"]
    body = bytearray(path.read_bytes())
    path.unlink()
    if damage == "a folder":
        path.mkdir()
    elif damage != "removed":
        body[len(body) // 2] ^= 1
        path.write_bytes({"flipped": body, "truncated": body[:-1], "emptied": b""}[damage])
    with pytest.raises(FileCorrupt) as corrupt:
        spool.get(detail, None)
    assert str(path) in str(corrupt.value)
    assert corrupt.value.next_step


def test_inline_bytes_are_checked_too(spool: FolderSpool) -> None:
    detail, inline = spool.put("x", rows(3), SCHEMA)
    assert inline is not None
    with pytest.raises(FileCorrupt, match="inline"):
        spool.get(detail, inline[:-1] + b"\x07")
    with pytest.raises(FileCorrupt):
        spool.get(detail, None)


def test_a_leftover_of_a_dead_process_under_the_same_name_is_replaced(spool: FolderSpool) -> None:
    (spool.folder / "x.arrow").write_bytes(b"killed while writing")
    batches = rows(30_000)
    detail, inline = spool.put("x", batches, SCHEMA)
    assert spool.get(detail, inline).num_rows == 30_000


def test_only_files_that_no_seal_names_are_swept(spool: FolderSpool) -> None:
    kept, _ = spool.put("kept", rows(30_000), SCHEMA)
    left, _ = spool.put("left", rows(30_000), SCHEMA)
    assert FolderSpool(spool.folder, incarnation=2).sweep({kept["file"]}) == 1
    assert [path.name for path in spool.folder.iterdir()] == [kept["file"]]
    assert left["file"] != kept["file"]


def test_a_process_that_slept_sweeps_nothing_of_its_successor(spool: FolderSpool) -> None:
    sealed, _ = FolderSpool(spool.folder, incarnation=9).put("sealed later", rows(30_000), SCHEMA)
    assert spool.sweep(set()) == 0
    assert FolderSpool(spool.folder, incarnation=8).sweep(set()) == 0
    assert [path.name for path in spool.folder.iterdir()] == [sealed["file"]]


@pytest.mark.parametrize("step", ["spool.write", "spool.name"])
@pytest.mark.parametrize(("code", "error"), [(errno.ENOSPC, DiskFull), (errno.EIO, DiskFailed)])
def test_a_full_or_failing_disk_has_its_own_error(
    spool: FolderSpool, monkeypatch: pytest.MonkeyPatch, step: str, code: int, error: type[OnefoldError]
) -> None:
    def fail(name: str, _: str) -> None:
        if name == step:
            raise OSError(code, os.strerror(code))

    monkeypatch.setattr(disk, "observer", fail)
    with pytest.raises(error) as raised:
        spool.put("x", rows(30_000), SCHEMA)
    assert raised.value.where["step"] == step


def test_a_failed_sync_is_not_tried_again(spool: FolderSpool, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a failed fsync the kernel may have dropped the pages: a second one that succeeds proves nothing."""
    calls = []

    def fail(descriptor: int) -> None:
        calls.append(descriptor)
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(disk, "sync_file", fail)
    with pytest.raises(DiskFailed):
        spool.put("x", rows(30_000), SCHEMA)
    assert len(calls) == 1
