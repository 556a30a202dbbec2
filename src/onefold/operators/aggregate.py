"""Group by, running or in tumbling windows of event time.

The batch is aggregated in DuckDB to partial rows; the touched rows of the state are fetched, merged in DuckDB and put
back. So every aggregate that merges keeps its own type, and no order of rows matters.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from onefold.operators.event_time import kept_times
from onefold.operators.sql import Sql, identifier, identifiers, literal_interval
from onefold.plan import AggregateNode
from onefold.state.table import KeyedTable

__all__ = ["AggregateCounts", "Aggregation"]

WINDOW_START, WINDOW_END = "window_start", "window_end"


@dataclass(frozen=True)
class AggregateCounts:
    """Rows: read = taken. Groups: held_before + opened = held_after + closed."""

    read: int
    opened: int
    closed: int
    held_before: int
    held_after: int


class Aggregation:
    """One aggregate node and its state."""

    def __init__(self, node: AggregateNode, state_key: bytes, sql: Sql) -> None:
        self.node = node
        self._sql = sql
        self._group = [*node.keys, *([WINDOW_START] if node.window_micros else [])]
        self._key_schema = pa.schema([node.partial_schema.field(name) for name in self._group])
        self._rest = pa.schema([field for field in node.partial_schema if field.name not in self._group])
        self.table = KeyedTable(
            node.name,
            self._key_schema,
            self._rest,
            hash_key=state_key,
            expiry=WINDOW_END if node.window_micros else None,
        )
        self._closed_to: int | None = None
        self._columns = pa.schema([*self._key_schema, *self._rest])
        self._partial_query = self._make_partial_query()
        self._merge_query = self._make_merge_query()
        self._final_query = self._make_final_query()
        self._renames = self._find_renames()

    def run(self, rows: pa.Table) -> tuple[pa.Table, int]:
        """Takes rows in. Returns the groups they touched, as they now are (partial columns), and how many are new."""
        if rows.num_rows == 0:
            return self._columns.empty_table(), 0
        if self.node.event_time is not None:
            kept_times(rows, self.node.event_time, self.node.name, self._closed_to)
        partial = self._query(self._partial_query, rows, self._columns)
        found, values = self.table.lookup(partial.select(self._group))
        known = int(np.count_nonzero(found))
        if known:
            mask = pa.array(found)
            held = pa.table([*partial.select(self._group).columns, *values.columns], schema=self._columns).filter(mask)
            partial = self._query(self._merge_query, pa.concat_tables([held, partial]), self._columns)
        self.table.upsert(partial)
        return partial, len(found) - known

    def latest_end(self) -> int | None:
        """The end of the latest open window, microseconds; None when none is open."""
        if self.node.window_micros is None:
            return None
        ends = [pc.max(batch.column(WINDOW_END)) for batch in self.table.scan() if batch.num_rows]
        return max((end.value for end in ends), default=None)

    def close(self, watermark: int | None) -> pa.Table:
        """Takes out the windows that end at or before the watermark (microseconds), in order of their end."""
        if self.node.window_micros is None or watermark is None:
            return self._columns.empty_table()
        self._closed_to = watermark
        closed = self.table.take_expired(watermark)
        return closed.sort_by([(name, "ascending") for name in (WINDOW_END, *self.node.keys)]) if closed else closed

    def finals(self, partial: pa.Table) -> pa.Table:
        """The user's columns of partial rows."""
        if partial.num_rows == 0:
            return self.node.schema.empty_table()
        if self._renames is not None:
            return pa.table([partial.column(name) for name in self._renames], schema=self.node.schema)
        return self._query(self._final_query, partial, self.node.schema)

    def _query(self, query: str, rows: pa.Table, schema: pa.Schema) -> pa.Table:
        expressions = [f"{one.name}={one.final}" for one in self.node.aggregates]
        return self._sql.run(query, {"input": rows}, schema, node=self.node.name, expressions=expressions)

    def _make_partial_query(self) -> str:
        columns = [identifier(name) for name in self.node.keys]
        if self.node.window_micros is not None:
            time = f"CAST({identifier(self.node.event_time or '')} AS TIMESTAMP)"
            origin = f"(TIMESTAMP '1970-01-01' + {literal_interval(self.node.window_offset_micros)})"
            start = f"time_bucket({literal_interval(self.node.window_micros)}, {time}, {origin})"
            columns.append(f"{start} AS {WINDOW_START}")
            columns.append(f"{start} + {literal_interval(self.node.window_micros)} AS {WINDOW_END}")
        for aggregate in self.node.aggregates:
            columns += [f"{sql} AS {identifier(name)}" for name, sql in aggregate.partials.items()]
        return f"SELECT {', '.join(columns)} FROM input GROUP BY {self._places()}"

    def _make_merge_query(self) -> str:
        columns = [identifier(name) for name in self._group]
        if self.node.window_micros is not None:
            columns.append(f"any_value({WINDOW_END}) AS {WINDOW_END}")
        for aggregate in self.node.aggregates:
            columns += [f"{sql} AS {identifier(name)}" for name, sql in aggregate.merges.items()]
        return f"SELECT {', '.join(columns)} FROM input" + (
            f" GROUP BY {identifiers(self._group)}" if self._group else ""
        )

    def _places(self) -> str:
        """By place: the window's start is an expression, and a key may hide a column of the input."""
        return ", ".join(str(place + 1) for place in range(len(self._group)))

    def _find_renames(self) -> list[str] | None:
        """The partial column behind each of the user's, when no expression stands between: then no query is run."""
        named = {identifier(name): name for name in self._columns.names}
        finals = {aggregate.name: named.get(aggregate.final) for aggregate in self.node.aggregates}
        origins = [finals.get(name, name) for name in self.node.schema.names]
        fits = [
            origin is not None and self._columns.field(origin).type == field.type
            for origin, field in zip(origins, self.node.schema, strict=True)
        ]
        return [origin for origin in origins if origin is not None] if all(fits) else None

    def _make_final_query(self) -> str:
        finals = {aggregate.name: aggregate.final for aggregate in self.node.aggregates}
        columns = [f"{finals.get(name, identifier(name))} AS {identifier(name)}" for name in self.node.schema.names]
        return f"SELECT {', '.join(columns)} FROM input"
