"""Reading the dead letters that a flow keeps beside its journal."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from onefold.engines.embedded.outputs import DEAD_LETTERS_FILE
from onefold.errors import FileCorrupt

__all__ = ["DeadLetter", "dead_letters"]


@dataclass(frozen=True)
class DeadLetter:
    """A row that could not be used. position: where it stood, JSON; raw: the bytes as they came."""

    read: str
    partition: str
    position: str
    reason: str
    detail: str
    raw: bytes


def dead_letters(
    folder: Path, *, reason: str | None = None, read: str | None = None, limit: int
) -> tuple[Sequence[DeadLetter], Mapping[str, int]]:
    """The newest `limit` of those asked for, oldest first, and how many there are of them by reason.

    Only delivered ones: a flow that was killed writes the rest when it runs again. Raises FileCorrupt.
    """
    file = folder / DEAD_LETTERS_FILE
    if not file.exists():
        return [], {}
    where = "(?1 IS NULL OR reason = ?1) AND (?2 IS NULL OR read = ?2)"
    newest = f"""SELECT read, "partition", position, reason, detail, raw FROM dead_letters WHERE {where}
                 ORDER BY rowid DESC LIMIT ?3"""
    counted = f"SELECT reason, count(*) FROM dead_letters WHERE {where} GROUP BY reason"
    try:
        with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, timeout=10)) as connection:
            if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'dead_letters'").fetchone():
                return [], {}
            letters = [DeadLetter(*row) for row in connection.execute(newest, (reason, read, limit))]
            counts = dict(connection.execute(counted, (reason, read)))
    except sqlite3.Error as error:
        raise FileCorrupt(file=file, found=str(error), expected="an intact table of dead letters") from error
    return letters[::-1], counts
