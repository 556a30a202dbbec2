"""What the pages about databases tell people to type works on a server, and is enough for the flow."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

from tests.docs.pages import ROOT, blocks

PAGE = ROOT / "docs" / "how-to" / "postgres.md"
ROW = '{"order_id": "1", "customer": "a", "amount": "1.50", "at": "2026-01-01T00:00:00"}\n'


@pytest.fixture
def owned(database: str) -> Iterator[str]:
    """A new database, as its owner sees it; beside it there is a user who may do nothing yet."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE DATABASE page")
        connection.execute("CREATE ROLE shop LOGIN PASSWORD 'secret'")
        try:
            yield urlsplit(database)._replace(path="/page").geturl()
        finally:
            connection.execute("DROP DATABASE page WITH (FORCE)")
            connection.execute("DROP OWNED BY shop")
            connection.execute("DROP ROLE shop")


def test_the_grants_of_the_page_about_postgresql_are_enough(
    owned: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page, parts = list(blocks(PAGE)), urlsplit(owned)
    with psycopg.connect(owned, autocommit=True) as connection:
        for block in page:
            if block.kind == "sql":
                connection.execute(block.body)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PG_URL", f"postgresql://shop:secret@{parts.hostname}:{parts.port}/page")
    (tmp_path / "orders").mkdir()
    (tmp_path / "orders" / "a.jsonl").write_text(ROW * 2)
    names: dict[str, Any] = {"__name__": "page"}
    exec(compile(next(block.body for block in page if block.kind == "python"), str(PAGE), "exec"), names)
    names["flow"].run(state=tmp_path / "state")
    with psycopg.connect(owned) as connection:
        assert connection.execute("SELECT order_id FROM orders").fetchall() == [("1",)]
        assert connection.execute("SELECT customer, orders FROM totals").fetchall() == [("a", 2)]
