"""The Java process that writes Hudi tables, shared by tests: it outlives the processes that they kill."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from onefold.connectors.hudi import jvm
from onefold.connectors.hudi.jars import ARTIFACTS, FOLDER, JARS
from services import jars

VARIABLE = jvm.SHARED


def fetched() -> str:
    """The folder with Hudi's jars, or what ONEFOLD_HUDI_JARS names. Raises ServiceMissing."""
    jars.java()
    named = os.environ.get(JARS)
    return named or str(jars.copied(FOLDER, ARTIFACTS))


@contextmanager
def running() -> Iterator[str]:
    """A machine; what is yielded names it. Raises ServiceMissing."""
    made, told = jvm.start(jars=fetched(), options=["-Xmx1g"])
    try:
        yield told
    finally:
        made.stop()
