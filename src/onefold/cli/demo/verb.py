"""The verb: writes the events, runs and kills, has it judged, and shows what came of it."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import click
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from onefold.cli.command import Verb, json_option, print_json, results_to
from onefold.cli.demo.crashes import Crash, CrashingRun, Finish
from onefold.cli.demo.events import draws, write_events
from onefold.cli.demo.expected import Found, Judge
from onefold.cli.exits import Exit
from onefold.clock import SystemClock

__all__ = ["command"]

FLOW = "revenue"


@dataclass(frozen=True)
class Verdict:
    """All figures of a demo. books: onefold's own counts; expected: the judge's; sinks: what the targets hold.

    crashes: those that hit a flow at work; wanted_crashes: how many were asked for.
    """

    seed: int
    wanted_crashes: int
    expected: Mapping[str, int]
    books: Mapping[str, int]
    sinks: Mapping[str, Found]
    crashes: tuple[Crash, ...]
    running_seconds: float
    seconds: float

    @property
    def is_right(self) -> bool:
        """Nothing lost, nothing twice, the books agree with the judge; and it was killed as often as was asked."""
        return self.is_tried and self.expected == self.books and all(found.is_right for found in self.sinks.values())

    @property
    def is_tried(self) -> bool:
        """Whether it was killed at work as often as was asked; a flow that was not proves nothing."""
        return len(self.crashes) >= self.wanted_crashes

    @property
    def events_per_second(self) -> float:
        """While a flow was running, work lost in crashes included; the children's own start is not."""
        return self.expected["read"] / self.running_seconds if self.running_seconds else 0.0

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            **vars(self),
            "sinks": {name: vars(found) for name, found in self.sinks.items()},
            "crashes": [vars(crash) for crash in self.crashes],
            "events_per_second": round(self.events_per_second),
            "is_right": self.is_right,
        }


@click.command("demo", cls=Verb)
@click.option("--events", default=1_000_000, show_default=True, type=click.IntRange(1000), help="Lines to write.")
@click.option("--seed", default=1, show_default=True, help="Another seed: other events, and other moments to die.")
@click.option("--crashes", default=6, show_default=True, type=click.IntRange(0), help="How often to kill it.")
@click.option("--keep", metavar="FOLDER", help="Work in this new folder and keep it, to look at or to run again.")
@json_option
def command(*, events: int, seed: int, crashes: int, keep: str | None, as_json: bool) -> None:
    """Kill a flow with SIGKILL at random moments, and count what it has lost or doubled.

    Writes payment events (10 % replayed, some out of order, late or malformed), runs where, dedup and one-minute
    revenue per merchant into DuckDB and a Parquet data set, kills it again and again, lets it finish, and compares
    both targets with what plain DuckDB finds in the input. Exit code 1 when anything differs, or when it ended before
    it could be killed so often at work.
    """
    console = Console(quiet=True) if as_json else results_to()
    with _folder(keep) as folder:
        verdict = _demonstrate(folder, console, events=events, seed=seed, crashes=crashes)
    if as_json:
        print_json(verdict.as_json())
    else:
        _show(console, verdict, Path(keep) if keep else None)
    if not verdict.is_right:
        raise click.exceptions.Exit(Exit.FAILED)


@contextlib.contextmanager
def _folder(keep: str | None) -> Iterator[Path]:
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="onefold-demo-") as made:
            yield Path(made)
        return
    folder = Path(keep).absolute()
    if folder.exists() and any(folder.iterdir()):
        raise click.UsageError(f"{keep} is not empty; --keep makes a new folder.")
    folder.mkdir(parents=True, exist_ok=True)
    yield folder


def _demonstrate(folder: Path, console: Console, *, events: int, seed: int, crashes: int) -> Verdict:
    clock = SystemClock()
    began = clock.monotonic()
    with _stage(console, f"writing {events:,} payment events", clock) as note:
        size = write_events(folder / "events", events, seed)
        note.append(f"{size / 1e6:,.0f} MB of JSON lines")
    _write_flow(folder, events)
    run = CrashingRun(folder, FLOW, events, _moments(seed))
    killed = _kill(run, console, clock, crashes)
    with _stage(console, f"run {len(killed) + 1}", clock) as note:
        finish = run.finish()
        note.append(f"drained after {finish.seconds:.1f} s")
    with _stage(console, "counting again with plain DuckDB, from the files alone", clock) as note:
        judge = Judge(folder)
        sinks = {
            "payments (Parquet, append)": judge.parquet(folder / "lake" / "payments", "payments"),
            "revenue_by_minute (DuckDB, upsert)": judge.duckdb(folder / "revenue.duckdb", "revenue_by_minute"),
        }
    running = sum(crash.seconds for crash in killed) + finish.seconds
    in_progress = tuple(crash for crash in killed if crash.is_in_progress)
    return Verdict(
        seed,
        crashes,
        judge.counts(),
        _books(finish),
        sinks,
        in_progress,
        round(running, 3),
        round(clock.monotonic() - began, 3),
    )


def _moments(seed: int) -> Callable[[], float]:
    drawn = iter(draws(seed, 11, 1000))
    return lambda: float(next(drawn))


def _kill(run: CrashingRun, console: Console, clock: SystemClock, wanted: int) -> list[Crash]:
    """Until so many runs were hit at work; one that had nothing left to do does not count."""
    killed: list[Crash] = []
    while (left := wanted - sum(crash.is_in_progress for crash in killed)) and len(killed) < 2 * wanted:
        with _stage(console, f"run {len(killed) + 1}", clock) as note:
            killed.append(run.crash(runs_left=left))
            note.append(_of_crash(killed[-1]))
    return killed


def _write_flow(folder: Path, events: int) -> None:
    """Some forty epochs, so that there is something to crash between."""
    template = resources.files("onefold.cli").joinpath("templates", "demo", f"{FLOW}.py").read_text("utf-8")
    (folder / f"{FLOW}.py").write_text(template.replace("25_000", f"{max(100, events // 40):_}"), "utf-8")


def _books(finish: Finish) -> Mapping[str, int]:
    operators = finish.totals["operators"]
    read, where, dedup = operators["payments"], operators["where"], operators["dedup"]
    return {
        "read": read["read"],
        "kept": dedup["out"],
        "duplicates": dedup["duplicates"],
        "late": read["late"],
        "dead": read["dead"],
        "refunds": where["filtered"],
    }


@contextlib.contextmanager
def _stage(console: Console, what: str, clock: SystemClock) -> Iterator[list[Text | str]]:
    began = clock.monotonic()
    note: list[Text | str] = []
    with console.status(what):
        yield note
    seconds = clock.monotonic() - began
    console.print(Text.assemble(f"  {what:<54} ", (f"{seconds:5.1f} s  ", "dim"), *note))


def _of_crash(crash: Crash) -> Text:
    where = f" after {crash.seconds:.2f} s; epoch {crash.epoch} and {crash.sealed:,} events were sealed"
    if not crash.is_in_progress:
        where += "; it had nothing left to do, so it does not count"
    return Text.assemble(("SIGKILL", "bold red"), where)


def _show(console: Console, verdict: Verdict, kept: Path | None) -> None:
    console.print(_events_table(verdict))
    console.print(_sinks_table(verdict))
    console.print(
        f"  {len(verdict.crashes)} crashes survived · {verdict.events_per_second:,.0f} events/s while running"
        f" · {verdict.seconds:.0f} s in all · seed {verdict.seed}"
    )
    told = ("  Nothing lost, nothing twice.", "bold green")
    if not verdict.is_tried:
        told = (f"  Killed at work less often than {verdict.wanted_crashes} times: take more --events.", "bold red")
    elif not verdict.is_right:
        told = ("  Something is wrong: see the tables.", "bold red")
    console.print(Text.assemble(told))
    if kept is not None:
        console.print(f"\n  Kept in {kept}; look around: onefold status {kept / FLOW}.py --state {kept / 'state'}")


def _events_table(verdict: Verdict) -> Table:
    table = _table("events")
    for name in verdict.expected:
        table.add_column(name, justify="right", no_wrap=True)
    for label, counts in (("plain DuckDB", verdict.expected), ("onefold's books", verdict.books)):
        cells = [
            Text(f"{counts[name]:,}", "" if counts[name] == verdict.expected[name] else "bold red")
            for name in verdict.expected
        ]
        table.add_row(label, *cells)
    return table


def _sinks_table(verdict: Verdict) -> Table:
    table = _table("sinks")
    for name in ("expected", "found", "lost", "duplicated"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, found in verdict.sinks.items():
        wrong = [Text(f"{count:,}", "bold red" if count else "bold green") for count in (found.lost, found.duplicated)]
        table.add_row(name, f"{found.expected:,}", f"{found.found:,}", *wrong)
    return table


def _table(title: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=True, collapse_padding=True)
    table.add_column(title, header_style="bold", min_width=15, no_wrap=True)
    return table
