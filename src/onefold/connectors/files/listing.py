"""Which files a pattern names now, and which of them may be read."""

from __future__ import annotations

import functools
import glob
import os
import re
import stat as stat_module
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from onefold.durations import duration_micros
from onefold.errors import NotSupported, SourceUnavailable

__all__ = ["Completeness", "FileKind", "Pattern", "Seen", "compression_of", "kind_of", "parse_completeness"]

LOG_FOLDER = "_onefold"
_MAGIC = re.compile(r"[*?\[]")

Compression = Literal["", "gz", "zst"]
Layout = Literal["lines", "csv", "parquet"]

_LAYOUTS: dict[str, Layout] = {
    "json": "lines", "jsonl": "lines", "ndjson": "lines", "lines": "lines", "txt": "lines", "log": "lines",
    "raw": "lines", "csv": "csv", "parquet": "parquet",
}  # fmt: skip
_FORMATS = {"json": "json", "jsonl": "json", "ndjson": "json", "csv": "csv", "parquet": "parquet"}


@dataclass(frozen=True)
class FileKind:
    """How the files are laid out, and the name of the format that decodes their records ("raw" if none is known)."""

    layout: Layout
    format_name: str

    def may_grow(self, path: str) -> bool:
        """Whether a file is read as it grows; compressed and Parquet files are read when finished."""
        return self.layout != "parquet" and not compression_of(path)


@dataclass(frozen=True)
class Seen:
    """A file as a listing saw it. path: relative to the pattern's base, with forward slashes."""

    path: str
    size: int
    modified_seconds: float
    inode: int


@dataclass(frozen=True)
class Completeness:
    """When a file may be read, and when it is finished.

    rule "age": whole records are read as they come; a file that has not changed for age_seconds is finished.
    rule "marker": a file may be read when path + marker exists, and is finished then.
    rule "rename": the writer moves finished files into place, so each is finished when it is seen.
    """

    rule: Literal["age", "marker", "rename"]
    age_seconds: float = 0.0
    marker: str = ""

    def is_finished(self, seen: Seen, now: float) -> bool:
        """Whether nothing more is to come: its unterminated last line is a record, its compressed end is its end."""
        return self.rule != "age" or now - seen.modified_seconds >= self.age_seconds


@dataclass(frozen=True)
class Pattern:
    """A glob, a folder or a file, with every ${NAME} resolved. text: absolute."""

    text: str
    completeness: Completeness

    @functools.cached_property
    def base(self) -> Path:
        """The longest leading folder without wildcards; paths are kept relative to it."""
        path = Path(self.text)
        if not _MAGIC.search(self.text):
            return path if path.is_dir() else path.parent
        fixed = _leading(path.parts)
        return Path(*fixed)

    def seen(self) -> list[Seen]:
        """Files that may be read, by name. Raises SourceUnavailable when the base folder is not there."""
        base = self.base
        if not base.is_dir():
            raise SourceUnavailable(f"The folder {base} does not exist.", next_step="Make it, or correct the pattern.")
        found = []
        for name in self._names(base):
            try:
                stat = (base / name).stat()
            except FileNotFoundError:  # gone since it was listed: never admitted, so nothing is lost
                continue
            if stat_module.S_ISREG(stat.st_mode) and self._may_be_read(base / name):
                found.append(Seen(name, stat.st_size, stat.st_mtime, stat.st_ino))
        return sorted(found, key=lambda file: file.path)

    def _names(self, base: Path) -> list[str]:
        path = Path(self.text)
        if _MAGIC.search(self.text):
            inner = str(Path(*path.parts[len(base.parts) :]))
            found = glob.glob(inner, root_dir=base, recursive=True)  # noqa: PTH207  (relative names, hidden ones left out)
        elif path.is_dir():
            found = [name for name in glob.glob("**", root_dir=base, recursive=True) if not _is_private(name)]  # noqa: PTH207
        else:
            found = [path.name] if path.exists() else []
        marker = self.completeness.marker
        names = [name.replace(os.sep, "/") for name in found if not (marker and name.endswith(marker))]
        return [name for name in names if LOG_FOLDER not in name.split("/")]

    def _may_be_read(self, path: Path) -> bool:
        return self.completeness.rule != "marker" or path.with_name(path.name + self.completeness.marker).exists()


def parse_completeness(text: str) -> Completeness:
    """`age:2s`, `marker:.done` or `rename`. Raises NotSupported."""
    rule, _, rest = text.partition(":")
    if rule == "age" and rest:
        return Completeness("age", age_seconds=duration_micros(rest, what="complete=") / 1e6)
    if rule == "marker" and rest.startswith((".", "_", "-")):
        return Completeness("marker", marker=rest)
    if text == "rename":
        return Completeness("rename")
    raise NotSupported(
        f"complete={text!r} is not known.",
        expected='"age:2s", "marker:.done" (a suffix that begins with ".", "_" or "-") or "rename"',
    )


def kind_of(pattern: str, format_name: str | None) -> FileKind:
    """The layout by the format's name, else by the pattern's suffix. Raises NotSupported when neither tells."""
    name = Path(pattern).name
    for suffix in (".gz", ".zst", ".zstd"):
        name = name.removesuffix(suffix)
    ending = (format_name or name.rpartition(".")[2]).lower()
    layout = _LAYOUTS.get(ending)
    if layout is None:
        raise NotSupported(
            f"files({pattern}): the name does not tell the format.",
            expected='format="json", "csv", "parquet" or "lines"',
            next_step='Say it: of.files(…, format="json").',
        )
    return FileKind(layout, _FORMATS.get(ending, "raw"))


def compression_of(path: str) -> Compression:
    """By suffix: gz, zst, or "" for none."""
    return "gz" if path.endswith(".gz") else "zst" if path.endswith((".zst", ".zstd")) else ""


def _leading(parts: tuple[str, ...]) -> list[str]:
    fixed = []
    for part in parts:
        if _MAGIC.search(part):
            break
        fixed.append(part)
    return fixed


def _is_private(name: str) -> bool:
    return any(part.startswith(("_", ".")) for part in name.replace(os.sep, "/").split("/"))
