"""Commits to a Hudi table on an object store: all interleavings of several writers, late requests and restores.

A timeline of instants, pending or completed, cannot be compared and set. One object beside it can, by its ETag: it
names the one instant that is decided. Whatever was decided earlier is completed before the next is decided.

    open      read the object; list what is pending; put the object anew, on the ETag that was read; complete what is
              decided; roll back the rest of the list; read the token
    write     read the object; complete what is decided; compare the token; create an instant, write its files
    commit    compare the token; put the object with our instant as the decided one, on the ETag that write read;
              complete the instant

Every step of a process is one request. A process that is killed is one that never goes on; a successor is one that
begins late. ETags are never used twice, so of one that is remembered only this matters: is it still the current one.

    python -m spec.hudi_store [--deep] [--without SAFEGUARD] [SCENARIO ...]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator

from spec.hudi_store_safeguards import StoreSafeguards, store_without
from spec.hudi_store_steps import Move, own_moves
from spec.hudi_store_world import Proc, Setting, StoreScenario, Table, World, land, roll_back, token_of, tokens_of
from spec.journal import Label
from spec.search import Searched, explore

__all__ = [
    "STORE_SCENARIOS",
    "STORE_SCENARIOS_DEEP",
    "first_world",
    "main",
    "moves",
    "narrate_store",
    "search_store",
    "wrong_with",
]

STORE_SCENARIOS: dict[str, StoreScenario] = {
    "zombie": StoreScenario((0, 0), (2,)),
    "late": StoreScenario((0, 0), (1,), delays=1),
    "shared": StoreScenario((0, 1), (1, 1), delays=1),
    "restored": StoreScenario((0, 1), (1, 1), restores=1),
}

STORE_SCENARIOS_DEEP: dict[str, StoreScenario] = {
    "zombie": StoreScenario((0, 0), (3,), delays=1),
    "late": StoreScenario((0, 0), (1,), delays=2),
    "three": StoreScenario((0, 0, 0), (1,)),
    "shared": StoreScenario((0, 1), (2, 1), delays=1),
    "shared-three": StoreScenario((0, 0, 1), (1, 1)),
    "restored": StoreScenario((0, 1), (1, 1), delays=1, restores=1),
    "restored-twice": StoreScenario((0, 0), (2,), restores=2),
}
"""Minutes and gigabytes."""


def main(arguments: list[str] | None = None) -> int:
    """Search and print. Returns 1 when there is a counter-example."""
    parser = argparse.ArgumentParser(
        prog="python -m spec.hudi_store", description="Search the commits to a Hudi table."
    )
    parser.add_argument("scenario", nargs="*", help="all, if none is named")
    parser.add_argument("--without", action="append", default=[], metavar="SAFEGUARD")
    parser.add_argument("--deep", action="store_true", help="larger bounds")
    asked = parser.parse_args(arguments)
    scenarios = STORE_SCENARIOS_DEEP if asked.deep else STORE_SCENARIOS
    failed = False
    for name in asked.scenario or scenarios:
        found = search_store(scenarios[name], store_without(*asked.without))
        wrong = f"FAILS: {found.finding.wrong}" if found.finding else "holds"
        print(f"{name:15} {found.states:8} states, depth {found.depth:3}, {found.seconds:6.1f} s  {wrong}", flush=True)
        for number, line in enumerate(narrate_store(found.finding.schedule) if found.finding else (), 1):
            print(f"  {number:3} {line}")
        failed = failed or found.finding is not None
    return int(failed)


def narrate_store(schedule: Iterable[Label]) -> list[str]:
    """Each step as a line of text."""
    lines = []
    for kind, *rest in schedule:
        if kind in ("lands", "restore begins", "restore ends"):
            lines.append(" ".join(map(str, (kind, *rest))))
        else:
            lines.append(" ".join(map(str, (f"process {rest[0]}:", kind, *rest[1:]))))
    return lines


def search_store(scenario: StoreScenario, safe: StoreSafeguards | None = None) -> Searched:
    """Visit all states of a scenario. From each of them calm processes finish, one for each flow."""
    setting = Setting(scenario, safe or StoreSafeguards())
    finished: dict[Table, str] = {}

    def wrong_in(world: World) -> str:
        if world.table not in finished:
            finished[world.table] = wrong_with(world.table) or _unfinished(setting, world.table)
        return finished[world.table] or (_forgotten(world) if scenario.is_alone else "")

    return explore(first_world(scenario), lambda world: moves(setting, world), wrong_in)


def first_world(scenario: StoreScenario) -> World:
    """An empty table; every process may begin at any time."""
    procs = tuple(Proc(flow) for flow in scenario.flows)
    return World(Table(), procs, (), scenario.delays, scenario.restores)


def moves(setting: Setting, world: World) -> Iterator[Move]:
    """All that can happen next. The first is what a calm run does."""
    for p in range(len(world.procs)):
        yield from own_moves(setting, world, p)
    for request in world.net:
        yield ("lands", request), land(setting, world, request)
    yield from _restores(setting, world)


def _restores(setting: Setting, world: World) -> Iterator[Move]:
    """Others remove the newest commit; killed half-way, it is pending again, without some of its files."""
    table = world.table
    if table.undoing:
        yield ("restore ends",), world._replace(table=roll_back(table, table.undoing))
    if not world.restores or not table.commits:
        return
    instant = table.commits[-1].instant
    after = table._replace(
        commits=table.commits[:-1], pending=tuple(sorted((*table.pending, instant))), undoing=instant
    )
    world = world._replace(table=after, restores=world.restores - 1)
    if setting.scenario.is_alone:
        world = world._replace(procs=tuple(Proc(proc.flow) for proc in world.procs), net=())
    yield ("restore begins", instant), world


def wrong_with(table: Table) -> str:
    """What must not be in a table, ever; "" where all is well."""
    if table.wrong:
        return table.wrong
    tokens = tokens_of(table)
    for flow, token in enumerate(tokens):
        shown = [commit.epoch for commit in table.commits if commit.flow == flow]
        if shown != list(range(1, token + 1)):
            return f"flow {flow} shows the epochs {shown}, its token says {token}"
    return ""


def _forgotten(world: World) -> str:
    for p, proc in enumerate(world.procs):
        if proc.token > token_of(world.table, proc.flow):
            return f"process {p} was told that epoch {proc.token} is there"
    return ""


def _unfinished(setting: Setting, table: Table) -> str:
    """From here one process a flow, one after another, without faults: all rows are shown, nothing stays pending."""
    for flow, epochs in enumerate(setting.scenario.epochs):
        world = World(table, (Proc(flow),), (), 0, 0)
        for _ in range(100):
            world = next((after for _, after in moves(setting, world)), world)
        table = world.table
        if wrong_with(table):
            return f"a calm run: {wrong_with(table)}"
        if world.procs[0].at != "drained" or [c.flow for c in table.commits].count(flow) != epochs:
            return f"flow {flow} does not finish"
    return "what is pending stays" if table.pending else ""


if __name__ == "__main__":
    sys.exit(main())
