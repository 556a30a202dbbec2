"""Spark in a process of its own: see `spark_program`."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from services.jars import copied, java

Ask = Callable[..., Any]
"""ask(do=…, table=…) -> what Spark answers."""

JARS = {
    "delta": ("io.delta:delta-spark_2.12:3.3.2", "io.delta:delta-storage:3.3.2"),
    "iceberg": ("org.apache.iceberg:iceberg-spark-runtime-3.5_2.12:1.9.2",),
}


def jars_of(kind: str) -> list[Path]:
    """The jars that Spark 3.5 needs besides its own. Raises ServiceMissing."""
    java()
    return sorted(copied(f"spark-{kind}", JARS[kind]).glob("*.jar"))


@contextmanager
def spark_with(kind: str, jars: list[Path], settings: Mapping[str, str] | None = None) -> Iterator[Ask]:
    """A session that reads and writes one format. settings: of Spark, beside those that the format needs."""
    program = Path(__file__).with_name("spark_program.py")
    command = [sys.executable, str(program), kind, ",".join(map(str, jars)), json.dumps(dict(settings or {}))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        asking, answering = process.stdin, process.stdout

        def ask(**order: Any) -> Any:
            asking.write(json.dumps(order) + "\n")
            asking.flush()
            answer = json.loads(answering.readline())
            assert "error" not in answer, answer
            return answer["answer"]

        yield ask
        asking.close()
