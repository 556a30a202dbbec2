"""Where a Delta table is: a folder on this machine, or a prefix of an object store.

Nothing here connects before it is asked to. Options may hold credentials: they are never shown.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pyarrow.fs as fs

from onefold.connectors.addresses import plain_path, scheme_of
from onefold.connectors.spooling import resolved_path, target_path
from onefold.errors import BuildError, ExtraMissing, SettingMissing, SinkRefused
from onefold.settings import resolve, show

__all__ = ["Location", "deltalake"]

_PERCENT_ESCAPE = re.compile(r"%[0-9A-Fa-f]{2}")
_SECRETS = re.compile(r"secret|token|password|key|sas|credential", re.IGNORECASE)
_ONE_SCHEME = {"s3a": "s3", "s3n": "s3", "abfs": "abfss", "wasb": "wasbs"}


def deltalake() -> Any:
    """The library. Raises ExtraMissing."""
    try:
        import deltalake as library
        import deltalake.exceptions
    except ImportError as error:
        raise ExtraMissing("Delta Lake needs deltalake.", next_step="pip install 'onefold[delta]'") from error
    return library


@dataclass(frozen=True)
class Location:
    """A table's address.

    uri: a path, file://…, or what object stores are named by: s3://bucket/prefix, az://…, gs://…; may hold ${NAME}.
    options: for the object store, as deltalake knows them; values may hold ${NAME}.
    """

    uri: str
    options: Mapping[str, str] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if not self.uri.strip():
            raise BuildError("Which table?", found=repr(self.uri), expected='for instance "lake/payments"')

    @property
    def label(self) -> str:
        """delta(uri), references unexpanded, without a password."""
        return f"delta({_without_user(show(self.uri))})"

    @property
    def target(self) -> str:
        """The table for a sink's fingerprint: its absolute address, or as written while a ${NAME} has no value."""
        try:
            uri = resolve(self.uri)
        except SettingMissing:
            return f"delta:{self.uri}"
        if scheme_of(uri):
            parts = urlsplit(_without_user(uri))
            scheme = _ONE_SCHEME.get(parts.scheme.lower(), parts.scheme.lower())
            return f"delta:{scheme}://{parts.netloc}{parts.path.rstrip('/')}"
        return f"delta:{target_path(plain_path(self.uri))}"

    @property
    def local(self) -> Path | None:
        """The folder, where it is on this machine. Raises SettingMissing."""
        uri = resolve(self.uri, used_in=self.label)
        return None if scheme_of(uri) else resolved_path(plain_path(self.uri))

    @property
    def address(self) -> str:
        """As deltalake takes it. Raises SettingMissing, SinkRefused for a folder that it cannot open."""
        local = self.local
        if local is None:
            return resolve(self.uri, used_in=self.label).rstrip("/")
        if _PERCENT_ESCAPE.search(str(local)):
            raise SinkRefused(
                f"{self.label} cannot be opened: deltalake takes a % and two digits in a folder's name for one sign.",
                found=str(local),
                next_step="Name another folder.",
            )
        return str(local)

    def settings(self) -> dict[str, str] | None:
        """The options with their values. Raises SettingMissing."""
        return {name: resolve(value, used_in=self.label) for name, value in self.options.items()} or None

    def files(self) -> tuple[fs.FileSystem, str]:
        """A file system, and the table's folder in it. Raises SettingMissing, ExtraMissing."""
        local = self.local
        if local is not None:
            return fs.LocalFileSystem(), str(local)
        from onefold.connectors.delta.objects import object_files

        return object_files(self.address, self.settings()), ""

    def clean(self, error: BaseException) -> str:
        """An error's first lines, without values of options that may be secret."""
        lines = [line.strip() for line in str(error).splitlines()]
        text = " ".join(line for line in lines if line and not re.match(r"\d+: <?\w", line))[:500]
        text = re.sub(r"\x1b\[[0-9;]*m", "", text)
        try:
            values = self.settings() or {}
        except SettingMissing:
            return text
        for name, value in values.items():
            if value and _SECRETS.search(name):
                text = text.replace(value, "(hidden)")
        return text


def _without_user(uri: str) -> str:
    if scheme_of(uri) is None or "@" not in uri or uri.lower().startswith("abfs"):
        return uri  # abfss://container@account is no user
    parts = urlsplit(uri)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
