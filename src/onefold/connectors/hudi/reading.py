"""The files of a Hudi table, and what `doctor` looks at."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from onefold.connectors.hudi.deciding import StoreTable
from onefold.connectors.hudi.jars import JARS, pyspark_jars
from onefold.connectors.hudi.jvm import HudiTable
from onefold.connectors.hudi.naming import INSTALL, is_of_rows
from onefold.connectors.hudi.place import Place
from onefold.errors import OnefoldError
from onefold.protocols import CheckResult

__all__ = ["cast", "checked", "orphans", "rows_in"]

ORDER = ["_hoodie_commit_time", "_hoodie_record_key"]


def rows_in(place: Place, files: Sequence[str], columns: pa.Schema) -> pa.Table:
    """All rows of these columns, by commit and, in each, by record key. Raises OSError."""
    tables = [place.parquet(file).read([*ORDER, *columns.names]) for file in files]
    if not tables:
        return columns.empty_table()
    whole = pa.concat_tables(tables, promote_options="permissive")
    places = pc.sort_indices(whole.select(ORDER), sort_keys=[(name, "ascending") for name in ORDER])
    return whole.select(columns.names).take(places)


def cast(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """The rows in a flow's own types."""
    columns = [_cast(rows.column(field.name), field.type) for field in schema]
    return pa.table(columns, schema=schema)


def _cast(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    if pa.types.is_dictionary(kind):
        return column.cast(kind.value_type).dictionary_encode().cast(kind)
    return column.cast(kind)


def orphans(place: Place, table: HudiTable | StoreTable) -> list[str]:
    """Files of rows whose instant the table does not know: a writer made them after it had been rolled back.

    The table is asked when all files were seen, so that a file of one that begins meanwhile is not among them. What is
    older than all that the timeline tells of without its archive is left alone. Raises OSError.
    """
    found = [(match["instant"], name) for name in place.names() if (match := is_of_rows(name))]
    oldest, known = table.oldest() or "9", set(table.instants())
    return sorted(name for instant, name in found if instant not in known and instant > oldest)


def checked(jars: str | None) -> Sequence[CheckResult]:
    """What `doctor` says of what the writer of a table needs."""
    found = []
    has_java = shutil.which("java") is not None
    step = "" if has_java else "Install a Java runtime of version 11 or 17."
    found.append(CheckResult("Java", "ok" if has_java else "failed", "found" if has_java else "not found", step))
    try:
        pyspark_jars()
    except OnefoldError as error:
        found.append(CheckResult("pyspark's jars", "failed", str(error), INSTALL))
    has_reader = importlib.util.find_spec("hudi") is not None
    step = "" if has_reader else INSTALL
    found.append(CheckResult("hudi-rs", "ok" if has_reader else "failed", "installed" if has_reader else "", step))
    where = jars or "the user's cache, fetched from Maven Central when the flow first runs"
    found.append(CheckResult("jars of Apache Hudi", "ok", f"{where}; {JARS} names another folder"))
    return found
