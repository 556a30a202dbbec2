"""Rows on a terminal. It keeps no token, so a repeated delivery shows: at-least-once, and it says so."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TextIO

import pyarrow as pa

from onefold.connectors.spooling import OP_COLUMN, SpooledSink, check_key, rows_of
from onefold.errors import NotSupported, OutcomeUnknown
from onefold.protocols import Format, SinkPromise, Source
from onefold.types import Binding, CommitClass, Mode, Receipt, Token, TokenMove

__all__ = ["ConsoleEndpoint", "ConsoleSink", "console"]

_WIDEST = 60


def console(*, limit: int | None = None) -> ConsoleEndpoint:
    """Print rows.

    Args:
        limit: of rows shown at each delivery; the number left out is printed. None: all.
    """
    return ConsoleEndpoint(limit)


@dataclass(frozen=True)
class ConsoleEndpoint:
    """What `console` gives."""

    limit: int | None = None

    @property
    def label(self) -> str:
        """console()."""
        return "console()"

    @property
    def default_name(self) -> str:
        """Console."""
        return "console"

    def as_source(self, format: Format | None) -> Source:  # noqa: A002  (the protocol's word)
        """Refused."""
        raise NotSupported("The console cannot be read.", next_step="Write the rows to a file and read of.files(…).")

    def as_sink(self, mode: Mode, key: tuple[str, ...]) -> ConsoleSink:
        """A sink without a token."""
        check_key(mode, key, self.label)
        return ConsoleSink(limit=self.limit)


class ConsoleSink(SpooledSink):
    """Prints each row on a line: name=value, with + for an upsert and - for a delete.

    out: where to; None: standard output as it is when rows are printed.
    """

    def __init__(self, *, limit: int | None = None, out: TextIO | None = None) -> None:
        self._limit = limit
        self._out = out

    @property
    def promise(self) -> SinkPromise:
        """No token."""
        return SinkPromise(
            commit_class=CommitClass.NONE,
            modes=frozenset({"append", "upsert"}),
            target="console",
            deletes=True,
        )

    def open(self, binding: Binding) -> Token | None:
        """Nothing to connect to, and no token."""
        self._binding = binding
        return None

    def commit(self, receipts: Sequence[Receipt], move: TokenMove | None) -> None:
        """Print. Raises OutcomeUnknown when the terminal does not take it."""
        if move is not None:
            raise NotSupported("The console keeps no token.", sink=self.binding.sink)
        out = self._out or sys.stdout
        rows = rows_of(self.binding, receipts)
        shown = rows if self._limit is None else rows.slice(0, self._limit)
        try:
            lines = _lines(shown, self.binding.mode)
            if len(shown) < len(rows):
                lines.append(f"… and {len(rows) - len(shown)} more rows")
            _write_at_once(out, "".join(f"{line}\n" for line in lines))
        except (OSError, ValueError) as error:
            raise OutcomeUnknown("The console did not take all rows.", found=error, sink=self.binding.sink) from error


def _write_at_once(out: TextIO, text: str) -> None:
    """In one go where there is a buffer of bytes beneath: text streams cut what they write into pieces of 8 KiB."""
    out.flush()
    beneath = getattr(out, "buffer", None)
    if beneath is None:
        out.write(text)
    else:
        beneath.write(text.encode(out.encoding or "utf-8", out.errors or "strict"))
        beneath.flush()
    out.flush()


def _lines(rows: pa.Table, mode: Mode) -> list[str]:
    lines = []
    for row in rows.to_pylist():
        mark = "" if mode == "append" else "- " if row.pop(OP_COLUMN, None) == "delete" else "+ "
        lines.append(mark + "  ".join(f"{name}={_text(value)}" for name, value in row.items()))
    return lines


def _text(value: object) -> str:
    text = "NULL" if value is None else repr(value) if isinstance(value, (bytes, list, dict)) else str(value)
    text = text.replace("\r", "\\r").replace("\n", "\\n").replace("\x1b", "\\x1b")
    return text if len(text) <= _WIDEST else text[: _WIDEST - 1] + "…"
