"""Where a table's catalog is, and how it is connected. Nothing here imports pyiceberg before it connects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from onefold.connectors.databases import without_password
from onefold.disk import durable_step, sync_folder
from onefold.errors import BuildError, SettingMissing
from onefold.settings import resolve, show

__all__ = ["CatalogPlace", "sync_catalog"]

FILES = "onefold.connectors.iceberg.syncing.SyncingFileIO"
_KEPT_FROM_TABLES = "py-io-impl"


@dataclass(frozen=True)
class CatalogPlace:
    """A catalog by its name in pyiceberg's configuration, and the properties that were written in the flow."""

    name: str
    properties: tuple[tuple[str, str], ...] = ()

    @staticmethod
    def of(given: str | Mapping[str, str]) -> CatalogPlace:
        """Raises BuildError."""
        if isinstance(given, str):
            return CatalogPlace(given)
        wrong = [name for name, value in given.items() if not isinstance(value, str)]
        if wrong or not ("uri" in given or given.get("type") in ("glue", "dynamodb", "in-memory")):
            raise BuildError(
                "A catalog is given by its name, or by its properties as texts.",
                found=sorted(given),
                expected='such as {"type": "rest", "uri": "https://…"}',
            )
        properties = tuple(sorted((name, value) for name, value in given.items() if name != "name"))
        return CatalogPlace(given.get("name", "default"), properties)

    @property
    def label(self) -> str:
        """Without secrets."""
        known = dict(self.properties)
        if not known:
            return self.name
        return show(without_password(known.get("uri", known.get("type", self.name))))

    @property
    def target(self) -> str:
        """What tells it from other catalogs, without secrets and as far as its settings have values."""
        known = dict(self.properties)
        if not known:
            return f"name {self.name}"
        parts = [self.name, known.get("type", ""), _bare(_resolved(known.get("uri", "")))]
        parts += [_resolved(known[name]) for name in ("glue.id", "glue.region", "glue.endpoint") if name in known]
        if known.get("type") == "rest":
            parts.append(_resolved(known.get("warehouse", "")))
        return " ".join(part for part in parts if part)

    def connect(self, *, is_look: bool = False) -> Any:
        """A pyiceberg catalog. is_look: make no tables in a database that is to hold one.

        Raises what pyiceberg and its clients raise, SettingMissing.
        """
        from pyiceberg.catalog import infer_catalog_type, load_catalog
        from pyiceberg.utils.config import Config

        given = {name: resolve(value, used_in=f"catalog {self.name}") for name, value in self.properties}
        known: dict[str, Any] = {**(Config().get_catalog_config(self.name) or {}), **given}
        known.setdefault(_KEPT_FROM_TABLES, FILES)
        if is_look:
            known["init_catalog_tables"] = "false"
        kind = known.get("type") or infer_catalog_type(self.name, known)
        if str(getattr(kind, "value", kind)) == "rest":
            from onefold.connectors.iceberg.rest import TimedRestCatalog

            return TimedRestCatalog(self.name, **known)
        return load_catalog(self.name, **known)

    @property
    def file(self) -> Path | None:
        """The SQLite file that the flow's properties name. Raises SettingMissing."""
        return _sqlite_file(resolve(dict(self.properties).get("uri", "")))


def sync_catalog(catalog: Any) -> None:
    """Make a commit of a SQLite file last: SQLite leaves the removal of its journal, which is the commit, in memory.

    Source: https://sqlite.org/pragma.html#pragma_synchronous, FULL against EXTRA.
    """
    file = _sqlite_file(str(catalog.properties.get("uri", "")))
    if file is not None:
        with durable_step("iceberg.catalog-sync"):
            sync_folder(file.parent)


def _sqlite_file(uri: str) -> Path | None:
    scheme, _, path = uri.partition(":///")
    if scheme.partition("+")[0] != "sqlite" or not path or path.startswith(":memory:"):
        return None
    return Path(path.partition("?")[0]).absolute()


def _resolved(text: str) -> str:
    try:
        return resolve(text)
    except SettingMissing:
        return text


def _bare(uri: str) -> str:
    """Without user and password."""
    file = _sqlite_file(uri)
    if file is not None:
        return f"sqlite:{file}"
    parts = urlsplit(uri)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment=""))
