"""Leaves out of a transaction the rows that the server refuses, by halves.

Each piece is written behind a savepoint, and what the server would check later is checked at its end; a piece that is
refused is undone and cut in two. So k refused rows of n cost about k log n pieces. Rows that are left are tried
again, for one may have been refused for want of another, which was written later: backwards first, then forwards,
and so on, until none is taken any more or MOST_PASSES are over: some then stay refused that a longer search places.
Of two rows that exclude each other the earlier is taken, unless it had to wait for a row behind it: when it is tried
again the other may be there.
Source: PostgreSQL's documentation, page SAVEPOINT; MySQL's reference manual, chapter SAVEPOINT.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa

from onefold.errors import RowsRefused
from onefold.protocols import RefusedRow

__all__ = ["Sieve"]

SAVEPOINT = "onefold_sifting"

MOST_REFUSED = 10_000
"""Rows of an epoch. More of them are no exceptions, and each costs some statements while others wait for our locks."""

MOST_PASSES = 10
"""Backwards alone takes any chain of rows each of which refers to a later one; and forwards the opposite."""

ROW_CHARACTERS = 500
"""How much of a refused row an error shows."""


@dataclass(frozen=True)
class Sieve:
    """For one table, in the transaction under way.

    Args:
        label, sink: of the table and of its sink, for errors.
        execute: a statement.
        write: a piece.
        told: what an error of the client's says of rows of this table; None: it is not about them, or not of the
            client's.
        demand: check now what the server would check at the end of the transaction.
    """

    label: str
    sink: str
    execute: Callable[[str], object]
    write: Callable[[pa.Table], None]
    told: Callable[[Exception], RowsRefused | None]
    demand: Callable[[], None] = lambda: None

    def pass_through(self, rows: pa.Table) -> list[RefusedRow]:
        """Write all rows that the server takes, in their order; the others, by their places.

        Raises the client's errors, and RowsRefused when there are more than MOST_REFUSED.
        """
        refused = self._pass(rows, [(0, rows.num_rows)])
        for _ in range(MOST_PASSES if refused else 0):
            left = self._pass(rows, [(one.row, 1) for one in refused])  # the last of them first
            is_stuck, refused = len(left) == len(refused), left
            if is_stuck:
                break
        return sorted(refused, key=lambda one: one.row)

    def first(self, rows: pa.Table) -> RowsRefused | None:
        """An error that names the first row that is refused behind those before it, which are written.

        Raises the client's errors.
        """
        at, count = 0, rows.num_rows
        while count > 1:
            half = count // 2
            if self._write_piece(rows.slice(at, half)) is None:
                at, count = at + half, count - half
            else:
                count = half
        error = self._write_piece(rows.slice(at, 1))
        if error is None:
            return None
        row = ", ".join(f"{name} = {value!r}" for name, value in rows.slice(at, 1).to_pylist()[0].items())
        return RowsRefused(error.summary, found=f"{error.found}; row: {row[:ROW_CHARACTERS]}", sink=self.sink)

    def _pass(self, rows: pa.Table, pieces: list[tuple[int, int]]) -> list[RefusedRow]:
        """pieces: first row and count, the first of them last."""
        refused: list[RefusedRow] = []
        while pieces:
            first, count = pieces.pop()
            error = self._write_piece(rows.slice(first, count), self.demand)
            if error is None:
                continue
            if count > 1:
                half = count // 2
                pieces += [(first + half, count - half), (first, half)]
                continue
            refused.append(RefusedRow(first, str(error.found or error.summary)))
            if len(refused) > MOST_REFUSED:
                raise RowsRefused(
                    f"{self.label} refuses more than {MOST_REFUSED} rows of an epoch.", found=refused[0].why
                )
        return refused

    def _write_piece(self, rows: pa.Table, demand: Callable[[], None] = lambda: None) -> RowsRefused | None:
        """Why it was refused and undone, if it was."""
        self.execute(f"SAVEPOINT {SAVEPOINT}")
        try:
            self.write(rows)
            demand()
        except RowsRefused as error:
            refusal = error
        except Exception as error:
            found = self.told(error)
            if found is None:
                raise
            refusal = found
        else:
            self.execute(f"RELEASE SAVEPOINT {SAVEPOINT}")
            return None
        self.execute(f"ROLLBACK TO SAVEPOINT {SAVEPOINT}")
        self.execute(f"RELEASE SAVEPOINT {SAVEPOINT}")
        return refusal
