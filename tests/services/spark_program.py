"""Spark with the jars of a table format, to read and write beside us. A program: orders come as JSON, one a line.

{"do": "since", "table": …, "instant": …}                  -> rows of later commits, by an incremental query of Hudi
{"do": "upsert" | "insert", "table": …, "rows": […], "key": …, "options": {…}}  -> null
{"do": "sql", "table": …, "text": …}                       -> rows; {table} stands for the table
{"do": "call", "text": …}                                  -> rows of a statement that names its tables itself
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

SETTINGS = {
    "spark.ui.enabled": "false",
    "spark.sql.shuffle.partitions": "1",
    "spark.serializer": "org.apache.spark.serializer.KryoSerializer",
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.parquet.datetimeRebaseModeInRead": "CORRECTED",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.memory": "1g",
    "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -Duser.timezone=UTC -Djol.skipHotspotSAAttach=true",
    "spark.sql.catalogImplementation": "in-memory",
}
OF_FORMAT = {
    "hudi": {
        "spark.kryo.registrator": "org.apache.spark.HoodieSparkKryoRegistrar",
        "spark.sql.extensions": "org.apache.spark.sql.hudi.HoodieSparkSessionExtension",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.hudi.catalog.HoodieCatalog",
    },
    "delta": {
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        "spark.databricks.delta.snapshotPartitions": "1",
        "spark.sql.sources.parallelPartitionDiscovery.parallelism": "1",  # VACUUM lists folders in 10,000 tasks
    },
    "iceberg": {"spark.sql.extensions": "org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions"},
}


def main(kind: str, jars: str, settings: str) -> None:
    """Serve until the input ends. jars: their paths, with commas between them; settings: more of Spark's, as JSON."""
    answers = os.dup(1)
    os.dup2(2, 1)
    os.environ["PYSPARK_PYTHON"] = sys.executable
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.master("local[1]").config("spark.jars", jars)
    for name, value in {**SETTINGS, **OF_FORMAT[kind], **json.loads(settings)}.items():
        builder = builder.config(name, value)
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    for line in sys.stdin:
        order = json.loads(line)
        try:
            answer = {"answer": _served(spark, kind, order)}
        except Exception as error:  # noqa: BLE001 - told
            answer = {"error": str(error)[:3000]}
        os.write(answers, json.dumps(answer).encode() + b"\n")


def _served(spark: Any, kind: str, order: dict[str, Any]) -> Any:
    if order["do"] == "call":
        return _rows(spark.sql(order["text"]))
    table = order["table"]
    if order["do"] == "since":
        reader = spark.read.format(kind).option("hoodie.datasource.query.type", "incremental")
        return _rows(reader.option("hoodie.datasource.read.begin.instanttime", order["instant"]).load(table))
    if order["do"] == "sql":
        spark.read.format(kind).load(table).createOrReplaceTempView("read_table")
        return _rows(spark.sql(order["text"].replace("{table}", "read_table")))
    frame = spark.createDataFrame([tuple(row.values()) for row in order["rows"]], order["schema"])
    writer = frame.write.format(kind).option("hoodie.datasource.write.operation", order["do"])
    writer.options(**order["options"]).mode("append").save(table)
    return None


def _rows(frame: Any) -> list[Any]:
    return [[str(value) for value in row] for row in frame.collect()]


if __name__ == "__main__":
    main(*sys.argv[1:])
