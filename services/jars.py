"""Jars from Maven Central, fetched once into the repository's ignored folder."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".services"
POM = Path(__file__).with_name("pom.xml")


class ServiceMissing(Exception):
    """A server cannot be started here: says why, and what to install."""


def java() -> str:
    """The Java runtime. Raises ServiceMissing."""
    found = shutil.which("java")
    if found is None:
        raise ServiceMissing("no Java runtime: install a JRE of version 17 or later")
    return found


def jars() -> Path:
    """The folder with all jars of pom.xml; another one when that changes. Raises ServiceMissing."""
    FOLDER.mkdir(exist_ok=True)
    folder = FOLDER / f"jars-{hashlib.sha256(POM.read_bytes()).hexdigest()[:12]}"
    with (FOLDER / "jars.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            _fetch(folder)
    return folder


def _fetch(folder: Path) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise ServiceMissing("no Maven: install it, or name a broker in ONEFOLD_KAFKA")
    partial = folder.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    goal = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
    command = [maven, "-q", "-B", "-f", str(POM), goal, f"-DoutputDirectory={partial}", "-DincludeScope=runtime"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise ServiceMissing(f"Maven could not fetch the jars: {ran.stdout[-2000:]}{ran.stderr[-2000:]}")
    partial.rename(folder)
