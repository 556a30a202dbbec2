"""A table at hand: loading it, and what there is beside the library's handle of it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any
from urllib.parse import unquote

import pyarrow as pa

from onefold.connectors.delta.location import Location, deltalake
from onefold.connectors.delta.log import LocalLog, Log
from onefold.connectors.delta.tokens import METADATA, Held, app_of
from onefold.connectors.staging import StagingArea
from onefold.errors import OnefoldError, SinkRefused, SinkUnavailable, SourceRefused, SourceUnavailable
from onefold.types import Binding, Mode, Token

__all__ = ["Options", "Table", "failure", "load", "names_in", "nothing_written"]

_HOPELESS = ("permission denied", "access denied", "accessdenied", "forbidden", "invalidaccesskeyid", "nosuchbucket",
             "signaturedoesnotmatch", "unsupported", "not a directory")  # fmt: skip
"""Words in an error that no later try mends."""


@dataclass(frozen=True)
class Options:
    """How a table is written. The times are in seconds."""

    mode: Mode = "append"
    partition_by: tuple[str, ...] = ()
    evolve: bool = False
    create: bool = True
    properties: tuple[tuple[str, str], ...] = ()
    commit_every_seconds: float = 10.0
    maintain_every_seconds: float | None = None
    retention_seconds: float = 7 * 86_400.0


def load(
    location: Location,
    error: type[SinkUnavailable | SourceUnavailable],
    *,
    version: int | None = None,
    **where: Any,
) -> Any:
    """A fresh handle; None when there is no table. Raises `error`, SinkRefused or SourceRefused, SettingMissing."""
    library = deltalake()
    try:
        return library.DeltaTable(location.address, version=version, storage_options=location.settings())
    except library.exceptions.TableNotFoundError:
        return None
    except Exception as found:
        if not isinstance(found, OSError | library.exceptions.DeltaError) and type(found) is not Exception:
            raise
        raise failure(location, found, error, **where) from None


def failure(
    location: Location, found: BaseException, error: type[SinkUnavailable | SourceUnavailable], **where: Any
) -> Exception:
    """What to raise for an error that came before anything could be written."""
    text = location.clean(found)
    local = location.local
    if local is not None and local.exists() and not local.is_dir():
        text = f"{local} is a file"
    elif not any(word in text.lower() for word in _HOPELESS):
        return error(f"{location.label} cannot be reached now.", found=text, **where)
    refused = SinkRefused if error is SinkUnavailable else SourceRefused
    return refused(f"{location.label} cannot be used.", found=text, **where)


@contextlib.contextmanager
def nothing_written(location: Location, sink: str | None) -> Iterator[None]:
    """An error of the library in here means that the table is as it was. Raises SinkUnavailable, SinkRefused."""
    library = deltalake()
    try:
        yield
    except OnefoldError:
        raise
    except (library.exceptions.DeltaError, OSError) as error:
        raise failure(location, error, SinkUnavailable, sink=sink) from None


def names_in(handle: Any) -> set[str]:
    """The files that the handle's version names; None has none."""
    return set() if handle is None else set(map(unquote, pa.table(handle.get_add_actions()).column("path").to_pylist()))


class Table:
    """The table that a sink writes.

    kept: the columns as its files hold them. partitions: columns that its files do not hold, in their order. required:
    columns that may not be NULL.
    """

    def __init__(self, location: Location, binding: Binding, kept: pa.Schema) -> None:
        self.location = location
        self.binding = binding
        self.kept = kept
        self.partitions: Sequence[str] = ()
        self.required: Sequence[str] = ()

    @cached_property
    def log(self) -> Log:
        """Its log, to read."""
        return Log(*self.location.files())

    @cached_property
    def local(self) -> LocalLog | None:
        """Its log on this machine, to make it durable."""
        folder = self.location.local
        return None if folder is None else LocalLog(folder)

    @cached_property
    def area(self) -> StagingArea:
        """Where rows wait."""
        files, root = self.location.files()
        return StagingArea(files, root, self.binding, system="delta", local=self.location.local)

    def load(self) -> Any:
        """A fresh handle, or None. Raises SinkUnavailable, SinkRefused."""
        return load(self.location, SinkUnavailable, sink=self.binding.sink)

    def sync(self) -> None:
        """Have all that the log says on the disk; an object store has it there already. Raises DiskError."""
        if self.local is not None:
            self.local.sync()

    def token(self, handle: Any, held: Held) -> Token | None:
        """With its positions, as long as the log still has the commit. Raises OSError."""
        if held.token is None:
            return None
        text = self.log.positions(
            app_of(self.binding), held.token.epoch, since=held.since, through=handle.version(), metadata=METADATA
        )
        if text is None:
            return held.token
        try:
            return replace(held.token, ends=Token.from_json(text).ends)
        except (ValueError, KeyError, json.JSONDecodeError):
            return held.token  # somebody's metadata

    def rows(self, handle: Any) -> pa.Table:
        """All rows of the handle's version, in the kept columns."""
        library = deltalake()
        try:
            found = handle.to_pyarrow_table()
        except library.exceptions.DeltaProtocolError:  # features that pyarrow does not read
            found = pa.table(handle.scan())
        return found.select(self.kept.names).cast(self.kept)
