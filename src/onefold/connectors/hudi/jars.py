"""The Java archives that Hudi's own writer needs: pyspark brings Hadoop, Avro and Parquet, Maven Central has Hudi's."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from onefold.disk import make_folder, publish
from onefold.errors import ExtraMissing, SinkRefused

__all__ = ["ARTIFACTS", "JARS", "VERSION", "class_path", "java"]

VERSION = "1.2.0"
ARTIFACTS = ("org.apache.hudi:hudi-java-client", "org.apache.hudi:hudi-spark3.5-bundle_2.12")
"""The Java engine, and the bundle with everything that it stands on. In this order on the class path."""

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
    ours = [folder / f"{artifact.partition(':')[2]}-{VERSION}.jar" for artifact in ARTIFACTS]
    missing = [path.name for path in ours if not path.is_file()]
    if missing:
        raise SinkRefused(
            "Jars of Apache Hudi are missing.",
            found=", ".join(missing),
            expected=f"in {folder}",
            next_step=_BY_HAND,
        )
    return os.pathsep.join(map(str, [*ours, *sorted(beside.glob("*.jar"))]))


def pyspark_jars() -> Path:
    """Where pyspark keeps its jars; it is not imported. Raises ExtraMissing."""
    found = importlib.util.find_spec("pyspark")
    if found is None or found.origin is None or importlib.util.find_spec("py4j") is None:
        raise ExtraMissing("Writing Hudi tables needs pyspark, for its Java archives.", next_step=_INSTALL)
    return Path(found.origin).parent / "jars"


_INSTALL = "pip install 'onefold[hudi]'"
_BY_HAND = (
    f"Download {' and '.join(ARTIFACTS)}, version {VERSION}, from Maven Central into a folder, and name that in {JARS} "
    "or jars=."
)


def _fetched(beside: Path) -> Path:
    """By Ivy, which pyspark brings, into the user's cache: whole or not at all."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "onefold" / f"hudi-{VERSION}"
    if folder.is_dir():
        return folder
    make_folder(folder.parent)
    ivy = next(beside.glob("ivy-*.jar"))
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        place = Path(scratch) / "jars"
        for artifact in ARTIFACTS:
            group, _, name = artifact.partition(":")
            command = [java(), "-jar", str(ivy), "-cache", f"{scratch}/ivy", "-notransitive", "-confs", "default"]
            command += ["-dependency", group, name, VERSION, "-types", "jar"]
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
