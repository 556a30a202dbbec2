"""What a stream carries: its columns, and whether its rows replace earlier ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import escape

import pyarrow as pa

from onefold.errors import NotSupported

__all__ = ["Schema", "Updates"]


class Schema(Mapping[str, str]):
    """The columns of a stream: name -> SQL type, in order. Equal to a dict of the same columns.

    arrow: the same as a pyarrow.Schema.

    >>> Schema(pa.schema({"amount": pa.decimal128(18, 2)}))
    {'amount': 'DECIMAL(18,2)'}
    """

    def __init__(self, arrow: pa.Schema) -> None:
        from onefold.formats.types import sql_types

        self.arrow = arrow
        self._types = sql_types(arrow)

    def __getitem__(self, name: str) -> str:
        return self._types[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._types)

    def __len__(self) -> int:
        return len(self._types)

    def __repr__(self) -> str:
        return repr(self._types)

    def _repr_html_(self) -> str:
        rows = "".join(f"<tr><td>{escape(name)}</td><td>{escape(kind)}</td></tr>" for name, kind in self.items())
        return f"<table><tr><th>column</th><th>type</th></tr>{rows}</table>"


@dataclass(frozen=True)
class Updates:
    """Set on the output of an aggregate: its rows replace earlier ones.

    identity: the columns that say which row is replaced. is_windowed: closed windows are final rows.
    broken_by: the step after which a sink could no longer be kept right by replacing rows.
    """

    identity: tuple[str, ...]
    is_windowed: bool
    broken_by: str | None = None

    def check_key(self, keys: tuple[str, ...]) -> None:
        """Raise NotSupported unless an upsert by these columns keeps the sink right."""
        if self.broken_by is not None:
            raise NotSupported(
                f"The result of an aggregate cannot be upserted after {self.broken_by}: "
                "a row that was written could become stale unseen.",
                next_step="Filter before the aggregate or with FILTER (WHERE …) inside it, or append closed windows.",
            )
        if set(keys) - {"window_end"} != set(self.identity) - {"window_end"}:
            kind = "a windowed aggregate" if self.is_windowed else "a running aggregate"
            raise NotSupported(
                f"The upsert of {kind} needs its own key: with another, groups would overwrite one another.",
                found=f"key={list(keys)}",
                expected=f"key={list(self.identity)}",
            )
