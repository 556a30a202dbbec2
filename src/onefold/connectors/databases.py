"""What the sinks of database servers share: their token's SQL, the last row of each key, and names without passwords.

Of a connection is asked `execute(sql, values)`, which gives a cursor and takes values as %s. No transaction begins or
ends here.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Any, Protocol
from urllib.parse import urlsplit, urlunsplit

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from onefold.connectors.spooling import refuse_token, same_token
from onefold.errors import SchemaError
from onefold.settings import names_in
from onefold.types import Binding, EpochNumber, SealId, Token, TokenMove, canonical_json

__all__ = [
    "TokenTable", "bound", "demand_token", "has_token_row", "hidden", "last_of_each_key", "misfit", "move_token",
    "others", "owner_of", "read_token", "session_name", "was_moved", "without_password",
]  # fmt: skip


class TokenTable(Protocol):
    """A table with rows, and the one with its token."""

    @property
    def label(self) -> str:
        """How the table is shown."""
        ...

    @property
    def qualified(self) -> str:
        """The table as SQL reads it. Kept with the token."""
        ...

    @property
    def tokens(self) -> str:
        """The table of tokens as SQL reads it."""
        ...


# --------------------------------------------------------------------------------------------------------------- token


def owner_of(binding: Binding) -> list[str]:
    """The key of a sink's token: flow, lane, sink."""
    return [binding.flow, binding.lane, binding.sink]


def session_name(table: TokenTable, binding: Binding) -> str:
    """Names the sessions that may move this token, and no other."""
    owner = [table.tokens, table.qualified, *owner_of(binding)]
    return f"onefold {hashlib.sha256(canonical_json(owner).encode()).hexdigest()[:24]}"


def read_token(connection: Any, table: TokenTable, binding: Binding, *, is_locked: bool = False) -> Token | None:
    """The sink's token. is_locked: wait for whoever moves it, and let nobody move it until the transaction ends."""
    row = connection.execute(
        f"SELECT epoch, seal, ends FROM {bound(table.tokens)} WHERE flow = %s AND lane = %s AND sink = %s"
        + (" FOR UPDATE" if is_locked else ""),
        owner_of(binding),
    ).fetchone()
    if row is None or not row[0]:
        return None
    return Token(EpochNumber(row[0]), SealId(row[1]), Token.from_json(row[2]).ends)


def has_token_row(connection: Any, table: TokenTable, binding: Binding) -> bool:
    """Whether the sink was ever opened here."""
    row = connection.execute(
        f"SELECT 1 FROM {bound(table.tokens)} WHERE flow = %s AND lane = %s AND sink = %s", owner_of(binding)
    ).fetchone()
    return row is not None


def move_token(connection: Any, table: TokenTable, binding: Binding, move: TokenMove) -> None:
    """Compare-and-set: the first statement of the transaction, for it also waits for whoever else moves it.

    The connection's rowcount must be of the rows that were found. Raises TokenRefused.
    """
    epoch, seal = (move.expected.epoch, move.expected.seal) if move.expected else (0, "")
    moved = connection.execute(
        f"UPDATE {bound(table.tokens)} SET epoch = %s, seal = %s, ends = %s, target = %s "
        "WHERE flow = %s AND lane = %s AND sink = %s AND epoch = %s AND seal = %s",
        [move.new.epoch, move.new.seal, move.new.to_json(), table.qualified, *owner_of(binding), epoch, seal],
    )
    if moved.rowcount != 1:
        found = read_token(connection, table, binding)
        raise refuse_token(binding, None if same_token(found, move.expected) else found, move.expected)


def demand_token(connection: Any, table: TokenTable, binding: Binding, expected: Token | None) -> None:
    """Raise TokenRefused unless the token is the expected one."""
    found = read_token(connection, table, binding)
    if not same_token(found, expected):
        raise refuse_token(binding, found, expected)


def others(connection: Any, table: TokenTable, binding: Binding) -> Sequence[tuple[str, str, str]]:
    """(flow, lane, sink) of every other token for this table."""
    rows = connection.execute(
        f"SELECT flow, lane, sink FROM {bound(table.tokens)} WHERE target = %s", [table.qualified]
    )
    return [row for row in rows.fetchall() if list(row) != owner_of(binding)]


def was_moved(connection: Any, table: TokenTable, binding: Binding) -> bool:
    """Whether the sink's token was moved with rows of this table."""
    row = connection.execute(
        f"SELECT epoch FROM {bound(table.tokens)} WHERE flow = %s AND lane = %s AND sink = %s AND target = %s",
        [*owner_of(binding), table.qualified],
    ).fetchone()
    return row is not None and row[0] > 0


def bound(quoted: str) -> str:
    """A quoted name for a statement that is given values: there a % must be doubled."""
    return quoted.replace("%", "%%")


# ---------------------------------------------------------------------------------------------------------------- rows


def last_of_each_key(rows: pa.Table, key: Sequence[str]) -> pa.Table:
    """One row a key, the last, in order. Keys are one where databases take them for one: all NaN, and both zeros."""
    keys = [_comparable(rows.column(name)) for name in key]
    order = pa.array(np.arange(rows.num_rows, dtype=np.int64))
    names = [f"key {place}" for place in range(len(keys))]
    groups = pa.table([*keys, order], [*names, "place"]).group_by(names).aggregate([("place", "max")])
    if groups.num_rows == rows.num_rows:
        return rows
    return rows.take(pa.array(np.sort(groups.column("place_max").to_numpy())))


def _comparable(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if not pa.types.is_floating(column.type):
        return column
    nan = pa.scalar(float("nan"), column.type)
    return pc.if_else(pc.is_nan(column), nan, pc.add(column, pa.scalar(0.0, column.type)))


def misfit(
    table: TokenTable, binding: Binding, column: str, found: str, expected: str, *, fix: str = ""
) -> SchemaError:
    """The error of a column that cannot take what the flow writes. fix: the statement that mends it, if one does."""
    return SchemaError(
        f"Column {column} of {table.label} is not what the flow writes.",
        found=found,
        expected=expected,
        next_step=fix or "Change the flow's select, or alter the table.",
        sink=binding.sink,
        column=column,
    )


# --------------------------------------------------------------------------------------------------------------- names

SHORT_PASSWORD = 8
"""Characters. A shorter one may be a part of any word: it is hidden where it stands by itself, as it does in a URL."""


def hidden(text: str, password: str) -> str:
    """The text without the password."""
    if len(password) >= SHORT_PASSWORD:
        return text.replace(password, "(hidden)")
    return re.sub(rf"(?<!\w){re.escape(password)}(?!\w)", "(hidden)", text)


def without_password(url: str) -> str:
    """The URL as it may be shown; of a text that is none, the text."""
    try:
        parts = urlsplit(url)
        password = parts.password
    except ValueError:
        return url
    if password is None or names_in(password):
        return url
    return urlunsplit(parts._replace(netloc=parts.netloc.replace(f":{password}@", ":(hidden)@", 1)))
