"""Where a Hudi table lies: in a folder on this machine (folder.py), or below a prefix of a store (prefix.py)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import pyarrow.parquet as pq

from onefold.connectors.addresses import plain_path, scheme_of
from onefold.connectors.hudi.folder import Folder
from onefold.connectors.hudi.prefix import OPTIONS, Prefix
from onefold.connectors.spooling import resolved_path, target_path
from onefold.errors import BuildError, NotSupported, SettingMissing
from onefold.protocols import CheckResult
from onefold.settings import resolve, show
from onefold.types import Binding

__all__ = ["Address", "Place"]

_S3 = frozenset({"s3", "s3a", "s3n"})


class Place(Protocol):
    """A table as files. Names are paths below it, with /. Every verb may raise OSError; none waits for long."""

    @property
    def for_java(self) -> str:
        """The table's address for Hudi's Java code."""
        ...

    @property
    def hadoop(self) -> Mapping[str, str]:
        """Settings of Hadoop's client."""
        ...

    def builder(self) -> Any:
        """hudi-rs' builder of a table. Raises ExtraMissing."""
        ...

    def has(self, name: str) -> bool:
        """Whether there is such a file."""
        ...

    def names(self, under: str = "") -> list[str]:
        """All files below."""
        ...

    def strangers(self) -> list[str]:
        """What lies at the top and does not begin with a dot."""
        ...

    def parquet(self, name: str) -> pq.ParquetFile:
        """A file of rows. Raises FileNotFoundError."""
        ...

    def remove(self, name: str, *, step: str) -> None:
        """Durably; a file that is not there is none. Raises DiskError."""
        ...

    def lay_out(self, create: Callable[[str], None], mark: str) -> None:
        """A new table, which `create` lays out at an address for Java. mark: one writer's own. Raises DiskError."""
        ...

    def refuse_torn(self, binding: Binding) -> None:
        """Raise FileCorrupt for a commit whose name is there and whose bytes are not."""
        ...

    def sync(self, files: Sequence[str]) -> None:
        """These files of rows, and all of Hudi's own, survive a power cut. Raises DiskError."""
        ...

    def checked(self) -> CheckResult:
        """What `doctor` says of it. Raises nothing."""
        ...


@dataclass(frozen=True)
class Address:
    """A table's address: a path, file://…, or s3://bucket/prefix; may hold ${NAME}.

    options: of a store, as in OPTIONS; values may hold ${NAME}. Raises BuildError, NotSupported.
    """

    uri: str
    options: Mapping[str, str] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self._checked(self.uri)
        strange = [name for name in self.options if name not in OPTIONS]
        if strange:
            raise BuildError(
                "These options of a store are not known.", found=", ".join(strange), expected=", ".join(OPTIONS)
            )

    @property
    def is_remote(self) -> bool:
        """Whether it is in a store, as far as that is known while a ${NAME} has no value."""
        with contextlib.suppress(SettingMissing):
            return scheme_of(resolve(self.uri)) is not None
        return scheme_of(self.uri) is not None

    @property
    def label(self) -> str:
        """hudi(uri), references unexpanded."""
        return f"hudi({show(self.uri)})"

    @property
    def target(self) -> str:
        """The table for a sink's fingerprint: its absolute address, or as written while a ${NAME} has no value."""
        try:
            uri = resolve(self.uri)
        except SettingMissing:
            return f"hudi:{self.uri}"
        if scheme_of(uri) is None:
            return f"hudi:{target_path(plain_path(self.uri))}"
        return f"hudi:s3://{_rest(uri)}"

    def place(self) -> Folder | Prefix:
        """Raises SettingMissing, NotSupported. Connects to nothing."""
        uri = resolve(self.uri, used_in=self.label)
        self._checked(uri)
        if scheme_of(uri) is None:
            return Folder(resolved_path(plain_path(self.uri)))
        return Prefix(_rest(uri), {name: resolve(value, used_in=self.label) for name, value in self.options.items()})

    def _checked(self, uri: str) -> None:
        if scheme_of(uri) not in (None, *_S3):
            raise NotSupported(
                "Hudi tables are in local folders and in S3-compatible stores.",
                found=show(self.uri),
                expected="a folder, or s3://bucket/prefix",
            )


def _rest(uri: str) -> str:
    return uri.partition("://")[2].rstrip("/")
