"""What Hudi calls the files of a table, and where to get what reads it."""

from __future__ import annotations

import re
from typing import Any

from onefold.errors import ExtraMissing

__all__ = ["BASE_FILE", "INSTALL", "META", "PROPERTIES", "hudi_rs", "is_of_rows"]

META = ".hoodie"
PROPERTIES = f"{META}/hoodie.properties"
INSTALL = "pip install 'onefold[hudi]'"

BASE_FILE = re.compile(r"(?P<group>.+)_[\d-]+_(?P<instant>\d{14,17})\.parquet")
"""A file of rows: its group, whose files follow each other, and the instant that wrote it."""


def is_of_rows(name: str) -> re.Match[str] | None:
    """What BASE_FILE finds in the name of a file, of a path below the table; None for all other files."""
    *folders, file = name.split("/")
    return None if META in folders else BASE_FILE.fullmatch(file)


def hudi_rs() -> Any:
    """The library. Raises ExtraMissing."""
    try:
        import hudi
    except ImportError as error:
        raise ExtraMissing("Reading Hudi tables needs hudi-rs.", next_step=INSTALL) from error
    return hudi
