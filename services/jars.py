"""Jars and archives from Maven Central, fetched once into the repository's ignored folder."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".services"
PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1"


class ServiceMissing(Exception):
    """A server cannot be started here: says why, and what to install."""


def java() -> str:
    """The Java runtime. Raises ServiceMissing."""
    found = shutil.which("java")
    if found is None:
        raise ServiceMissing("no Java runtime: install a JRE of version 17 or later")
    return found


def of_pom(pom: Path) -> Path:
    """The folder with all jars that it names and they need; another one when it changes. Raises ServiceMissing."""
    folder = FOLDER / f"jars-{hashlib.sha256(pom.read_bytes()).hexdigest()[:12]}"
    return _fetched(folder, ("copy-dependencies", "-f", str(pom), "-DincludeScope=runtime"))


def copied(name: str, artifacts: Sequence[str]) -> Path:
    """A folder with single jars alone. artifacts: group:artifact:version. Raises ServiceMissing."""
    return _fetched(FOLDER / name, *[("copy", f"-Dartifact={artifact}") for artifact in artifacts])


def unpacked(artifact: str) -> Path:
    """What a tar archive holds; artifact: group:artifact:version:type:classifier. Raises ServiceMissing."""
    _, name, version, *_ = artifact.split(":")
    return _fetched(FOLDER / f"{name}-{version}", ("copy", f"-Dartifact={artifact}"))


def _fetched(folder: Path, *runs: Sequence[str]) -> Path:
    """Whole or not at all, and by one process; archives are unpacked."""
    FOLDER.mkdir(exist_ok=True)
    with (FOLDER / "jars.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            partial = folder.with_name(f"{folder.name}.partial")
            shutil.rmtree(partial, ignore_errors=True)
            for goal, *options in runs:
                _run_maven(f"{PLUGIN}:{goal}", *options, f"-DoutputDirectory={partial}")
            for archive in partial.glob("*.tar.gz"):
                subprocess.run(["tar", "-xzf", str(archive), "-C", str(partial)], check=True)
                archive.unlink()
            partial.rename(folder)
    return folder


def _run_maven(*arguments: str) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise ServiceMissing("no Maven: install it, or name servers in ONEFOLD_KAFKA and ONEFOLD_SCHEMA_REGISTRY")
    ran = subprocess.run([maven, "-q", "-B", *arguments], capture_output=True, text=True, check=False)
    if ran.returncode:
        raise ServiceMissing(f"Maven could not fetch: {ran.stdout[-2000:]}{ran.stderr[-2000:]}")
