"""What users make: `of.files(pattern or folder)`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onefold.connectors.files.encoding import encoding_named
from onefold.connectors.files.listing import FileKind, kind_of, parse_completeness
from onefold.connectors.files.records import LineOptions
from onefold.connectors.files.sink import FilesSink
from onefold.connectors.files.source import FilesSource
from onefold.connectors.spooling import check_key
from onefold.errors import NotSupported
from onefold.formats.csv import Csv
from onefold.formats.lines import MAX_RECORD_BYTES, split_records
from onefold.protocols import Format
from onefold.types import Mode

__all__ = ["FilesEndpoint", "files"]

_FILE_SUFFIXES = {".parquet", ".json", ".jsonl", ".ndjson", ".csv", ".gz", ".zst"}


def files(
    path: str | Path,
    *,
    format: str | None = None,  # noqa: A002  (the word of the API)
    complete: str = "age:2s",
    max_record_bytes: int = MAX_RECORD_BYTES,
) -> FilesEndpoint:
    """Files to read, or a folder to write as a data set.

    Args:
        path: a glob such as "payments/*.jsonl", a file, or a folder; may hold ${NAME}.
        format: "json", "csv", "parquet" or "lines"; None: by the suffix (before .gz or .zst). A folder to write is
            "parquet" (the default) or "json".
        complete: when a file is finished. "age:2s": when it has not changed for so long; whole lines are read before
            that, and what is appended later is read too. "marker:.done": a file is read when path + ".done" exists.
            "rename": files are moved into place, so each is finished when it is seen.
        max_record_bytes: a longer record comes out in pieces, which no text format decodes.
    """
    return FilesEndpoint(str(path), format, complete, max_record_bytes)


@dataclass(frozen=True)
class FilesEndpoint:
    """What `files` gives."""

    path: str
    format: str | None = None
    complete: str = "age:2s"
    max_record_bytes: int = MAX_RECORD_BYTES

    @property
    def label(self) -> str:
        """files(path)."""
        return f"files({self.path})"

    @property
    def default_name(self) -> str:
        """The nearest part of the path that has a plain name: payments for payments/*.jsonl and payments.jsonl."""
        for part in reversed(Path(self.path).parts):
            name = part.split(".")[0]
            if name and not set(name) & set("*?[${/"):
                return name
        return "files"

    @property
    def format_name(self) -> str:
        """What decodes the records unless the read says otherwise."""
        return self._kind(None).format_name

    def as_source(self, format: Format | None) -> FilesSource:  # noqa: A002  (the protocol's word)
        """A replayable source of one partition. Raises NotSupported when the format is not told."""
        kind = self._kind(format)
        cut: Any = format or (Csv() if kind.layout == "csv" else None)
        options = LineOptions(
            split=getattr(cut, "split", split_records),
            max_record_bytes=self.max_record_bytes,
            has_header=bool(getattr(cut, "has_header", False)),
        )
        return FilesSource(self.path, kind, completeness=parse_completeness(self.complete), options=options)

    def as_sink(self, mode: Mode, key: tuple[str, ...]) -> FilesSink:
        """A data set of Parquet or JSON-lines files. Raises NotSupported for upserts and for a single file."""
        if mode != "append":
            raise NotSupported(
                f"{self.label} takes appended rows only: files are never rewritten.",
                found=mode,
                expected="append",
                next_step="Upsert into a table, such as of.duckdb(…).table(…), or append and take the latest by key.",
            )
        check_key(mode, key, self.label)
        name = Path(self.path).name
        if set(name) & set("*?[") or Path(name).suffix.lower() in (
            ".parquet",
            ".json",
            ".jsonl",
            ".csv",
            ".gz",
            ".zst",
        ):
            raise NotSupported(
                f"{self.label} is not a folder: a commit adds a file to a data set, it never changes one.",
                found=name,
                expected="a folder",
                next_step=f'Name a folder, such as of.files("{self.default_name}"), and read its files with a glob.',
            )
        return FilesSink(self.path, encoding_named(self.format, self.label))

    def _kind(self, format: Format | None) -> FileKind:  # noqa: A002
        if format is not None and self.format is None:
            return kind_of(self.path, format.name)
        return kind_of(self.path, self.format)
