"""Steps of a process under commit="together": two-phase commit, presumed abort, one epoch in flight."""

from __future__ import annotations

from collections.abc import Iterator

from spec.delivery import commit, housekeeping, open_sink, put_lane, put_sink
from spec.journal import (
    Move,
    mark,
    members_of,
    put_proc,
    seal_choices,
    seal_epoch,
    stop_fatally,
    view_of,
)
from spec.model import Handle, Lane, Request, Setting, SinkState, View, World, epoch_of, seal_of

__all__ = ["abort_orphans", "commit_handle", "commit_moves", "prepare", "take_handle", "take_prepare", "together_moves"]


_UNKNOWN = "prepare unknown"


def together_moves(setting: Setting, world: World, p: int) -> Iterator[Move]:
    """All steps of a running process. The first is the one a calm run would take."""
    proc = world.procs[p]
    if proc.pc == "abort":
        yield from _abort_own(setting, world, p)
        return
    sinks = members_of(setting, proc)
    for sink in sinks:
        if proc.lanes[sink].state == "closed":
            yield ("open", p, sink, world.sinks[sink].token), open_sink(setting, world, p, sink)
        elif proc.lanes[sink].state == "half":
            yield ("token", p, sink), _move_token(world, p, sink)
    are_open = all(proc.lanes[sink].state == "open" for sink in sinks)
    were_opened = all(proc.opened >> sink & 1 for sink in sinks)
    unlisted = [sink for sink in sinks if not proc.listed >> sink & 1]
    for sink in unlisted:
        if were_opened or (not setting.safe.tokens_before_abort and proc.opened >> sink & 1):
            yield ("abort orphans", p, sink), abort_orphans(setting, world, p, sink)
    if unlisted or not are_open:
        return
    if proc.hand:
        yield from _decide(setting, world, p)
        return
    yield from _deliver_or_begin(setting, world, p)


def _deliver_or_begin(setting: Setting, world: World, p: int) -> Iterator[Move]:
    view, proc = view_of(world, p), world.procs[p]
    is_behind = False
    for sink in members_of(setting, proc):
        lane = proc.lanes[sink]
        epoch = _next_epoch(view, sink, lane.cursor)
        if epoch:
            is_behind = True
            yield from commit_moves(setting, world, p, sink, epoch)
        elif lane.cursor < view.head:
            after = commit(setting, world, p, sink, view.head, is_answered=True)
            if after is not None:
                label = ("commit", p, sink, lane.cursor + 1, view.head, lane.token, view.chain[view.head - 1], "ok")
                yield label, after
    if is_behind:
        return
    for seal_id, _ in seal_choices(setting, world, p):
        yield ("compute", p, seal_id), put_proc(world, p, proc._replace(hand=seal_id, ready=0))
    yield from housekeeping(setting, world, p, view)


def _next_epoch(view: View, sink: int, cursor: int) -> int:
    epochs = range(cursor + 1, view.head + 1)
    return next((e for e in epochs if seal_of(view.chain[e - 1]).rows >> sink & 1), 0)


def _decide(setting: Setting, world: World, p: int) -> Iterator[Move]:
    proc = world.procs[p]
    seal, safe = seal_of(proc.hand), setting.safe
    world = mark(setting, world, p, is_undecided=True)
    waiting = [sink for sink in members_of(setting, proc) if (seal.rows & ~proc.ready) >> sink & 1]
    for sink in waiting:
        yield from _prepare_moves(setting, world, p, sink)
    if not waiting or not safe.seal_after_all_prepared:
        yield ("seal", p, proc.hand), seal_epoch(setting, world, p, proc.hand)
    if not safe.seal_before_delivery:
        for sink in members_of(setting, proc):
            if proc.ready >> sink & 1 and proc.lanes[sink].token != proc.hand:
                yield from commit_moves(setting, world, p, sink, seal.epoch)


def _prepare_moves(setting: Setting, world: World, p: int, sink: int) -> Iterator[Move]:
    yield ("prepare", p, sink), prepare(setting, world, p, sink)
    if world.budget.failed_prepares:
        budget = world.budget._replace(failed_prepares=world.budget.failed_prepares - 1)
        failed = world._replace(budget=budget)
        yield ("prepare fails", p, sink), put_proc(failed, p, world.procs[p]._replace(pc="abort"))
    if world.budget.delays:
        request = Request("prepare", sink, 0, 0, (), _own_handle(world, p, sink))
        late = world._replace(
            net=tuple(sorted((*world.net, request), key=repr)),
            budget=world.budget._replace(delays=world.budget.delays - 1),
        )
        yield ("prepare unknown", p, sink), put_proc(late, p, world.procs[p]._replace(pc="abort", why=_UNKNOWN))


def _own_handle(world: World, p: int, sink: int) -> Handle:
    proc = world.procs[p]
    return Handle(world.disks[proc.disk].journal, proc.inc, proc.hand, proc.lanes[sink].token)


def prepare(setting: Setting, world: World, p: int, sink: int) -> World:
    """Stage rows and token move. A sink that locks refuses another token, and fails while another handle holds it."""
    state, proc = world.sinks[sink], world.procs[p]
    after = take_prepare(setting, state, _own_handle(world, p, sink))
    if after is None:
        return put_proc(world, p, proc._replace(pc="abort"))
    world = put_sink(world, sink, after)
    return put_proc(world, p, proc._replace(ready=proc.ready | 1 << sink))


def take_prepare(setting: Setting, state: SinkState, handle: Handle) -> SinkState | None:
    """The sink stages a handle, or cannot."""
    if setting.scenario.locks and (state.handles or state.token != handle.expected):
        return None
    return state._replace(handles=tuple(sorted({*state.handles, handle})))


def _abort_own(setting: Setting, world: World, p: int) -> Iterator[Move]:
    """A prepare failed: all abort, nobody saw anything; then the process ends and the next one lists what is left."""
    proc = world.procs[p]
    held = False
    for sink in members_of(setting, proc):
        state = world.sinks[sink]
        mine = tuple(h for h in state.handles if h.seal == proc.hand and h.inc == proc.inc)
        if mine:
            held = True
            kept = tuple(h for h in state.handles if h not in mine)
            yield ("abort", p, sink), put_sink(world, sink, state._replace(handles=kept))
    if not held:
        is_unknown = proc.why == _UNKNOWN and setting.safe.late_prepare_expected
        world = mark(setting, world, p, is_undecided=is_unknown)
        yield ("stop", p), stop_fatally(world, p, "prepare failed")


def abort_orphans(setting: Setting, world: World, p: int, sink: int) -> World:
    """Abort what dead incarnations prepared and never sealed. A journal that has ever moved aborts nothing.

    The last start record alone would not do: the first start after the move, refused, is the last one of the second.
    """
    proc, safe = world.procs[p], setting.safe
    disk, view, state = world.disks[proc.disk], view_of(world, p), world.sinks[sink]
    orphans = []
    for handle in state.handles:
        is_ours = handle.journal == disk.journal or not safe.abort_own_journal
        is_dead = handle.inc < proc.inc or not safe.abort_dead_only
        is_sealed = handle.seal in view.chain and safe.abort_unsealed_only
        if is_ours and is_dead and not is_sealed:
            orphans.append(handle)
    places = [place for number, place in view.starts if number < proc.inc]
    places = places if safe.moves_remembered else places[-1:]
    is_moved = any(place != disk.place for place in places)
    if orphans and is_moved and safe.location_before_abort:
        return stop_fatally(world, p, "not adopted")
    kept = tuple(h for h in state.handles if h not in orphans)
    world = put_sink(world, sink, state._replace(handles=kept))
    return put_proc(world, p, proc._replace(listed=proc.listed | 1 << sink))


def commit_moves(setting: Setting, world: World, p: int, sink: int, epoch: int) -> Iterator[Move]:
    """Commit the handle of an epoch: answered, or not."""
    lane = world.procs[p].lanes[sink]
    new = world.procs[p].hand or view_of(world, p).chain[epoch - 1]
    label = ("commit", p, sink, lane.cursor + 1, epoch, lane.token, new)
    after = commit_handle(setting, world, p, sink, new)
    why = after.procs[p].why
    yield (*label, "refused" if why else "ok"), after
    if world.budget.delays and not world.procs[p].hand:
        request = Request("commit handle", sink, lane.token, new, (new,), None)
        late = world._replace(
            net=tuple(sorted((*world.net, request), key=repr)),
            budget=world.budget._replace(delays=world.budget.delays - 1),
        )
        yield (*label, "unknown"), put_lane(late, p, sink, Lane("closed", 0, lane.cursor, 0))


def take_handle(setting: Setting, state: SinkState, seal_id: int) -> SinkState | None:
    """The sink commits a prepared handle: rows and token together. None: there is none, or its token is another."""
    found = next((h for h in state.handles if h.seal == seal_id), None)
    if found is None or (not setting.scenario.locks and state.token != found.expected):
        return None
    token = seal_id if setting.safe.token_in_handle else state.token
    kept = tuple(h for h in state.handles if h != found)
    return SinkState(token, (*state.table, seal_id), kept)


def commit_handle(setting: Setting, world: World, p: int, sink: int, seal_id: int) -> World:
    """Commit a sealed epoch's handle. Refused when it is gone, even if an earlier request of ours has committed it."""
    state = take_handle(setting, world.sinks[sink], seal_id)
    if state is None:
        is_moved = world.sinks[sink].token != world.procs[p].lanes[sink].token
        return stop_fatally(world, p, "token refused" if is_moved else "handle gone")
    world = put_sink(world, sink, state)
    if not setting.safe.token_in_handle:
        return put_lane(world, p, sink, world.procs[p].lanes[sink]._replace(state="half", upto=epoch_of(seal_id)))
    return put_lane(world, p, sink, Lane("open", seal_id, epoch_of(seal_id), 0))


def _move_token(world: World, p: int, sink: int) -> World:
    lane = world.procs[p].lanes[sink]
    new = view_of(world, p).chain[lane.upto - 1]
    world = put_sink(world, sink, world.sinks[sink]._replace(token=new))
    return put_lane(world, p, sink, Lane("open", new, lane.upto, 0))
