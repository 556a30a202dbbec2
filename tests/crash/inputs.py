"""Payment events in files, some of which appear while the flow runs or between restarts. Imports nothing of onefold."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

START = datetime.fromisoformat("2024-01-01")
FILES = 4
EVENTS = 480
FIRST_FILES = 3
"""There before the first process starts; one more arrives with each restart."""


def arrive(folder: Path, life: int, *, events: int = EVENTS, seed: int = 7) -> bool:
    """Put the files of this life into folder/in, by rename. Returns whether all are there."""
    place = folder / "in"
    place.mkdir(exist_ok=True)
    wanted = min(FILES, FIRST_FILES + life)
    bodies = None
    for number in range(1, wanted + 1):
        final = place / f"{number:04d}.jsonl{'.gz' if number % 2 == 0 else ''}"
        if final.exists():
            continue
        bodies = bodies or list(_files(events, seed))
        body = bodies[number - 1]
        part = folder / f"{number}.part"
        part.write_bytes(gzip.compress(body, mtime=0) if final.suffix == ".gz" else body)
        part.rename(final)
    return wanted == FILES


def arrive_at_once(folder: Path, life: int) -> bool:
    """All files before the first process starts."""
    return arrive(folder, FILES)


def poison(folder: Path, lines: int) -> None:
    """One file of lines that are no JSON, each of them different."""
    place = folder / "in"
    place.mkdir()
    with (folder / "1.part").open("wb") as file:
        for start in range(0, lines, 10_000):
            chunk = range(start, min(start + 10_000, lines))
            file.writelines(
                b'{"event_id": "e%d", "merchant": "m1", "amount": broken by a producer\n' % n for n in chunk
            )
    (folder / "1.part").rename(place / "0001.jsonl")


def _files(events: int, seed: int) -> Iterator[bytes]:
    lines = list(_events(events, random.Random(seed)))
    size = -(-len(lines) // FILES)
    for start in range(0, len(lines), size):
        yield b"".join(line + b"\n" for line in lines[start : start + size])


def _events(events: int, luck: random.Random) -> Iterator[bytes]:
    """Replays, differing copies, out of order, late, malformed, misfit and filtered ones among them."""
    sent: list[dict[str, object]] = []
    for number in range(events):
        dice = luck.random()
        if dice < 0.15 and sent:
            copy = dict(luck.choice(sent[-120:]))
            if luck.random() < 0.3:
                copy["amount"] = f"{luck.randrange(1, 9999) / 100:.2f}"
            yield json.dumps(copy).encode()
            continue
        seconds = number * 40 - luck.randrange(0, 500)
        if dice < 0.20:
            seconds -= 9000  # late, once there is something to be late for
        event: dict[str, object] = {
            "event_id": f"e{number}",
            "merchant": f"m{luck.randrange(6)}",
            "amount": f"{luck.randrange(-500, 9999) / 100:.2f}",
            "paid_at": (START + timedelta(seconds=seconds)).isoformat(),
        }
        if dice < 0.23:
            event["amount"] = "12.345" if dice < 0.215 else "many"
        if dice < 0.24:
            event["paid_at"] = event["paid_at"] if dice < 0.23 else None
        sent.append(event)
        body = json.dumps(event).encode()
        yield body if not 0.24 < dice < 0.27 else body[: luck.randrange(1, len(body) - 1)]
