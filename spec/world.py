"""Everything that can happen next: steps of every process, late effects of requests, and faults."""

from __future__ import annotations

from collections.abc import Iterator

from spec.delivery import put_sink, separate_moves, take
from spec.journal import Move, append_start, excuse, read_journal
from spec.model import (
    ALIVE,
    Budget,
    Disk,
    Lane,
    Proc,
    Setting,
    SinkState,
    World,
    chain_to,
    read_log,
)
from spec.together import take_handle, take_prepare, together_moves

__all__ = ["first_world", "land", "moves", "own_moves", "start_process"]


def first_world(setting: Setting) -> World:
    """An empty journal, empty sinks, one process."""
    scenario = setting.scenario
    count = len(scenario.guarantees)
    world = World(
        disks=(Disk(journal=1, place=0, log=(), freed=0, pruned=0),),
        procs=(),
        sinks=(SinkState(0, (), ()),) * count,
        net=(),
        budget=scenario.budget,
        drained=(),
        allowed=(0,) * count,
    )
    return start_process(setting, world, 0, scenario.choices[0])


def start_process(setting: Setting, world: World, disk: int, members: int) -> World:
    """One more process on a journal. Where older ones never go on, they are forgotten: that is a kill."""
    proc = Proc(disk, len(world.procs), members, lanes=(Lane("closed", 0, 0, 0),) * len(setting.scenario.guarantees))
    older = world.procs
    if not setting.scenario.zombies:
        world = excuse(setting, world, disk)
        older = tuple(_killed(other) if other.disk == disk and other.pc in ALIVE else other for other in older)
    return world._replace(procs=(*older, proc))


def _killed(proc: Proc) -> Proc:
    return Proc(proc.disk, proc.maker, 0, pc="fatal", why="killed")


def own_moves(setting: Setting, world: World, p: int) -> Iterator[Move]:
    """The steps that process p can take now, the one of a calm run first."""
    proc = world.procs[p]
    if proc.pc == "new":
        if setting.safe.start_before_read or proc.log or not world.disks[proc.disk].log:
            yield ("start", p), append_start(setting, world, p)
        else:
            yield ("read", p), read_journal(setting, world, p)
    elif proc.pc == "read":
        yield ("read", p), read_journal(setting, world, p)
    elif proc.pc in ("run", "abort"):
        steps = together_moves if setting.scenario.together else separate_moves
        yield from steps(setting, world, p)


def land(setting: Setting, world: World, number: int) -> World:
    """A request whose answer was given up takes effect, or is refused; nobody hears of it."""
    request = world.net[number]
    world = world._replace(net=world.net[:number] + world.net[number + 1 :])
    state = world.sinks[request.sink]
    if request.kind == "prepare" and request.handle is not None:
        after = take_prepare(setting, state, request.handle)
    elif request.kind == "commit handle":
        after = take_handle(setting, state, request.new)
    else:
        after = take(setting, state, request)
    return world if after is None else put_sink(world, request.sink, after)


def moves(setting: Setting, world: World) -> Iterator[Move]:
    """Every step and every fault that can come next."""
    for p in range(len(world.procs)):
        yield from own_moves(setting, world, p)
    for number in range(len(world.net)):
        yield ("lands", number, world.net[number]), land(setting, world, number)
    yield from _starts(setting, world)
    yield from _journal_faults(world)
    yield from _sink_faults(world)


def _spend(world: World, **left: int) -> World:
    return world._replace(budget=world.budget._replace(**left))


def _starts(setting: Setting, world: World) -> Iterator[Move]:
    if not world.budget.starts:
        return
    for number in range(len(world.disks)):
        for members in setting.scenario.choices:
            after = start_process(setting, _spend(world, starts=world.budget.starts - 1), number, members)
            yield ("restart", len(world.procs), number, members), after


def _journal_faults(world: World) -> Iterator[Move]:
    budget: Budget = world.budget
    disk = world.disks[0]
    if budget.journal_restores:
        for length in range(len(disk.log)):
            for restored in _restored(disk, length):
                after = _spend(world, journal_restores=budget.journal_restores - 1)
                yield ("restore journal", 0, length), after._replace(disks=(restored, *world.disks[1:]))
    if budget.copies and disk.log:
        copy = disk._replace(place=len(world.disks))
        after = _spend(world, copies=budget.copies - 1)
        yield ("copy journal", 0, len(world.disks)), after._replace(disks=(*world.disks, copy))
    if budget.fresh:
        place = len(world.disks)
        begun = (("start", world.procs[0].members, place),)  # its first process did nothing else: numbers may coincide
        empty = Disk(journal=2, place=place, log=begun, freed=0, pruned=0)
        after = _spend(world, fresh=budget.fresh - 1)
        yield ("empty journal", len(world.disks)), after._replace(disks=(*world.disks, empty))


def _restored(disk: Disk, length: int) -> set[Disk]:
    """An older state of the journal, with the payloads of then or with those that are still kept."""
    log = disk.log[:length]
    view = read_log(log, disk.journal)
    freed = min(disk.freed, view.settled)
    pruned = min(disk.pruned, view.settled)
    return {Disk(disk.journal, disk.place, log, kept, pruned) for kept in (freed, min(disk.freed, view.head))}


def _sink_faults(world: World) -> Iterator[Move]:
    if not world.budget.sink_restores:
        return
    for sink, state in enumerate(world.sinks):
        for older in (0, *chain_to(state.token)[:-1]):
            table = tuple(x for x in chain_to(older) if x in state.table)
            after = _spend(world, sink_restores=world.budget.sink_restores - 1)
            restored = state._replace(token=older, table=table)
            yield ("restore sink", sink, older), put_sink(after, sink, restored)
