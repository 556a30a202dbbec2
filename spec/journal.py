"""Steps of a process towards its journal: start, read, seal, settle, drain. Every step is one durable change."""

from __future__ import annotations

from collections.abc import Iterator

from spec.model import (
    Disk,
    Lane,
    Proc,
    Record,
    Seal,
    Setting,
    View,
    World,
    intern_seal,
    read_log,
    seal_of,
)

__all__ = [
    "LEFT_UNDECIDED", "LEFT_UNDRAINED", "Label", "Move", "append", "append_start", "drain", "excuse", "fail_seal",
    "free", "is_exact", "mark", "members_of", "put_proc", "read_journal", "seal_choices", "seal_epoch", "settle",
    "stop_fatally", "view_of",
]  # fmt: skip

LEFT_UNDRAINED = "a sink left while epochs wait for it"
LEFT_UNDECIDED = "a sink left while something may be prepared in it"

Label = tuple[object, ...]
Move = tuple[Label, World]


def put_proc(world: World, p: int, proc: Proc) -> World:
    """The world with another state of process p."""
    return world._replace(procs=(*world.procs[:p], proc, *world.procs[p + 1 :]))


def stop_fatally(world: World, p: int, why: str) -> World:
    """Process p stops with an error. What it knew is gone."""
    proc = world.procs[p]
    return put_proc(world, p, Proc(proc.disk, proc.maker, 0, pc="fatal", why=why))


def view_of(world: World, p: int) -> View:
    """The journal as process p remembers it."""
    proc = world.procs[p]
    return read_log(proc.log, world.disks[proc.disk].journal)


def is_exact(setting: Setting, sink: int) -> bool:
    """Whether the sink moves a token."""
    return setting.scenario.guarantees[sink] == "exactly"


def members_of(setting: Setting, proc: Proc) -> list[int]:
    """The sinks of this process's version of the flow."""
    return [sink for sink in range(len(setting.scenario.guarantees)) if proc.members >> sink & 1]


def append(setting: Setting, world: World, p: int, record: Record) -> World:
    """Append-if-absent of the next number. Taken by another, or leaving a gap: fenced, fatal."""
    proc = world.procs[p]
    disk = world.disks[proc.disk]
    if setting.safe.append_if_absent and len(disk.log) != len(proc.log):
        return stop_fatally(world, p, "fenced")
    log = (*disk.log, record)
    known = log if disk.log == proc.log else (*proc.log, record)
    world = world._replace(disks=_put_disk(world, proc.disk, disk._replace(log=log)))
    return put_proc(world, p, proc._replace(log=known))


def _put_disk(world: World, d: int, disk: Disk) -> tuple[Disk, ...]:
    return (*world.disks[:d], disk, *world.disks[d + 1 :])


def append_start(setting: Setting, world: World, p: int) -> World:
    """The start record, at the next free number whatever it is; the number is the incarnation.

    Before it: may the sinks leave that are no longer in the flow?
    """
    before, proc = world, world.procs[p]
    disk = world.disks[proc.disk]
    why = _leaving(setting, disk, proc.members)
    if why:
        return stop_fatally(world, p, why)
    log = (*disk.log, ("start", proc.members, disk.place))
    if setting.scenario.zombies:
        world = excuse(setting, world, proc.disk)
    world = world._replace(disks=_put_disk(world, proc.disk, disk._replace(log=log)))
    if setting.safe.start_before_read:
        return put_proc(world, p, proc._replace(pc="read", inc=len(log)))
    if setting.safe.start_number_fixed and len(disk.log) != len(proc.log):
        return stop_fatally(before, p, "fenced")
    blanks = (("void",),) * (len(disk.log) - len(proc.log))
    return put_proc(world, p, proc._replace(pc="run", inc=len(log), log=proc.log + blanks + log[-1:]))


def excuse(setting: Setting, world: World, disk: int) -> World:
    """At-least-once: what others wrote and did not record by now, nobody will: its outcome is unknown from here on."""
    allowed = list(world.allowed)
    for proc in world.procs:
        for sink, lane in enumerate(proc.lanes):
            if proc.disk == disk and setting.scenario.guarantees[sink] == "least" and lane.state == "done":
                allowed[sink] += 1
    return world._replace(allowed=tuple(allowed))


def read_journal(setting: Setting, world: World, p: int) -> World:
    """Read everything after the start record was appended; stop if a later process has started meanwhile."""
    proc = world.procs[p]
    disk = world.disks[proc.disk]
    log = disk.log
    view = read_log(log, disk.journal)
    if view.broken:
        return stop_fatally(world, p, "journal broken")
    if proc.inc and (len(log) < proc.inc or log[proc.inc - 1][0] != "start"):
        return stop_fatally(world, p, "fenced")
    if proc.inc and setting.safe.newest_start_wins and view.starts[-1][0] > proc.inc:
        return stop_fatally(world, p, "fenced")
    if not setting.safe.never_recut_epoch:
        log = _forget_unsettled(log, view)
        view = read_log(log, disk.journal)
    position = seal_of(view.chain[-1]).stop if view.chain else 0
    lanes = tuple(Lane("closed", 0, 0, 0) for _ in setting.scenario.guarantees)
    pc = "run" if setting.safe.start_before_read else "new"
    return put_proc(world, p, proc._replace(pc=pc, log=log, position=position, lanes=lanes))


def _leaving(setting: Setting, disk: Disk, members: int) -> str:
    """Why a sink that this version of the flow does not have may not leave yet; empty: none leaves, or all may."""
    view, gone = read_log(disk.log, disk.journal), 0
    for record in disk.log:
        if record[0] == "start":
            gone = record[1] & ~members
    if gone and view.settled < view.head and setting.safe.leaves_when_drained:
        return LEFT_UNDRAINED
    return LEFT_UNDECIDED if gone and disk.marked and setting.safe.leaves_when_decided else ""


def mark(setting: Setting, world: World, p: int, *, is_undecided: bool) -> World:
    """Durable beside the journal: something may be prepared that is not decided, or nothing is."""
    d = world.procs[p].disk
    if not setting.scenario.versions:
        return world
    return world._replace(disks=_put_disk(world, d, world.disks[d]._replace(marked=is_undecided)))


def _forget_unsettled(log: tuple[Record, ...], view: View) -> tuple[Record, ...]:
    dropped = set(view.chain[view.settled :])
    return tuple(("void",) if record[0] == "seal" and record[1] in dropped else record for record in log)


def seal_choices(setting: Setting, world: World, p: int) -> Iterator[tuple[int, int]]:
    """The epochs that process p could compute next: (seal id, stop). Not deterministic: sizes and results vary."""
    scenario, proc = setting.scenario, world.procs[p]
    chain = view_of(world, p).chain
    before = chain[-1] if chain else -world.disks[proc.disk].journal
    for stop in range(min(proc.position + scenario.cut, scenario.events), proc.position, -1):
        for route in scenario.routes:
            rows = 0
            for event in range(proc.position, stop):
                rows |= route[event]
            rows &= proc.members
            yield intern_seal(Seal(before, proc.maker, len(chain) + 1, proc.position, stop, rows)), stop


def seal_epoch(setting: Setting, world: World, p: int, seal_id: int) -> World:
    """The decision: one durable record. Computing is part of this step: nothing of it is durable before."""
    stop = seal_of(seal_id).stop
    world = append(setting, world, p, ("seal", seal_id))
    proc = world.procs[p]
    return world if proc.pc == "fatal" else put_proc(world, p, proc._replace(position=stop, hand=0, ready=0))


def fail_seal(setting: Setting, world: World, p: int, seal_id: int) -> Iterator[Move]:
    """The append answers with an error; the record may be durable or not. Memory may be ahead of the journal."""
    budget = world.budget._replace(failed_seals=world.budget.failed_seals - 1)
    for landed in (False, True):
        after = world._replace(budget=budget)
        if landed:
            after = append(setting, after, p, ("seal", seal_id))
            if after.procs[p].pc == "fatal":
                continue
        proc = world.procs[p]
        if setting.safe.failed_seal_is_fatal:
            after = stop_fatally(after, p, "seal failed")
        else:
            after = put_proc(after, p, proc._replace(position=seal_of(seal_id).stop))
        yield ("seal fails", p, seal_id, "durable" if landed else "not durable"), after


def settle(setting: Setting, world: World, p: int) -> int:
    """The epoch through which process p may settle now: every sink with rows in it holds a token at or past it."""
    view, proc = view_of(world, p), world.procs[p]
    through = view.head
    if not setting.safe.settle_after_all_tokens:
        return through
    for sink in members_of(setting, proc):
        lane = proc.lanes[sink]
        if lane.state == "closed" or (not is_exact(setting, sink) and lane.state != "open"):
            known = max(lane.cursor, view.joins[sink], view.settled) if is_exact(setting, sink) else view.done[sink]
        else:
            known = lane.cursor
        for epoch in range(known + 1, through + 1):
            if seal_of(view.chain[epoch - 1]).rows >> sink & 1:
                through = min(through, epoch - 1)
                break
    return through


def free(setting: Setting, world: World, p: int) -> World | None:
    """Give up settled payloads, and headers before the oldest token. None: nothing to free."""
    view, proc = view_of(world, p), world.procs[p]
    disk = world.disks[proc.disk]
    freed = view.settled if setting.safe.payload_until_settled else view.head
    pruned = view.settled
    if setting.safe.headers_to_oldest_token:
        for sink in members_of(setting, proc):
            lane = proc.lanes[sink]
            if is_exact(setting, sink):
                oldest = -1 if lane.state == "closed" else lane.cursor
                pruned = min(pruned, oldest)
    freed, pruned = max(freed, disk.freed), max(pruned, disk.pruned)
    if (freed, pruned) == (disk.freed, disk.pruned):
        return None
    return world._replace(disks=_put_disk(world, proc.disk, disk._replace(freed=freed, pruned=pruned)))


def drain(setting: Setting, world: World, p: int) -> World | None:
    """A clean end: the whole input is sealed, delivered and settled, and every token is at the head."""
    view, proc = view_of(world, p), world.procs[p]
    if proc.position < setting.scenario.events or view.settled < view.head or proc.hand:
        return None
    for sink in members_of(setting, proc):
        lane = proc.lanes[sink]
        if lane.state != "open":
            return None
        if is_exact(setting, sink) and setting.safe.token_only_commits and lane.cursor < view.head:
            return None
    head = view.chain[-1] if view.chain else 0
    drained = tuple(sorted({*world.drained, head}))
    world = mark(setting, world, p, is_undecided=False)
    return put_proc(world, p, Proc(proc.disk, proc.maker, 0, pc="drained"))._replace(drained=drained)
