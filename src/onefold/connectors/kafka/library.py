"""What comes with the extra `kafka`: the client, and librdkafka, loaded so that the bridge's names are known."""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import os
import sys
from functools import cache
from pathlib import Path
from typing import Any

from onefold.errors import ExtraMissing

__all__ = ["bridge", "client"]

VARIABLE = "ONEFOLD_LIBRDKAFKA"
"""Names another shared library than the one inside the confluent-kafka package."""

_SUFFIX = "dylib" if sys.platform == "darwin" else "so"


def client() -> Any:
    """The package confluent_kafka with its `admin`. Raises ExtraMissing."""
    try:
        importlib.import_module("confluent_kafka.admin")
        return importlib.import_module("confluent_kafka")
    except ImportError as error:
        raise _missing() from error


@cache
def bridge() -> Any:
    """The compiled module. Raises ExtraMissing when there is no librdkafka."""
    path = os.environ.get(VARIABLE) or str(_packaged())
    try:
        ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)
    except OSError as error:
        raise ExtraMissing("librdkafka cannot be loaded.", file=path, found=error) from error
    return importlib.import_module("onefold.connectors.kafka.bridge")


def _packaged() -> Path:
    found = importlib.util.find_spec("confluent_kafka")
    if found is None or found.origin is None:
        raise _missing()
    package = Path(found.origin).parent
    for folder in (package.parent / "confluent_kafka.libs", package / ".dylibs", package):
        for path in sorted(folder.glob(f"librdkafka*.{_SUFFIX}*")):
            return path
    raise ExtraMissing(
        "This confluent-kafka does not bring librdkafka along.",
        where=package,
        next_step=f"Install its wheel, or name the shared library in {VARIABLE}.",
    )


def _missing() -> ExtraMissing:
    return ExtraMissing("Kafka needs confluent-kafka.", next_step="pip install 'onefold[kafka]'")
