"""What a table looked like when a change was logged, and the flow's rows of such a change."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from onefold.connectors.postgres.changes.catalog import SeenTable
from onefold.connectors.postgres.changes.pgoutput import UNCHANGED, Change, Relation
from onefold.connectors.postgres.changes.rows import before_image
from onefold.errors import SourceError

__all__ = ["Shape", "Unlogged", "shape_of"]

Values = list[Any]
Made = tuple[str, Sequence[Any], str | None, tuple[Any, ...]]
"""op, values of the wanted columns, the row before, key."""


class Unlogged(Exception):
    """The log lacks the value of a column. key: of the row."""

    def __init__(self, column: str, key: tuple[Any, ...]) -> None:
        super().__init__(column)
        self.column = column
        self.key = key


@dataclass(frozen=True)
class Shape:
    """table: as it was when reading began. names: of the logged columns. pick: takes the wanted ones, in their order,
    from the values and a NULL behind them. key: the places of the key. needed: places whose values must be known."""

    table: SeenTable
    names: tuple[str, ...]
    pick: itemgetter[Any]
    width: int
    key: tuple[int, ...]
    needed: frozenset[int]
    keeps_before: bool

    def rows(self, change: Change) -> Iterator[Made]:
        """One; two where the key changes: the old one goes, the new one comes. Raises Unlogged."""
        old, new = change.old, change.new
        before = before_image(self.names, old) if self.keeps_before and change.is_whole and old is not None else None
        if new is None:
            if old is not None:
                yield self._made("delete", old, before)
            return
        if UNCHANGED in new:
            self._fill(new, old, is_whole=change.is_whole)
        if old is not None and self._key_of(old) != self._key_of(new):
            yield self._made("delete", old, before)
        yield self._made("upsert", new, before)

    def _made(self, op: str, values: Values, before: str | None) -> Made:
        picked = self.pick([*values, None])
        return op, picked if self.width != 1 else (picked,), before, self._key_of(values)

    def _key_of(self, values: Values) -> tuple[Any, ...]:
        return tuple([values[place] for place in self.key])

    def _fill(self, new: Values, old: Values | None, *, is_whole: bool) -> None:
        """From the row before, of which the log may hold the key alone: it does when that is kept out of line."""
        for place, value in enumerate(new):
            if value is UNCHANGED:
                is_there = old is not None and (is_whole or place in self.key)
                if not is_there and place in self.needed:
                    raise Unlogged(self.names[place], self._key_of(new if old is None else old))
                new[place] = old[place] if old is not None and is_there else None


def shape_of(
    relation: Relation, table: SeenTable, wanted: Sequence[str], *, keeps_before: bool, added: Mapping[str, Any]
) -> Shape:
    """How rows of `table` are read from now on. added: columns that it has only now, by name.

    Raises SourceError when the table is no longer, or was not yet, what the flow reads.
    """
    logged = {column.name: column for column in relation.columns}
    for column in table.columns:
        there = logged.get(column.name)
        if column.name not in (*wanted, *table.key):
            continue
        if there is None:
            raise changed(table, f"no column {column.name}", f"a column {column.name} of type {column.kind}")
        if (there.type, there.modifier) != (column.type, column.modifier):
            raise changed(
                table, f"column {column.name} of type {there.type} ({there.modifier})",
                f"{column.kind}, type {column.type} ({column.modifier})",
            )  # fmt: skip
    more = [name for name in logged if name in added]
    if more:
        raise changed(table, f"a new column {', '.join(more)}", "the columns that it had when reading began")
    identity = {column.name for column in relation.columns if column.is_identity}
    if relation.name != table.name or relation.schema != table.schema:
        raise changed(table, f"the name {relation.schema}.{relation.name}", f"{table.schema}.{table.name}")
    if not set(table.key or table.identified) <= identity:
        raise changed(table, f"rows known by {', '.join(sorted(identity)) or 'nothing'}", f"by {', '.join(table.key)}")
    names = tuple(logged)
    places = [names.index(name) if name in names else len(names) for name in wanted]
    key = tuple(names.index(name) for name in (table.key or table.identified))
    pick: itemgetter[Any] = itemgetter(*places) if places else itemgetter(slice(0, 0))
    return Shape(table, names, pick, len(wanted), key, frozenset({*places, *key}), keeps_before)


def changed(table: SeenTable, found: str, expected: str) -> SourceError:
    """Its rows cannot be read as before; those of before are delivered."""
    return SourceError(
        f"Table {table.name} was changed; what was logged before is delivered first.",
        found=found,
        expected=expected,
        next_step="Start the flow again: it then sees the table as it is. A schema={…} of the columns that it reads "
        "keeps it as it was; what it reads of others needs a new flow, or `onefold reset`.",
        table=table.name,
    )
