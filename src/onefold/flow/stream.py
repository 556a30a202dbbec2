"""A stream: rows of one schema on their way through the flow. Every verb gives a new stream; none changes one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from html import escape
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa

from onefold.durations import Duration, duration_micros, duration_text
from onefold.errors import BuildError, NotSupported, SchemaError
from onefold.flow import columns
from onefold.flow.expressions import Text, bind, bind_predicate, star_columns
from onefold.flow.graph import Draft, check_name
from onefold.flow.grouping import Grouped, Windowed
from onefold.flow.schema import Schema, Updates
from onefold.plan import OP_COLUMN, DedupNode, ExplodeNode, MapNode, SelectNode, UnionNode, WhereNode
from onefold.types import Guarantee

if TYPE_CHECKING:
    from onefold.flow.flow import Flow
    from onefold.protocols import Endpoint

__all__ = ["Stream"]

_UNSAID: Any = object()


class Stream:
    """Rows of one schema. Made by `flow.read` and by the verbs of other streams."""

    def __init__(
        self, flow: Flow, draft: Draft, arrow: pa.Schema, *, event_time: str | None, updates: Updates | None = None
    ) -> None:
        self._flow = flow
        self._draft = draft
        self._arrow = arrow
        self._event_time = event_time
        self._updates = updates
        columns.check_op(arrow)
        if updates is not None and self._is_change_stream:
            raise NotSupported(f"The result of an aggregate cannot become a change stream ({OP_COLUMN}).")

    # ------------------------------------------------------------------------------------------------------- looking

    @property
    def schema(self) -> Schema:
        """The columns: name -> SQL type."""
        return Schema(self._arrow)

    @property
    def event_time(self) -> str | None:
        """The column that is the event time, if the stream still has it."""
        return self._event_time

    def preview(self, rows: int = 20) -> pa.Table:
        """Up to `rows` rows as they pass here, from the start of the sources. No state, no sink, no side effect."""
        from onefold.engines.embedded.preview import preview

        plan, name = self._flow._plan_through(self._draft)
        table: pa.Table = preview(plan, name, rows)
        return table

    def __repr__(self) -> str:
        types = ", ".join(f"{name} {kind}" for name, kind in self.schema.items())
        return f"<Stream {self._draft.name or self._draft.kind} of flow {self._flow.name}: {types}>"

    def _repr_html_(self) -> str:
        title = escape(f"Stream {self._draft.name or self._draft.kind} of flow {self._flow.name}")
        return f"<p>{title}</p>{self.schema._repr_html_()}"

    # ---------------------------------------------------------------------------------------------------- row by row

    def where(self, condition: str, *, name: str | None = None) -> Stream:
        """Keep the rows for which an SQL condition is true; those for which it is NULL go.

        Of a change stream that is upserted with its `_op`, rows that do not match become deletes of their key, and
        deletes always pass: the sink holds the rows that match now. Conditions over the key, over columns of meta= and
        over `_op` alone drop rows.

        Raises ExpressionError when it does not bind or is not BOOLEAN.
        """
        predicate = bind_predicate(Text(condition, "where"), self._arrow)
        schema = self._arrow
        return self._next(
            "where", name, lambda own, inputs: WhereNode(own, inputs, schema, predicate), updates=self._broken("where")
        )

    def select(self, *columns_or_expressions: str, **expressions: str) -> Stream:
        """Choose and compute columns: `select("*", fee="amount * 0.02")`.

        Positional arguments are "*", "* EXCLUDE (a, b)", a column, or "expression AS name".
        Raises ExpressionError; SchemaError when two columns have one name.
        """
        chosen: list[tuple[str, pa.Field]] = []
        sources: dict[str, str] = {}
        for written in columns_or_expressions:
            for field, sql, column in self._selected(Text(written, "select")):
                chosen.append((sql, field))
                sources.setdefault(column or "", field.name)
        for name, written in expressions.items():
            bound = bind(Text(written, f"select({name}=…)"), self._arrow)
            chosen.append((bound.sql, bound.field.with_name(name)))
            sources.setdefault(bound.column or "", name)
        schema = columns.schema_of([field for _, field in chosen], "select")
        sqls = {field.name: sql for sql, field in chosen}
        return self._next(
            "select",
            None,
            lambda own, inputs: SelectNode(own, inputs, schema, sqls),
            schema=schema,
            event_time=sources.get(self._event_time) if self._event_time else None,
            updates=self._renamed(sources),
        )

    def map(
        self,
        function: Callable[[Any], Any],
        *,
        schema: object,
        batch: Literal["arrow", "polars", "pandas"] = "arrow",
        name: str | None = None,
    ) -> Stream:
        """Call a function on each batch (a pyarrow.Table or a data frame); it returns any number of rows of `schema`.

        A column of the event time's name and type stays the event time; the function must not move it.
        """
        if not callable(function):
            raise BuildError("map needs a function.", found=repr(function))
        if batch not in ("arrow", "polars", "pandas"):
            raise BuildError("map has no such kind of batch.", found=repr(batch), expected="arrow, polars or pandas")
        arrow = columns.to_schema(schema)
        kept = self._event_time
        if kept is not None and (kept not in arrow.names or arrow.field(kept).type != self._arrow.field(kept).type):
            kept = None
        return self._next(
            "map",
            name,
            lambda own, inputs: MapNode(own, inputs, arrow, function, batch),
            schema=arrow,
            event_time=kept,
            updates=self._broken("map"),
        )

    def explode(self, column: str, *, keep_empty: bool = False, name: str | None = None) -> Stream:
        """One row per element of a list column; empty and NULL lists give none, or one with NULL if keep_empty."""
        column = columns.existing(column, self._arrow, "explode")
        field = self._arrow.field(column)
        if not columns.is_list(field.type):
            raise SchemaError(f"explode needs a list; {column} is {self.schema[column]}.")
        position = self._arrow.get_field_index(column)
        schema = self._arrow.set(position, pa.field(column, field.type.value_type))
        return self._next(
            "explode",
            name,
            lambda own, inputs: ExplodeNode(own, inputs, schema, column, keep_empty),
            schema=schema,
            event_time=None if column == self._event_time else self._event_time,
            updates=self._broken("explode"),
        )

    def union(self, *others: Stream) -> Stream:
        """All rows of this stream and the others, which must have the same columns and types in any order."""
        streams = [self, *(other._ordered_like(self._arrow) for other in others)]
        if any(other._flow is not self._flow for other in others):
            raise BuildError("A union takes streams of one flow.")
        if len({id(stream._draft) for stream in streams}) < len(streams) or len(streams) < 2:
            raise BuildError("A union needs two or more different streams.")
        if any(stream._updates is not None for stream in streams):
            raise _not_over_updates("union")
        event_times = {stream._event_time for stream in streams}
        schema = self._arrow
        draft = Draft(
            "union",
            None,
            tuple(stream._draft for stream in streams),
            lambda own, inputs: UnionNode(own, inputs, schema),
        )
        return Stream(self._flow, draft, schema, event_time=event_times.pop() if len(event_times) == 1 else None)

    # ---------------------------------------------------------------------------------------------------- with state

    def dedup(self, key: str | Sequence[str], *, within: Duration | None = _UNSAID, name: str | None = None) -> Stream:
        """Keep the first row of each key. `within` must be written: a duration of event time, or None for forever.

        Raises BuildError when a duration is given and the stream has no event time.
        """
        self._refuse_changes("dedup")
        if self._updates is not None:
            raise _not_over_updates("dedup")
        keys = columns.key_columns(key, self._arrow, "dedup")
        if within is _UNSAID:
            raise BuildError(
                "dedup needs within=…: how far apart in event time two copies of a row can be.",
                expected='a duration such as within="7 days", or within=None to remember every key forever',
            )
        micros = None if within is None else duration_micros(within, what="within")
        if micros is not None:
            self._need_event_time(f"dedup(within={duration_text(micros)!r})", "write within=None")
        schema, event_time = self._arrow, self._event_time
        return self._next(
            "dedup", name or "dedup", lambda own, inputs: DedupNode(own, inputs, schema, keys, micros, event_time)
        )

    def window(self, size: Duration, *, offset: Duration | None = None, name: str | None = None) -> Windowed:
        """Tumbling windows of event time: `.window("1 hour").group_by("merchant").agg(n="count(*)")`.

        The result has window_start (inclusive) and window_end (exclusive). offset shifts the boundaries from 1970.
        """
        size_micros = duration_micros(size, what="the window's size")
        if size_micros <= 0:
            raise BuildError("A window needs a size above zero.", found=repr(size))
        offset_micros = 0 if offset is None else duration_micros(offset, what="offset") % size_micros
        self._refuse_aggregation("window")
        self._need_event_time("window", 'aggregate without a window: group_by("…").agg(…)')
        return Windowed(self, size_micros, offset_micros, name)

    def group_by(self, *keys: str, name: str | None = None) -> Grouped:
        """Group for a running aggregate: `.group_by("merchant").agg(revenue="sum(amount)")`."""
        self._refuse_aggregation("group_by")
        if not keys:
            raise BuildError("group_by needs at least one column.", found="none")
        return Grouped(self, columns.key_columns(keys, self._arrow, "group_by"), None, name)

    # ------------------------------------------------------------------------------------------------------- outputs

    def append(
        self,
        endpoint: Endpoint | object,
        *,
        key: str | Sequence[str] = (),
        name: str | None = None,
        guarantee: str | Guarantee | None = None,
        shared: bool = False,
        refused: Literal["stop", "dead-letter"] = "stop",
    ) -> None:
        """Append every row to a sink. Of a windowed aggregate: each window once, when it has closed.

        key: columns that messages are keyed by, for sinks whose messages have keys.
        shared: other flows or sinks may write to the same target; if not, a run that finds their token stops there.
        refused: under commit="together", rows that the target refuses for good end the run, or become dead letters.
        Raises NotSupported for change streams and running aggregates; NameTaken; GuaranteeRefused.
        """
        if self._is_change_stream:
            raise NotSupported(
                "A change stream cannot be appended: its deletes would become rows.",
                next_step=f"Use upsert(endpoint, key=…), or drop {OP_COLUMN} with select(…) to keep it as a log.",
            )
        if self._updates is not None and not self._updates.is_windowed:
            raise NotSupported(
                "A running aggregate cannot be appended: its rows replace earlier ones.",
                next_step=f"Use upsert(endpoint, key={list(self._updates.identity)}), or a window.",
            )
        keyed = (key,) if isinstance(key, str) else tuple(key)
        for column in keyed:
            columns.existing(column, self._arrow, "key")
        self._flow._add_output(
            self, endpoint, mode="append", key=keyed, name=name, guarantee=guarantee, shared=shared, refused=refused
        )

    def upsert(
        self,
        endpoint: Endpoint | object,
        *,
        key: str | Sequence[str],
        latest_by: str | None = None,
        name: str | None = None,
        guarantee: str | Guarantee | None = None,
        shared: bool = False,
        refused: Literal["stop", "dead-letter"] = "stop",
    ) -> None:
        """Write each row in the place of the one with the same key; the last in input order wins.

        latest_by: the row with the largest value wins instead, whenever it comes; the state holds one value a key,
        of deleted keys too. shared, refused: as in `append`. Of a windowed aggregate: updates at every epoch. Raises
        SchemaError, NotSupported, NameTaken, GuaranteeRefused.
        """
        keys = columns.key_columns(key, self._arrow, "upsert")
        if OP_COLUMN in keys:
            raise SchemaError(f"{OP_COLUMN} cannot be part of a key.")
        if latest_by is not None:
            latest_by = columns.key_columns(latest_by, self._arrow, "latest_by")[0]
        if self._updates is not None:
            self._updates.check_key(keys)
        self._flow._add_output(
            self,
            endpoint,
            mode="upsert",
            key=keys,
            latest_by=latest_by,
            name=name,
            guarantee=guarantee,
            shared=shared,
            refused=refused,
        )

    # --------------------------------------------------------------------------------------------------------- inner

    @property
    def _is_change_stream(self) -> bool:
        return OP_COLUMN in self._arrow.names

    def _next(
        self,
        kind: str,
        name: str | None,
        make: Callable[[str, tuple[str, ...]], Any],
        *,
        schema: pa.Schema | None = None,
        event_time: str | None = _UNSAID,
        updates: Updates | None = _UNSAID,
    ) -> Stream:
        if name is not None:
            check_name(name, f"A {kind}")
        return Stream(
            self._flow,
            Draft(kind, name, (self._draft,), make),
            self._arrow if schema is None else schema,
            event_time=self._event_time if event_time is _UNSAID else event_time,
            updates=self._updates if updates is _UNSAID else updates,
        )

    def _selected(self, text: Text) -> Iterator[tuple[pa.Field, str, str | None]]:
        star = star_columns(text, self._arrow)
        if star is not None:
            for name in star:
                yield self._arrow.field(name), columns.quoted(name), name
            return
        bound = bind(text, self._arrow)
        if not bound.field.name:
            raise text.error("A computed column needs a name.", next_step=f'Write name="{text.sql}", or add AS name.')
        yield bound.field, bound.sql, bound.column

    def _ordered_like(self, schema: pa.Schema) -> Stream:
        columns.check_same(schema, self._arrow)
        return self if self._arrow.names == schema.names else self.select(*(columns.quoted(n) for n in schema.names))

    def _broken(self, step: str) -> Updates | None:
        return None if self._updates is None else replace(self._updates, broken_by=self._updates.broken_by or step)

    def _renamed(self, sources: Mapping[str, str]) -> Updates | None:
        if self._updates is None:
            return None
        lost = [name for name in self._updates.identity if name not in sources]
        if lost:
            return self._broken(f"a select without {', '.join(lost)}")
        return replace(self._updates, identity=tuple(sources[name] for name in self._updates.identity))

    def _refuse_aggregation(self, verb: str) -> None:
        self._refuse_changes(verb)
        if self._updates is not None:
            raise _not_over_updates(verb)

    def _refuse_changes(self, verb: str) -> None:
        if self._is_change_stream:
            raise NotSupported(
                f"{verb} cannot be used on a change stream: a delete would have to take back what was counted.",
                next_step=f"Upsert it; or drop {OP_COLUMN} with select(…): then every change is a row, deletes too.",
            )

    def _need_event_time(self, verb: str, otherwise: str) -> None:
        if self._event_time is None:
            raise BuildError(
                f"{verb} needs an event time, and this stream has none (or has lost it on the way).",
                next_step=f'Declare it: flow.read(…, event_time="column", lateness="10 minutes"); or {otherwise}.',
            )


def _not_over_updates(verb: str) -> NotSupported:
    return NotSupported(
        f"{verb} cannot be used on the result of an aggregate: its rows replace earlier ones.",
        next_step="Write the aggregate to a sink, and read that in another flow.",
    )
