"""A table that is written all the time, flows that follow it and are killed, and a judge that reads by clients alone.

A trigger keeps what truly happened to each key, in order: writers of one key wait for each other.
"""

from __future__ import annotations

import os
import random
import sqlite3
import threading
from collections import Counter, defaultdict
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import psycopg

import onefold as of
from onefold.connectors.postgres.changes import cursor
from onefold.testing.harness import Subject
from tests.crash import flows
from tests.crash.oracle import Count
from tests.services.postgres_flows import VARIABLE, database, schema_of, table

IDS = 120
WRITERS = 3
TRANSACTIONS = 50
"""Of each writer."""

TABLES = """
CREATE SCHEMA {0};
SET search_path TO {0};
CREATE TABLE orders (id integer PRIMARY KEY, state varchar(30) NOT NULL, amount numeric(10,2));
CREATE TABLE history (seq bigserial PRIMARY KEY, id integer, op text, state text);
CREATE FUNCTION remember() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' OR (TG_OP = 'UPDATE' AND OLD.id <> NEW.id) THEN
        INSERT INTO {0}.history (id, op) VALUES (OLD.id, 'delete');
    END IF;
    IF TG_OP <> 'DELETE' THEN
        INSERT INTO {0}.history (id, op, state) VALUES (NEW.id, 'upsert', NEW.state);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER remember AFTER INSERT OR UPDATE OR DELETE ON orders FOR EACH ROW EXECUTE FUNCTION remember();
INSERT INTO orders SELECT each, 'first ' || each, each / 4.0 FROM generate_series(1, {1}) AS each;
"""

_writing: dict[Path, list[threading.Thread]] = {}


def small_pieces() -> None:
    """The first reading takes many."""
    cursor.FIRST_ROWS = cursor.MOST_ROWS = 9


def arrive(folder: Path, life: int) -> bool:
    """The table before the first process starts; writers beside the first three."""
    schema = schema_of(folder)
    if life == 0:
        with psycopg.connect(os.environ[VARIABLE], autocommit=True) as connection:
            connection.execute(TABLES.format(schema, IDS))
        writers = [threading.Thread(target=write, args=(schema, seed), daemon=True) for seed in range(WRITERS)]
        for writer in writers:
            writer.start()
        _writing[folder] = writers
    if life < 2:
        return False
    for writer in _writing.pop(folder, []):
        writer.join()
    return True


def write(schema: str, seed: int, transactions: int = TRANSACTIONS) -> None:
    """Transactions of some changes each; some are rolled back, some stay open for a while."""
    chance = random.Random(f"{schema} {seed}")
    pause = threading.Event()
    with psycopg.connect(os.environ[VARIABLE]) as connection:
        connection.execute(f"SET search_path TO {schema}")
        connection.commit()
        for number in range(transactions):
            with suppress(psycopg.errors.DeadlockDetected, psycopg.errors.UniqueViolation), connection.transaction():
                for step in range(chance.randrange(1, 6)):
                    change(connection, chance, f"{seed}.{number}.{step}")
                if chance.random() < 0.1:
                    pause.wait(0.1)
                if chance.random() < 0.1:
                    raise psycopg.Rollback
            pause.wait(chance.random() * 0.02)


def change(connection: Any, chance: random.Random, state: str) -> None:
    """One insert, update, delete, or change of a key."""
    row = chance.randrange(1, IDS + 20)
    kind = chance.random()
    if kind < 0.2:
        connection.execute("DELETE FROM orders WHERE id = %s", [row])
    elif kind < 0.3:
        connection.execute(
            "UPDATE orders SET id = %s, state = %s WHERE id = %s", [chance.randrange(1, IDS + 20), state, row]
        )
    else:
        connection.execute(
            "INSERT INTO orders VALUES (%s, %s, %s) ON CONFLICT (id) DO UPDATE SET state = excluded.state",
            [row, state, chance.randrange(1000) / 4],
        )


def mirror(folder: Path) -> of.Flow:
    """The table into SQLite and PostgreSQL, and every change into a log."""
    flow = of.Flow("mirror", **flows.TINY)
    schema = schema_of(folder)
    changes = database(folder).changes("orders", schema=schema, slot=f"{schema}_slot")
    rows = flow.read(changes, meta="_xid")
    kept = rows.select("id", "state", "amount", "_op")
    kept.upsert(of.sqlite(str(folder / "mirror.sqlite")).table("orders"), key="id", name="sqlite")
    kept.upsert(table(folder, "mirror"), key="id", name="postgres")
    log = rows.select("id", "state", op="_op", xid="_xid")
    log.append(of.sqlite(str(folder / "log.sqlite")).table("log"), name="log")
    return flow


def judge(folder: Path) -> Count:
    """Both copies are the table; and the log tells, of every key, its true history from the beginning on."""
    schema = schema_of(folder)
    with psycopg.connect(os.environ[VARIABLE], autocommit=True) as connection:
        truth = connection.execute(f"SELECT id, state, amount::text FROM {schema}.orders").fetchall()
        copied = connection.execute(f"SELECT id, state, amount::text FROM {schema}.mirror").fetchall()
        history = connection.execute(f"SELECT id, op, state FROM {schema}.history ORDER BY seq").fetchall()
    with closing(sqlite3.connect(folder / "mirror.sqlite")) as opened:
        local = opened.execute("SELECT id, state, printf('%.2f', amount) FROM orders").fetchall()
    with closing(sqlite3.connect(folder / "log.sqlite")) as opened:
        log = opened.execute("SELECT id, op, state, xid FROM log ORDER BY rowid").fetchall()
    count = Count(events=len(history))
    count.rows("postgres", Counter(truth), Counter(copied))
    count.rows("sqlite", Counter(truth), Counter(local))
    count.wrong += complaints(history, log)
    drop_slot(f"{schema}_slot")
    return count


def complaints(history: list[tuple[Any, ...]], log: list[tuple[Any, ...]]) -> list[str]:
    """What of the log is not as promised.

    The changes of a key are the last of its history, all of them. Before, between or behind them comes at most one row
    of the first reading, and it is the state that the key has at that point.
    """
    happened: dict[int, list[tuple[str, str]]] = defaultdict(list)
    told: dict[int, list[tuple[str, str, Any]]] = defaultdict(list)
    for row, op, state in history:
        happened[row].append((op, state if op == "upsert" else ""))
    for row, op, state, xid in log:
        told[row].append((op, state if op == "upsert" else "", xid))
    wrong = []
    for row in happened.keys() | told.keys():
        true, found = happened[row], told[row]
        changes = [(op, state) for op, state, xid in found if xid is not None]
        first = [place for place, each in enumerate(found) if each[2] is None]
        if changes != true[len(true) - len(changes) :]:
            wrong.append(f"key {row}: {changes} are not the last of {true}")
        elif len(first) > 1:
            wrong.append(f"key {row} was first read {len(first)} times: {found}")
        elif first:
            behind = len(found) - first[0] - 1
            if len(true) <= behind or found[first[0]][:2] != true[len(true) - behind - 1]:
                wrong.append(f"key {row} was first read as {found[first[0]]}, before the last {behind} of {true}")
        elif not changes and true and true[-1][0] == "upsert":
            wrong.append(f"key {row} never came: {true}")
    return wrong


def drop_slot(slot: str) -> None:
    """When nobody reads through it any more."""
    with psycopg.connect(os.environ[VARIABLE], autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = %s AND active", [slot]
        )
        for _ in range(100):
            with suppress(psycopg.errors.ObjectInUse):
                connection.execute(
                    "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = %s", [slot]
                )
                return
            threading.Event().wait(0.05)


MIRROR = Subject(build=mirror, arrive=arrive, judge=judge, arrange=(small_pieces,))
