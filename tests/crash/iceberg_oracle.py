"""Reads an Iceberg table without onefold: by pyiceberg, and by DuckDB over the files that the manifests name."""

from __future__ import annotations

import functools
import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import duckdb
import fastavro

CATALOG = "catalog.sqlite"
NAMESPACE = "crash"


def catalog_of(folder: Path) -> dict[str, str]:
    """The folder's catalog, as pyiceberg and onefold are given it."""
    return {"type": "sql", "uri": f"sqlite:///{folder / CATALOG}", "warehouse": f"file://{folder}/warehouse"}


def rows_by_pyiceberg(folder: Path, table: str, columns: Sequence[str]) -> list[tuple[Any, ...]]:
    """Rows as pyiceberg reads them; none when the table is not there."""
    if metadata_file(folder, table) is None:
        return []
    return scanned(catalog_of(folder), (NAMESPACE, table), columns)


def scanned(catalog: dict[str, str], names: tuple[str, str], columns: Sequence[str]) -> list[tuple[Any, ...]]:
    """Rows of a table of any catalog, by pyiceberg."""
    from pyiceberg.catalog import load_catalog

    found = load_catalog("default", **catalog).load_table(names).scan(selected_fields=tuple(columns)).to_arrow()
    return list(zip(*(found.column(name).to_pylist() for name in columns), strict=True))


def made(folder: Path, table: str, schema: Any) -> Any:
    """The table by pyiceberg, made if it is not there."""
    from pyiceberg.catalog import load_catalog

    catalog = load_catalog("default", **catalog_of(folder))
    catalog.create_namespace_if_not_exists(NAMESPACE)
    return catalog.create_table_if_not_exists((NAMESPACE, table), schema)


def rows_by_duckdb(folder: Path, table: str, columns: Sequence[str]) -> list[tuple[Any, ...]]:
    """Rows as DuckDB reads them from the files of the current snapshot."""
    return rows_of(data_files(folder, table), columns)


def rows_of(files: Sequence[str], columns: Sequence[str]) -> list[tuple[Any, ...]]:
    """Rows of Parquet files, by DuckDB."""
    if not files:
        return []
    with duckdb.connect() as connection:
        named = ", ".join(f'"{name}"' for name in columns)
        query = f"SELECT {named} FROM read_parquet(?, hive_partitioning = false)"
        return connection.execute(query, [list(files)]).fetchall()


def metadata_file(folder: Path, table: str) -> Path | None:
    """Where the catalog's database says that the table's metadata is."""
    path = folder / CATALOG
    if not path.exists():
        return None
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as connection:
        try:
            found = connection.execute(
                "SELECT metadata_location FROM iceberg_tables WHERE table_namespace = ? AND table_name = ?",
                [NAMESPACE, table],
            ).fetchone()
        except sqlite3.OperationalError as error:
            if "no such table" not in str(error):
                raise
            return None
        finally:
            connection.rollback()
    return None if found is None else local(found[0])


def metadata_of(folder: Path, table: str) -> dict[str, Any]:
    """The table's current metadata."""
    path = metadata_file(folder, table)
    assert path is not None
    body: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return body


def data_files(folder: Path, table: str) -> list[str]:
    """The files of the current snapshot, through its manifest list and manifests."""
    if metadata_file(folder, table) is None:
        return []
    return files_of(metadata_of(folder, table))


def files_of(metadata: dict[str, Any]) -> list[str]:
    """The files of the current snapshot of a table's metadata."""
    current = metadata.get("current-snapshot-id")
    snapshots = [snapshot for snapshot in metadata.get("snapshots", []) if snapshot["snapshot-id"] == current]
    found = []
    for snapshot in snapshots:
        for manifest in avro_rows(snapshot["manifest-list"]):
            entries = avro_rows(manifest["manifest_path"])
            found += [entry["data_file"]["file_path"] for entry in entries if entry["status"] != 2]  # 2: deleted
    return [str(local(path)) for path in found]


def avro_rows(location: str) -> list[Any]:
    """All records of an Avro file."""
    with local(location).open("rb") as file:
        return list(fastavro.reader(file))


@functools.cache
def local(location: str) -> Path:
    """A file: URI as a path."""
    return Path(unquote(urlsplit(location).path))
