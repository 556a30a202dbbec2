"""`onefold status FLOW`: where it stands, from the state folder."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import click
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from onefold.cli.command import Chosen, Verb, print_json, results_to, takes_flow
from onefold.cli.live import size_text
from onefold.engines.embedded.status import Status, status

__all__ = ["command", "prepared_lines"]

LONGEST_POSITION = 60


@click.command("status", cls=Verb)
@takes_flow
def command(chosen: Chosen) -> None:
    """Epochs, positions, sinks and books of FLOW, also while it runs. Reads the state folder and opens no sink.

    Sinks of a flow that commits together are asked for prepared transactions that nobody has decided.
    """
    found = status(chosen.plan, chosen.folder)
    if chosen.as_json:
        print_json(found.as_json())
    else:
        _show(results_to(), found)


def _show(out: Console, found: Status) -> None:
    running = found.running
    state = Text(f"running, process {running['pid']}", "green") if running else Text("not running", "dim")
    out.print(Text.assemble((found.flow, "bold"), "  ", state))
    out.print(f"  state     {found.folder}, incarnation {found.incarnation}", style="dim")
    sealed = f", {_when(found.sealed_at)}" if found.sealed_at is not None else ""
    out.print(f"  epochs    {found.epoch} sealed{sealed}; {found.settled} settled; lag {_lag(found)}")
    for read, marks in found.positions.items():
        for partition, position in marks.items():
            out.print(f"  position  {read} {partition}: {_short(position)}")
    for read, marks in found.watermarks.items():
        for partition, mark in marks.items():
            out.print(f"  newest    {read} {partition}: {_when(mark / 1_000_000)}")
    out.print(_sinks(found))
    for line in prepared_lines(found):
        out.print(line)
    out.print(_books(found.totals))


def _sinks(found: Status) -> Table:
    has_lost = any(sink.rows_given_up for sink in found.sinks)
    table = _table("sink", "guarantee", "surely through epoch", "rows waiting", *(["given up, at most"] * has_lost))
    for sink in found.sinks:
        waiting = f"{sink.waiting_rows:,}" + (f", {sink.prepared} prepared" if sink.prepared else "")
        cells = [sink.name, sink.guarantee, str(sink.delivered_through), waiting]
        table.add_row(*cells, *([f"{sink.rows_given_up:,}"] * has_lost))
    return table


def prepared_lines(found: Status) -> Iterator[Text]:
    """What is prepared in the sinks, by name: a person may have to look it up there."""
    for sink in found.sinks:
        for name in sink.decided:
            yield Text(f"  decided    {sink.name}: {name} waits to be committed")
        for name in sink.undecided or ():
            yield Text(f"  undecided  {sink.name}: {name}; the next run forgets it", "yellow")
        if sink.undecided is None:
            yield Text(f"  undecided  {sink.name}: not known, it does not answer; see onefold doctor", "yellow")


def _books(totals: Mapping[str, Any]) -> Table:
    table = _table("books", "counts")
    for name, counts in totals.get("operators", {}).items():
        table.add_row(name, _counts(counts))
    for name, counts in totals.get("sinks", {}).items():
        table.add_row(f"→ {name}", _counts(counts))
    return table


def _counts(counts: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value:,}" for name, value in counts.items() if isinstance(value, int) and value)


def _table(first: str, *others: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=True)
    table.add_column(first, header_style="bold")
    for name in others:
        table.add_column(name, justify="left" if name in ("guarantee", "counts") else "right")
    return table


def _lag(found: Status) -> str:
    return size_text(found.lag_bytes) if found.lag_bytes else "none"


def _short(position: object) -> str:
    text = json.dumps(position)
    return text if len(text) <= LONGEST_POSITION else text[: LONGEST_POSITION - 1] + "…"


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
