"""Rows that sinks refuse while an epoch is prepared: they become dead letters of the same epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pyarrow as pa

from onefold.engines.embedded.pipeline import MAX_DEAD_FROM, EpochResult, enter_output
from onefold.errors import RowsRefused, TooManyDead
from onefold.formats.write import json_values
from onefold.operators.reading import DEAD_SCHEMA, examples_of
from onefold.plan import Output, Plan
from onefold.protocols import RefusedRow, Sifting
from onefold.types import EpochNumber, Receipt, canonical_json

__all__ = ["Refusals"]

REASON = "refused"


class Refusals:
    """Asks the sinks that leave out refused rows for them, and counts: max_dead holds for these as for what is read."""

    def __init__(self, plan: Plan, outputs: Mapping[str, Output]) -> None:
        self.count = 0
        """Rows of this run that were refused."""
        self._plan = plan
        self._outputs = outputs
        self._judged = 0

    def collect(self, result: EpochResult, receipts: dict[str, tuple[Receipt, ...]]) -> pa.Table:
        """The dead letters of an epoch that all these sinks have prepared.

        Receipts and books are made to say what the sinks took. Raises TooManyDead, RowsRefused.
        """
        letters = [DEAD_SCHEMA.empty_table()]
        for name, (receipt,) in list(receipts.items()):
            output, rows = self._outputs[name], result.outputs[name]
            refused = output.sink.refused() if output.is_sifted and isinstance(output.sink, Sifting) else ()
            if output.is_sifted:
                letters.append(_letters(name, result.number, rows, refused))
                self._judge(output, rows.num_rows, letters[-1])
            if refused:
                receipts[name] = (replace(receipt, rows=receipt.rows - len(refused)),)
                enter_output(result.books, output, _without(rows, refused), refused=len(refused))
        return pa.concat_tables(letters)

    def _judge(self, output: Output, offered: int, letters: pa.Table) -> None:
        self.count += letters.num_rows
        self._judged += offered
        most = self._plan.settings.max_dead
        if most is None and letters.num_rows == offered >= MAX_DEAD_FROM:
            raise RowsRefused(
                f"{output.label} refuses every row of an epoch, so perhaps none is at fault.",
                found=f"{offered:,} rows, such as{examples_of(letters)}",
                expected="some rows that are taken",
                next_step="Mend the table, then run again; or say max_dead=1.0, and they become dead letters.",
                sink=output.name,
            )
        if most is not None and self._judged >= MAX_DEAD_FROM and self.count > most * self._judged:
            share = f"{self.count} of {self._judged} rows refused in this run ({self.count / self._judged:.1%})"
            raise TooManyDead(
                flow=self._plan.flow,
                sink=output.name,
                found=f"{share}, such as{examples_of(letters)}",
                expected=f"at most {most:.1%}",
            )


def _without(rows: pa.Table, refused: Sequence[RefusedRow]) -> pa.Table:
    places = {one.row for one in refused}
    return rows.filter(pa.array([place not in places for place in range(rows.num_rows)]))


def _letters(sink: str, epoch: EpochNumber, rows: pa.Table, refused: Sequence[RefusedRow]) -> pa.Table:
    count = len(refused)
    columns = {
        "read": [f"sink {sink}"] * count,
        "partition": [""] * count,
        "position": [canonical_json({"epoch": epoch, "row": one.row}) for one in refused],
        "reason": [REASON] * count,
        "detail": [one.why for one in refused],
        "raw": json_values(rows.take(pa.array([one.row for one in refused], pa.int64()))).cast(pa.binary()),
    }
    return pa.table(columns, schema=DEAD_SCHEMA)
