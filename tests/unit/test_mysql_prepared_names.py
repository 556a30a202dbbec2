"""Names of prepared transactions: they fit into an xid, and say whose they are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from onefold.connectors.mysql.prepared import handle_name, listed
from onefold.connectors.mysql.tables import TableName
from onefold.errors import InvariantBroken
from onefold.spool import FolderSpool
from onefold.types import Binding, EpochHead, EpochNumber, Guarantee, Incarnation, SealId

TABLE = TableName("lake", "ledger", "lake", "mysql(…).ledger")
JOURNAL, SEAL = "0123456789abcdef" * 2, "f" * 32
LONG = "über's \\ payments: of all the merchants, and of those that have none"


@pytest.fixture
def binding(tmp_path: Path) -> Binding:
    return Binding(
        journal=JOURNAL,
        flow="booking",
        lane="0",
        sink="payments",
        incarnation=Incarnation(12),
        schema=pa.schema([("id", pa.int64())]),
        mode="append",
        key=(),
        guarantee=Guarantee.EXACTLY_ONCE,
        spool=FolderSpool(tmp_path),
        is_together=True,
    )


class Recovering:
    """A session whose server lists these names, as MariaDB does or as MySQL."""

    def __init__(self, names: list[str], *, is_mariadb: bool) -> None:
        self.is_mariadb = is_mariadb
        self._names = [name[1:-1].split("','") for name in names]

    def execute(self, sql: str) -> Any:
        assert sql == ("XA RECOVER" if self.is_mariadb else "XA RECOVER CONVERT XID")
        return self

    def fetchall(self) -> list[tuple[int, int, int, bytes | str]]:
        found = [(1, len(first), len(second), (first + second).encode()) for first, second in self._names]
        return [(*row[:3], row[3] if self.is_mariadb else f"0x{row[3].hex().upper()}") for row in found]


@pytest.mark.parametrize("is_mariadb", [True, False], ids=["mariadb", "mysql"])
@pytest.mark.parametrize(("flow", "number"), [("f", 1), (LONG, 10**10)], ids=["short", "long"])
def test_a_name_fits_and_is_read_back(flow: str, number: int, is_mariadb: bool, binding: Binding) -> None:
    ours = replace(binding, flow=flow, incarnation=Incarnation(number + 7))
    name = handle_name(TABLE, ours, EpochHead(EpochNumber(number), SealId(SEAL)))
    first, second = name[1:-1].split("','")
    assert (len(first) <= 64, len(second) <= 64) == (True, True)
    assert (first + second).isascii()
    assert not set("'\"\\") & set(first + second)
    other = replace(ours, sink="another")
    strange = handle_name(TABLE, other, EpochHead(EpochNumber(number), SealId(SEAL)))
    session: Any = Recovering([strange, "'onefold:','x'", name, "'','y'"], is_mariadb=is_mariadb)
    [handle] = listed(session, TABLE, ours)
    assert (handle.journal, handle.incarnation, handle.epoch, handle.seal) == (JOURNAL, number + 7, number, SEAL)
    assert handle.detail == {"name": name}


def test_two_owners_never_share_a_name(binding: Binding) -> None:
    """Though what is shown to people is cut to the same."""
    head = EpochHead(EpochNumber(1), SealId(SEAL))
    changed = [{}, {"flow": LONG}, {"flow": f"{LONG} too"}, {"lane": "1"}, {"sink": "p"}, {"sink": f"payments{LONG}"}]
    names = {handle_name(TABLE, replace(binding, **change), head) for change in changed}
    names |= {handle_name(replace(TABLE, **{place: "other"}), binding, head) for place in ("database", "name")}
    assert len(names) == len(changed) + 2


def test_an_id_that_would_not_be_read_back_is_refused(binding: Binding) -> None:
    for journal, seal in ((JOURNAL, "f" * 31), (f"{JOURNAL}0", SEAL), ("'", SEAL)):
        with pytest.raises(InvariantBroken, match="32 digits"):
            handle_name(TABLE, replace(binding, journal=journal), EpochHead(EpochNumber(1), SealId(seal)))
