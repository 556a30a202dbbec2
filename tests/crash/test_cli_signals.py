"""Ctrl-C and SIGTERM on a real process: the first stops cleanly, the second at once, and neither loses anything."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pytest

import onefold
from onefold.cli.exits import Exit

pytestmark = pytest.mark.crash

FLOW = """
import threading
from pathlib import Path
import onefold as of

flow = of.Flow("shop", epoch_rows=100)
events = flow.read(of.files("in/*.jsonl", complete="rename"), schema={"event_id": "VARCHAR"})

def slowly(rows):
    print("inside", flush=True)
    while not Path("go").exists():
        threading.Event().wait(0.02)
    return rows

slow = events.map(slowly, schema={"event_id": "VARCHAR"}, batch="arrow")
slow.append(of.duckdb("out.duckdb").table("events"))
"""
EVENTS = 1000
PATIENCE_SECONDS = 60


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    lines = "".join(json.dumps({"event_id": f"e{number}"}) + "\n" for number in range(EVENTS))
    (tmp_path / "in" / "a.jsonl").write_text(lines)
    (tmp_path / "shop.py").write_text(FLOW)
    return tmp_path


@contextmanager
def running(shop: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    package = str(Path(onefold.__file__).resolve().parents[1])
    environment = {**os.environ, "PYTHONPATH": package}
    command = [sys.executable, "-m", "onefold", "run", "shop.py", *options]
    child = subprocess.Popen(
        command, cwd=shop, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


def wait_for(stream: Iterator[str] | None, text: str) -> None:
    assert any(text in line for line in stream or ()), f"the process ended without saying {text!r}"


def each_once(shop: Path) -> bool:
    with duckdb.connect(str(shop / "out.duckdb"), read_only=True) as connection:
        found = connection.execute("SELECT count(*), count(DISTINCT event_id) FROM events").fetchone()
    return found == (EVENTS, EVENTS)


def run_to_the_end(shop: Path) -> None:
    (shop / "go").touch()
    with running(shop, "--once") as child:
        child.communicate(timeout=PATIENCE_SECONDS)
        assert child.returncode == Exit.OK


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_stops_after_the_epoch_in_hand(shop: Path, number: signal.Signals) -> None:
    with running(shop) as child:
        wait_for(child.stdout, "inside")
        child.send_signal(number)
        wait_for(child.stderr, "stopping after the epoch in hand")
        (shop / "go").touch()
        out, _ = child.communicate(timeout=PATIENCE_SECONDS)
    assert child.returncode == Exit.OK
    assert f"stopped by {number.name}" in out
    assert "Every sink has everything." in out
    run_to_the_end(shop)
    assert each_once(shop)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_it_at_once_and_nothing_is_lost(shop: Path, number: signal.Signals) -> None:
    with running(shop) as child:
        wait_for(child.stdout, "inside")
        child.send_signal(number)
        wait_for(child.stderr, "stopping after the epoch in hand")
        child.send_signal(number)
        child.communicate(timeout=PATIENCE_SECONDS)
    assert child.returncode == 128 + number
    run_to_the_end(shop)
    assert each_once(shop)


def test_a_following_run_takes_what_comes_later(shop: Path) -> None:
    (shop / "go").touch()
    with running(shop, "--json", "--every", "0.05") as child:
        for line in child.stdout or ():
            if line.startswith("{") and json.loads(line)["is_caught_up"]:
                break
        more = "".join(json.dumps({"event_id": f"later{number}"}) + "\n" for number in range(10))
        (shop / "b.tmp").write_text(more)
        (shop / "b.tmp").rename(shop / "in" / "b.jsonl")
        for line in child.stdout or ():
            if line.startswith("{") and json.loads(line)["events"] == EVENTS + 10:
                break
        child.send_signal(signal.SIGTERM)
        out, _ = child.communicate(timeout=PATIENCE_SECONDS)
    assert json.loads(out.splitlines()[-1])["is_complete"] is True
    with duckdb.connect(str(shop / "out.duckdb"), read_only=True) as connection:
        assert connection.execute("SELECT count(*) FROM events").fetchone() == (EVENTS + 10,)
