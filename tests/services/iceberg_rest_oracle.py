"""Reads an Iceberg table of a REST catalog without onefold: by pyiceberg, and by DuckDB over the catalog's answer."""

from __future__ import annotations

import hashlib
import json
import os
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from services.iceberg import VARIABLE
from tests.crash import iceberg_oracle


def catalog_of_rest() -> dict[str, str]:
    """As pyiceberg and onefold are given it."""
    return {"type": "rest", "uri": os.environ[VARIABLE]}


def namespace_of(folder: Path) -> str:
    """Each folder's own, in the catalog that all share."""
    return f"n{hashlib.sha256(str(folder).encode()).hexdigest()[:16]}"


def metadata_of(folder: Path, table: str) -> dict[str, Any] | None:
    """As the catalog tells it; None when there is no such table."""
    place = f"{os.environ[VARIABLE]}/v1/namespaces/{namespace_of(folder)}/tables/{table}"
    try:
        with urllib.request.urlopen(place, timeout=30) as answer:
            metadata: dict[str, Any] = json.load(answer)["metadata"]
            return metadata
    except urllib.error.HTTPError as error:
        if error.code != 404:
            raise
        return None


def rows_by_duckdb(folder: Path, table: str, columns: Sequence[str]) -> list[tuple[Any, ...]]:
    """Rows of the files of the current snapshot."""
    metadata = metadata_of(folder, table)
    return [] if metadata is None else iceberg_oracle.rows_of(iceberg_oracle.files_of(metadata), columns)


def rows_by_pyiceberg(folder: Path, table: str, columns: Sequence[str]) -> list[tuple[Any, ...]]:
    """Rows as pyiceberg reads them; none when the table is not there."""
    if metadata_of(folder, table) is None:
        return []
    return iceberg_oracle.scanned(catalog_of_rest(), (namespace_of(folder), table), columns)
