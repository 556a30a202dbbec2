"""Grouping and aggregating: what `window` and `group_by` give, until `agg` makes a stream of it again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from onefold.errors import BuildError
from onefold.flow import columns
from onefold.flow.aggregates import SplitAggregate, split
from onefold.flow.graph import Draft, check_name
from onefold.flow.schema import Updates
from onefold.plan import AggregateNode

if TYPE_CHECKING:
    from onefold.flow.stream import Stream

__all__ = ["Grouped", "Windowed"]

WINDOW_COLUMNS = ("window_start", "window_end")


class Windowed:
    """A stream cut into tumbling windows of event time."""

    def __init__(self, stream: Stream, size_micros: int, offset_micros: int, name: str | None) -> None:
        self._stream = stream
        self._window = (size_micros, offset_micros)
        self._name = name

    def group_by(self, *keys: str, name: str | None = None) -> Grouped:
        """Group each window by columns."""
        if not keys:
            raise BuildError("group_by needs at least one column.", next_step="Use .window(…).agg(…) for none.")
        found = columns.key_columns(keys, self._stream._arrow, "group_by")
        return Grouped(self._stream, found, self._window, name or self._name)

    def agg(self, **aggregates: str) -> Stream:
        """One row per window: see `Grouped.agg`."""
        return Grouped(self._stream, (), self._window, self._name).agg(**aggregates)


class Grouped:
    """A stream grouped by columns, and by windows if it came from `window`."""

    def __init__(self, stream: Stream, keys: tuple[str, ...], window: tuple[int, int] | None, name: str | None) -> None:
        self._stream = stream
        self._keys = keys
        self._window = window
        self._name = check_name(name, "An aggregate") if name is not None else None

    def agg(self, **aggregates: str) -> Stream:
        """Aggregate: name="SQL aggregate", …; for instance revenue="sum(amount)", share="sum(x) / count(*)".

        Supported: count, count_if, sum, min, max, avg, bool_and, bool_or, each with FILTER (WHERE …), and arithmetic
        over them. Raises ExpressionError, NotSupported.
        """
        from onefold.flow.stream import Stream

        if not aggregates:
            raise BuildError("agg needs at least one aggregate.", expected='for instance agg(n="count(*)")')
        rows = self._stream._arrow
        parts = [split(name, sql, rows) for name, sql in aggregates.items()]
        identity = [*(rows.field(key) for key in self._keys), *self._window_fields()]
        schema = columns.schema_of([*identity, *(part.field for part in parts)], "agg")
        partial_fields = [field for part in parts for field in part.partial_fields]
        partial_schema = columns.schema_of([*identity, *partial_fields], "agg")
        draft = self._draft(parts, schema, partial_schema)
        names = tuple(field.name for field in identity if field.name != "window_end")
        updates = Updates(names, is_windowed=self._window is not None)
        return Stream(self._stream._flow, draft, schema, event_time=None, updates=updates)

    def _window_fields(self) -> list[pa.Field]:
        if self._window is None:
            return []
        event_time = self._stream._arrow.field(self._stream._event_time).type
        zone = event_time.tz if pa.types.is_timestamp(event_time) else None
        return [pa.field(name, pa.timestamp("us", tz=zone)) for name in WINDOW_COLUMNS]

    def _draft(self, parts: list[SplitAggregate], schema: pa.Schema, partial_schema: pa.Schema) -> Draft:
        kind = "group_by" if self._window is None else "window"
        size, offset = self._window or (None, 0)
        keys, event_time = self._keys, self._stream._event_time if self._window else None
        split_aggregates = tuple(part.aggregate for part in parts)

        def make(own: str, inputs: tuple[str, ...]) -> AggregateNode:
            return AggregateNode(own, inputs, schema, keys, split_aggregates, partial_schema, size, offset, event_time)

        return Draft(kind, self._name or kind, (self._stream._draft,), make)
