"""A hundred million rows stream into a table of a lake in bounded memory. By flag: minutes and gigabytes of disk."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(3600)]

ROWS, FILES = 100_000_000, 20
MOST_BYTES = 2 << 30

PROGRAM = """
import json, resource, sys
import onefold as of

kind, folder = sys.argv[1:]
catalog = {"type": "sql", "uri": f"sqlite:///{folder}/catalog.db", "warehouse": f"file://{folder}/lake"}
table = of.delta(f"{folder}/lake") if kind == "delta" else of.iceberg("lake.numbers", catalog)
flow = of.Flow("large")
flow.read(of.files(f"{folder}/in/*.parquet"), schema={"n": "BIGINT"}).append(table)
told = flow.run(until="drained", state=f"{folder}/state")
most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"events": told.events, "epochs": told.epochs, "seconds": told.seconds, "most_bytes": most}))
"""


@pytest.mark.parametrize("kind", ["delta", "iceberg"])
def test_a_hundred_million_rows_take_bounded_memory(kind: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    each = ROWS // FILES
    for number in range(FILES):
        rows = pa.table({"n": pa.array(range(number * each, (number + 1) * each), pa.int64())})
        pq.write_table(rows, tmp_path / "in" / f"{number:02d}.parquet")
    command = [sys.executable, "-c", PROGRAM, kind, str(tmp_path)]
    told = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
    print(told)
    assert told["events"] == ROWS
    assert told["most_bytes"] < MOST_BYTES
    count, total = _count(kind, tmp_path)
    assert (count, total) == (ROWS, ROWS * (ROWS - 1) // 2)


def _count(kind: str, folder: Path) -> tuple[int, int]:
    """The rows and the sum of their numbers, by the format's own library."""
    if kind == "delta":
        from deltalake import DeltaTable

        batches = DeltaTable(str(folder / "lake")).to_pyarrow_dataset().to_batches()
    else:
        from pyiceberg.catalog import load_catalog

        catalog = load_catalog("default", type="sql", uri=f"sqlite:///{folder}/catalog.db")
        batches = catalog.load_table("lake.numbers").scan().to_arrow_batch_reader()
    count = total = 0
    for batch in batches:
        count += batch.num_rows
        total += int(batch.column("n").to_numpy().sum())
    return count, total
