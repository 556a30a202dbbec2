"""The Java archives that Hudi's own writer needs: pyspark brings Hadoop, Avro and Parquet, Maven Central has Hudi's."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from onefold.disk import make_folder, publish
from onefold.errors import ExtraMissing, SinkRefused

__all__ = ["ARTIFACTS", "FOLDER", "JARS", "class_path", "demand_store_jars", "java"]

_HUDI, _AWS = "1.2.0", "1.12.262"
ARTIFACTS = (
    f"org.apache.hudi:hudi-java-client:{_HUDI}",
    f"org.apache.hudi:hudi-spark3.5-bundle_2.12:{_HUDI}",
    "org.apache.hadoop:hadoop-aws:3.3.4",
    *(f"com.amazonaws:aws-java-sdk-{name}:{_AWS}" for name in ("core", "s3", "kms", "sts", "dynamodb")),
    f"com.amazonaws:jmespath-java:{_AWS}",
    "com.fasterxml.jackson.dataformat:jackson-dataformat-cbor:2.15.2",
    "software.amazon.ion:ion-java:1.0.2",
)
"""The Java engine, the bundle with everything that it stands on, and Hadoop's client of S3 with what pyspark lacks of
Amazon's. In this order on the class path. Hadoop's version is the one that pyspark 3.5 brings."""

_OF_STORES = 2
"""From here on they are needed for tables in a store only."""

FOLDER = f"hudi-{_HUDI}-hadoop-3.3.4"

JARS = "ONEFOLD_HUDI_JARS"
"""Names the folder with Hudi's jars, for machines that do not reach Maven Central."""

_FETCH_SECONDS = 900


def java() -> str:
    """The Java runtime. Raises SinkRefused."""
    home = os.environ.get("JAVA_HOME")
    found = shutil.which("java", path=f"{home}/bin") if home else None
    found = found or shutil.which("java")
    if found is None:
        raise SinkRefused(
            "Hudi is written by its own Java code, and there is no Java here.",
            next_step="Install a Java runtime of version 11 or 17, then run again: nothing is lost.",
        )
    return found


def class_path(jars: str | None) -> str:
    """Hudi's jars and those of pyspark. jars: a folder with Hudi's; None: fetched once from Maven Central.

    Raises ExtraMissing, SinkRefused.
    """
    beside = pyspark_jars()
    named = jars or os.environ.get(JARS)
    folder = Path(named) if named else _fetched(beside)
    wanted = [folder / _file(artifact) for artifact in ARTIFACTS]
    _demand(wanted[:_OF_STORES])
    ours = [path for path in wanted if path.is_file()]
    return os.pathsep.join(map(str, [*ours, *sorted(beside.glob("*.jar"))]))


def demand_store_jars(jars: str | None) -> None:
    """Raises SinkRefused when the folder that is named lacks jars that tables in a store need."""
    named = jars or os.environ.get(JARS)
    if named:
        _demand([Path(named) / _file(artifact) for artifact in ARTIFACTS[_OF_STORES:]])


def _demand(paths: Sequence[Path]) -> None:
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise SinkRefused(
            "Jars that writing Hudi tables needs are missing.",
            found=", ".join(missing),
            expected=f"in {paths[0].parent}",
            next_step=_BY_HAND,
        )


def _file(artifact: str) -> str:
    _, name, version = artifact.split(":")
    return f"{name}-{version}.jar"


def pyspark_jars() -> Path:
    """Where pyspark keeps its jars; it is not imported. Raises ExtraMissing."""
    found = importlib.util.find_spec("pyspark")
    if found is None or found.origin is None or importlib.util.find_spec("py4j") is None:
        raise ExtraMissing("Writing Hudi tables needs pyspark, for its Java archives.", next_step=_INSTALL)
    return Path(found.origin).parent / "jars"


_INSTALL = "pip install 'onefold[hudi]'"
_BY_HAND = (
    f"Download {', '.join(ARTIFACTS)} from Maven Central into a folder, and name that in {JARS} or jars=. All but the "
    "first two serve tables in a store only."
)


def _fetched(beside: Path) -> Path:
    """By Ivy, which pyspark brings, into the user's cache: whole or not at all."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "onefold" / FOLDER
    if folder.is_dir():
        return folder
    make_folder(folder.parent)
    ivy = next(beside.glob("ivy-*.jar"))
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        place = Path(scratch) / "jars"
        for artifact in ARTIFACTS:
            group, name, version = artifact.split(":")
            command = [java(), "-jar", str(ivy), "-cache", f"{scratch}/ivy", "-notransitive", "-confs", "default"]
            command += ["-dependency", group, name, version, "-types", "jar"]
            command += ["-retrieve", f"{place}/[artifact]-[revision].[ext]"]
            _run(command)
        publish(place, folder, step="hudi.jars")
    return folder


def _run(command: list[str]) -> None:
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_FETCH_SECONDS)  # noqa: S603 - Ivy
    if ran.returncode:
        raise SinkRefused(
            "Jars of Apache Hudi could not be fetched from Maven Central.",
            found=(ran.stdout + ran.stderr)[-800:],
            next_step=_BY_HAND,
        )
