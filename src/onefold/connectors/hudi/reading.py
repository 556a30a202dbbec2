"""Hudi tables read by hudi-rs, and by looking at their files: what the writer's JVM is not needed for."""

from __future__ import annotations

import importlib.util
import re
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from onefold.connectors.hudi.jars import JARS, pyspark_jars
from onefold.errors import ExtraMissing, OnefoldError, SinkUnavailable
from onefold.protocols import CheckResult

__all__ = ["cast", "checked", "has_commits", "orphans", "snapshot", "table_of"]

COMMIT_TIME, RECORD_KEY = "_hoodie_commit_time", "_hoodie_record_key"
META_COLUMNS = ("_hoodie_commit_time", "_hoodie_commit_seqno", "_hoodie_record_key", "_hoodie_partition_path", "_hoodie_file_name")
_COMPLETED = re.compile(r"\d{14,17}(_\d{17})?\.(commit|deltacommit|replacecommit)")
_BASE_FILE = re.compile(r".+_[\d-]+_(\d{14,17})\.parquet")


def table_of(folder: Path) -> Any:
    """The table as hudi-rs opens it. Raises ExtraMissing, SinkUnavailable."""
    try:
        from hudi import HudiTableBuilder
    except ImportError as error:
        raise ExtraMissing("Reading Hudi tables needs hudi-rs.", next_step="pip install 'onefold[hudi]'") from error
    try:
        return HudiTableBuilder.from_base_uri(folder.as_uri()).build()
    except Exception as error:
        raise SinkUnavailable(f"The Hudi table in {folder} cannot be read now.", found=str(error)) from error


def has_commits(folder: Path) -> bool:
    """Whether anybody has completed a commit that is still in the active timeline."""
    places = (folder / ".hoodie" / "timeline", folder / ".hoodie")
    return any(_COMPLETED.fullmatch(path.name) for place in places if place.is_dir() for path in place.iterdir())


def snapshot(folder: Path, columns: pa.Schema) -> pa.Table:
    """All rows of these columns, by commit and, in each, by record key."""
    if not has_commits(folder):
        return columns.empty_table()
    batches = table_of(folder).read()
    if not batches:
        return columns.empty_table()
    whole = pa.Table.from_batches(batches)
    order = pa.table([whole.column(COMMIT_TIME), whole.column(RECORD_KEY)], ["commit", "key"])
    places = pa.compute.sort_indices(order, sort_keys=[("commit", "ascending"), ("key", "ascending")])
    return whole.select(columns.names).take(places)


def cast(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """The rows in a flow's own types."""
    columns = [_cast(rows.column(field.name), field.type) for field in schema]
    return pa.table(columns, schema=schema)


def _cast(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    if pa.types.is_dictionary(kind):
        return column.cast(kind.value_type).dictionary_encode().cast(kind)
    return column.cast(kind)


def orphans(folder: Path, instants: Iterable[str]) -> list[Path]:
    """Files of rows whose instant the table does not know: a writer made them after it had been rolled back."""
    known = set(instants)
    found = []
    for path in folder.rglob("*.parquet"):
        match = _BASE_FILE.fullmatch(path.name)
        if match and match[1] not in known and ".hoodie" not in path.relative_to(folder).parts:
            found.append(path)
    return sorted(found)


def checked(folder: Path, jars: str | None) -> Sequence[CheckResult]:
    """What `doctor` says of a table's folder and of what its writer needs."""
    found = []
    nearest = next(path for path in (folder, *folder.parents) if path.exists())
    if not nearest.is_dir():
        found.append(CheckResult(f"folder {folder}", "failed", f"{nearest} is a file", "Name another folder."))
    elif (folder / ".hoodie" / "hoodie.properties").is_file():
        found.append(CheckResult(f"Hudi table {folder}", "ok", "exists"))
    else:
        found.append(CheckResult(f"Hudi table {folder}", "ok", "will be made"))
    has_java = shutil.which("java") is not None
    step = "" if has_java else "Install a Java runtime of version 11 or 17."
    found.append(CheckResult("Java", "ok" if has_java else "failed", "found" if has_java else "not found", step))
    try:
        pyspark_jars()
    except OnefoldError as error:
        found.append(CheckResult("pyspark's jars", "failed", str(error), "pip install 'onefold[hudi]'"))
    has_reader = importlib.util.find_spec("hudi") is not None
    step = "" if has_reader else "pip install 'onefold[hudi]'"
    found.append(CheckResult("hudi-rs", "ok" if has_reader else "failed", "installed" if has_reader else "", step))
    where = jars or "the user's cache, fetched from Maven Central when the flow first runs"
    found.append(CheckResult("jars of Apache Hudi", "ok", f"{where}; {JARS} names another folder"))
    return found
