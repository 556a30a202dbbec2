"""What the pages about databases tell people to type works on a server, and is enough for the flow."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import duckdb
import psycopg
import pytest
from deltalake import DeltaTable

from tests.docs.pages import ROOT, blocks
from tests.services import kafka_topics as topics

PAGES = ROOT / "docs" / "how-to"
ROW = '{"order_id": "1", "customer": "a", "amount": "1.50", "at": "2026-01-01T00:00:00"}\n'


@pytest.fixture
def owned(database: str) -> Iterator[str]:
    """A new database, as its owner sees it; beside it there is a user who may do nothing yet."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE DATABASE shop")
        connection.execute("CREATE ROLE shop LOGIN PASSWORD 'secret'")
        try:
            yield urlsplit(database)._replace(path="/shop").geturl()
        finally:
            connection.execute("DROP DATABASE shop WITH (FORCE)")
            connection.execute("DROP OWNED BY shop")
            connection.execute("DROP ROLE shop")


def type_all(page: Path, owned: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Its SQL as the owner; then its blocks of Python. What they defined, the first block last."""
    typed, parts = list(blocks(page)), urlsplit(owned)
    with psycopg.connect(owned, autocommit=True) as connection:
        for block in typed:
            if block.kind == "sql":
                connection.execute(block.body)
    monkeypatch.setenv("PG_URL", f"postgresql://shop:secret@{parts.hostname}:{parts.port}/shop")
    names: dict[str, Any] = {"__name__": "page"}
    for block in reversed(typed):
        if block.kind == "python":
            exec(compile(block.body, str(page), "exec"), names)
            names.setdefault("flows", []).append(names["flow"])
    return names


def test_the_grants_of_the_page_about_postgresql_are_enough(
    owned: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "orders").mkdir()
    (tmp_path / "orders" / "a.jsonl").write_text(ROW * 2)
    type_all(PAGES / "postgres.md", owned, monkeypatch)["flow"].run(state=tmp_path / "state")
    with psycopg.connect(owned) as connection:
        assert connection.execute("SELECT order_id FROM orders").fetchall() == [("1",)]
        assert connection.execute("SELECT customer, orders FROM totals").fetchall() == [("a", 2)]


def test_the_outbox_of_its_page_can_be_read(owned: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROKERS", "localhost:1")
    orders = type_all(PAGES / "outbox.md", owned, monkeypatch)["orders"]
    with psycopg.connect(owned) as connection:
        connection.execute("INSERT INTO outbox (order_id, amount) VALUES ('x', 1.5), ('y', 2)")
    assert [row["order_id"] for row in orders.preview(2).to_pylist()] == ["x", "y"]


def test_the_outbox_of_its_page_flows_into_a_topic(
    owned: str, cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROKERS", cluster)
    topics.make({"orders": 1})
    flow = type_all(PAGES / "outbox.md", owned, monkeypatch)["flow"]
    with psycopg.connect(owned) as connection:
        connection.execute("INSERT INTO outbox (order_id, amount) VALUES ('x', 1.5), ('y', 2)")
    flow.run(state=tmp_path / "state")
    flow.run(state=tmp_path / "state")
    found = [(record.key, json.loads(record.value)["order_id"]) for record in topics.records("orders")]
    assert found == [(b"x", "x"), (b"y", "y")]


@pytest.fixture
def two_databases(database: str) -> Iterator[tuple[str, str]]:
    """Two new databases of one server: no transaction spans both."""
    names = ("ledger", "accounts")
    with psycopg.connect(database, autocommit=True) as connection:
        for name in names:
            connection.execute(f"CREATE DATABASE {name}")
        try:
            first, second = (urlsplit(database)._replace(path=f"/{name}").geturl() for name in names)
            yield first, second
        finally:
            for name in names:
                connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def test_tables_of_two_databases_change_together_as_their_page_says(
    two_databases: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, accounts = two_databases
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LEDGER_URL", ledger)
    monkeypatch.setenv("ACCOUNTS_URL", accounts)
    (tmp_path / "payments").mkdir()
    payment = '{"payment_id": "%s", "account": "a", "amount": "%s"}\n'
    (tmp_path / "payments" / "1.jsonl").write_text(payment % ("p", "1.50") + payment % ("q", "2.00"))
    [block] = [one for one in blocks(PAGES / "commit-together.md") if one.kind == "python"]
    names: dict[str, Any] = {"__name__": "page"}
    exec(compile(block.body, "commit-together.md", "exec"), names)
    names["flow"].run(state=tmp_path / "state")
    with psycopg.connect(ledger) as connection:
        found = connection.execute("SELECT payment_id, amount FROM payments ORDER BY 1").fetchall()
    assert found == [("p", Decimal("1.50")), ("q", Decimal(2))]
    with psycopg.connect(accounts) as connection:
        assert connection.execute("SELECT account, balance FROM balances").fetchall() == [("a", Decimal("3.50"))]
        assert connection.execute("SELECT gid FROM pg_prepared_xacts").fetchall() == []


def test_the_changes_of_its_page_flow_into_copies_and_a_history(
    owned: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = type_all(PAGES / "changes.md", owned, monkeypatch)
    both, history, lake, large, copy = names["flows"]
    with psycopg.connect(owned, autocommit=True) as connection:
        connection.execute("INSERT INTO orders VALUES (1, 'a', 1.5), (2, 'b', 2)")
        connection.execute("INSERT INTO orders VALUES (3, 'c', 300), (4, 'd', 400), (5, 'e', 500)")
        for flow in (copy, history, lake, large):
            flow.run(state=tmp_path / flow.name)
        connection.execute("DELETE FROM orders WHERE id = 3")
        connection.execute("UPDATE orders SET amount = 4 WHERE id = 4")
        large.run(state=tmp_path / large.name)
        connection.execute("DELETE FROM orders WHERE id > 2")
        connection.execute("DELETE FROM orders WHERE id = 1")
        connection.execute("UPDATE orders SET amount = 3 WHERE id = 2")
        for flow in (copy, history, lake):
            flow.run(state=tmp_path / flow.name)
        connection.execute("INSERT INTO customers VALUES (7, 'c')")
        both.run(state=tmp_path / both.name)
        connection.execute(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = 'shop'"
        )
    with duckdb.connect("copies.duckdb") as connection:
        assert connection.execute("SELECT id, name FROM customers").fetchall() == [(7, "c")]
        assert connection.execute("SELECT id, amount FROM orders").fetchall() == [(2, Decimal(3))]
    with duckdb.connect("shop.duckdb") as connection:
        assert connection.execute("SELECT id, amount FROM orders").fetchall() == [(2, Decimal(3))]
        assert connection.execute("SELECT id, amount FROM large_orders").fetchall() == [(5, Decimal(500))]
    assert _lake("lake/orders") == [{"id": 2, "customer": "b", "amount": Decimal(3)}]
    told = [(row["id"], row["what"]) for row in _lake("lake/orders_history") if row["id"] < 3]
    assert sorted(told) == [(1, "delete"), (1, "upsert"), (2, "upsert"), (2, "upsert")]


def _lake(folder: str) -> list[dict[str, Any]]:
    """What a Delta table holds, read by its own library."""
    return list(DeltaTable(folder).to_pyarrow_table().to_pylist())
