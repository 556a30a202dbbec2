"""What a run shows while it runs: one line that is drawn anew on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import onefold

pty = pytest.importorskip("pty", reason="no terminals")

EVENTS = 1234
SOON = 60.0
FLOW = """
import onefold as of
flow = of.Flow("shop")
events = flow.read(of.files("in/*.jsonl", complete="rename"), schema={"id": "BIGINT"})
events.append(of.sqlite("out.db").table("events"))
"""


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jsonl").write_text("".join(json.dumps({"id": n}) + "\n" for n in range(EVENTS)))
    (tmp_path / "shop.py").write_text(FLOW)
    return tmp_path


@contextlib.contextmanager
def following(shop: Path, out: int) -> Iterator[subprocess.Popen[bytes]]:
    """A run that follows its input and shows itself there."""
    package = str(Path(onefold.__file__).resolve().parents[1])
    environment = {**os.environ, "PYTHONPATH": package, "TERM": "xterm", "COLUMNS": "200"}
    command = [sys.executable, "-m", "onefold", "run", "shop.py", "--every", "0.02"]
    child = subprocess.Popen(command, cwd=shop, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    try:
        yield child
    finally:
        child.kill()
        child.wait()


def read_until(source: int, is_enough: Callable[[str], object]) -> str:
    """What comes until it is enough, or ends."""
    text = ""
    while not is_enough(text):
        ready, _, _ = select.select([source], [], [], SOON)
        assert ready, f"nothing more for {SOON} seconds after {text!r}"
        try:
            piece = os.read(source, 1 << 16)
        except OSError:  # how a terminal says on Linux that nobody is there any more
            piece = b""
        if not piece:
            break
        text += piece.decode("utf-8", "replace")
    return text


def stopped(child: subprocess.Popen[bytes], source: int) -> str:
    """What it says when it is asked to stop, to the end."""
    child.send_signal(signal.SIGINT)
    rest = read_until(source, lambda _: False)
    assert child.wait(SOON) == 0
    return rest


CAUGHT_UP = rf"shop {EVENTS:,} events · [\d,]+/s · epoch \d+ · lag none, caught up · memory [\d.,]+ \w+"
ERASED = "\x1b[2K"
"""The line is emptied: what follows stands in its place."""


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", text)


def test_on_a_terminal_one_line_is_drawn_anew_and_gone_at_the_end(shop: Path) -> None:
    mine, its = pty.openpty()
    with contextlib.closing(os.fdopen(mine, "rb", buffering=0)), following(shop, its) as child:
        os.close(its)
        shown = read_until(mine, lambda text: len(re.findall(CAUGHT_UP, plain(text))) > 2)
        rest = stopped(child, mine)
    assert shown.count(ERASED) >= 2
    assert "\n" not in shown[shown.index("events ·") :], "it stays on its line"
    assert ERASED in rest
    last = plain(rest[rest.rindex(ERASED) :])
    assert "caught up" not in last, "the live line is gone"
    assert "shop stopped by SIGINT: 1,234 events in" in last
    assert "Every sink has everything." in last


def test_elsewhere_a_plain_line_comes_now_and_then_and_stays(shop: Path) -> None:
    mine, its = os.pipe()
    with contextlib.closing(os.fdopen(mine, "rb", buffering=0)), following(shop, its) as child:
        os.close(its)
        shown = read_until(mine, lambda text: len(re.findall(CAUGHT_UP, text)) > 2)
        rest = stopped(child, mine)
    assert "\x1b" not in shown + rest
    assert "\r" not in shown + rest
    lines = [line for line in (shown + rest).splitlines() if "caught up" in line]
    assert all(re.fullmatch(CAUGHT_UP, line) for line in lines)
    assert "shop stopped by SIGINT: 1,234 events in" in rest
