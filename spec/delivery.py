"""Steps of a process towards its sinks: open, commit, and, without a token, attempt and outcome records."""

from __future__ import annotations

from collections.abc import Iterator

from spec.journal import (
    Move,
    append,
    drain,
    fail_seal,
    free,
    is_exact,
    members_of,
    put_proc,
    seal_choices,
    seal_epoch,
    settle,
    stop_fatally,
    view_of,
)
from spec.model import Lane, Request, Setting, SinkState, View, World, epoch_of, seal_of

__all__ = [
    "commit", "housekeeping", "locate", "open_sink", "payload", "put_lane", "put_sink", "record_attempt",
    "record_outcome", "separate_moves", "take",
]  # fmt: skip


def put_lane(world: World, p: int, sink: int, lane: Lane) -> World:
    """The world with another state of process p's lane to a sink."""
    proc = world.procs[p]
    return put_proc(world, p, proc._replace(lanes=(*proc.lanes[:sink], lane, *proc.lanes[sink + 1 :])))


def put_sink(world: World, sink: int, state: SinkState) -> World:
    """The world with another state of a sink."""
    return world._replace(sinks=(*world.sinks[:sink], state, *world.sinks[sink + 1 :]))


def locate(setting: Setting, world: World, p: int, sink: int) -> int | str:
    """How far the sink is by its token, or why that cannot be said."""
    view, disk = view_of(world, p), world.disks[world.procs[p].disk]
    token = world.sinks[sink].token
    if token == view.bases[sink]:
        joined = view.joins[sink] if setting.safe.join_recorded else 0
        return joined if joined >= disk.pruned else "headers gone"
    epoch = epoch_of(token)
    if epoch > view.head:
        return "fork"
    if epoch < disk.pruned:
        return "headers gone"
    if setting.safe.seal_ids_compared and view.chain[epoch - 1] != token:
        return "fork"
    return epoch


def open_sink(setting: Setting, world: World, p: int, sink: int) -> World:
    """Open: read the token, find it on the chain. An earlier request may still be on its way (see the README)."""
    if not is_exact(setting, sink):
        return _open_without_token(setting, world, p, sink)
    if setting.scenario.fences:
        world = world._replace(net=tuple(request for request in world.net if request.sink != sink))
    at = locate(setting, world, p, sink)
    if isinstance(at, str):
        return stop_fatally(world, p, at)
    if setting.scenario.together:
        proc = world.procs[p]
        world = put_proc(world, p, proc._replace(opened=proc.opened | 1 << sink))
    return put_lane(world, p, sink, Lane("open", world.sinks[sink].token, at, 0))


def _open_without_token(setting: Setting, world: World, p: int, sink: int) -> World:
    view, safe = view_of(world, p), setting.safe
    cursor = max(view.done[sink], view.joins[sink], view.settled)
    pending = view.pending[sink]
    if pending is None:
        return put_lane(world, p, sink, Lane("open", 0, cursor, 0))
    last = pending[1] if safe.range_never_recut else pending[0]
    state = "lost" if safe.attempt_abandoned else "trying"
    return put_lane(world, p, sink, Lane(state, 0, cursor, last))


def payload(setting: Setting, world: World, p: int, sink: int, upto: int) -> tuple[int, ...] | None:
    """What is delivered for the epochs after the cursor through `upto`; None: something of it is no longer kept."""
    proc = world.procs[p]
    chain, disk = view_of(world, p).chain, world.disks[proc.disk]
    rows: list[int] = []
    for epoch in range(proc.lanes[sink].cursor + 1, upto + 1):
        seal_id = chain[epoch - 1]
        seal = seal_of(seal_id)
        if not seal.rows >> sink & 1:
            continue
        if epoch <= disk.freed:
            if setting.safe.missing_is_not_empty:
                return None
            continue
        is_again = not setting.safe.redo_what_was_sealed and seal.maker != proc.maker
        rows.append(-seal_id if is_again else seal_id)
    return tuple(rows)


def take(setting: Setting, state: SinkState, request: Request) -> SinkState | None:
    """The sink carries a commit out: compare, rows and token in one step. None: refused."""
    safe = setting.safe
    if not is_exact(setting, request.sink):
        return state._replace(table=tuple(sorted(state.table + request.rows)))
    is_same = state.token == request.expected
    if not safe.seal_ids_compared:
        is_same = epoch_of(state.token) == epoch_of(request.expected)
    if safe.token_compare_and_set and not is_same:
        return None
    token = request.new if safe.token_with_rows else state.token
    return state._replace(token=token, table=state.table + request.rows)


def commit(setting: Setting, world: World, p: int, sink: int, upto: int, *, is_answered: bool) -> World | None:
    """Deliver the epochs after the cursor through `upto` together. None: not possible now."""
    lane = world.procs[p].lanes[sink]
    rows = payload(setting, world, p, sink, upto)
    if rows is None:
        return stop_fatally(world, p, "rows gone")
    new = view_of(world, p).chain[upto - 1] if is_exact(setting, sink) else 0
    request = Request("commit", sink, lane.token, new, rows, None)
    if not is_answered:
        return _leave_unanswered(setting, world, p, request, upto)
    state = take(setting, world.sinks[sink], request)
    if state is None:
        return _refused(setting, world, p, sink)
    world = put_sink(world, sink, state)
    if is_exact(setting, sink):
        if not setting.safe.token_with_rows:
            return put_lane(world, p, sink, Lane("half", lane.token, lane.cursor, upto))
        return put_lane(world, p, sink, Lane("open", new, upto, 0))
    world = _allow(world, sink) if _is_superseded(world, p) else world
    if setting.scenario.guarantees[sink] == "least" and not setting.safe.outcome_recorded:
        return put_lane(world, p, sink, Lane("open", 0, upto, 0))
    return put_lane(world, p, sink, Lane("done", 0, lane.cursor, upto))


def _refused(setting: Setting, world: World, p: int, sink: int) -> World:
    if setting.safe.refused_token_is_fatal:
        return stop_fatally(world, p, "token refused")
    return put_lane(world, p, sink, world.procs[p].lanes[sink]._replace(token=world.sinks[sink].token))


def _leave_unanswered(setting: Setting, world: World, p: int, request: Request, upto: int) -> World | None:
    if world.budget.delays == 0:
        return None
    sink, lane, safe = request.sink, world.procs[p].lanes[request.sink], setting.safe
    world = world._replace(
        net=tuple(sorted((*world.net, request), key=repr)),
        budget=world.budget._replace(delays=world.budget.delays - 1),
    )
    guarantee = setting.scenario.guarantees[sink]
    if guarantee == "least":
        return _allow(world, sink)
    if guarantee == "most":
        if safe.one_try:
            lane = lane._replace(state="lost")
        return put_lane(world, p, sink, lane)
    if not safe.unknown_is_not_done:
        return put_lane(world, p, sink, Lane("open", request.new, upto, 0))
    if not safe.unknown_is_not_failed:
        return world
    return put_lane(world, p, sink, Lane("closed", 0, lane.cursor, 0))


def _is_superseded(world: World, p: int) -> bool:
    proc = world.procs[p]
    starts = [number for number, r in enumerate(world.disks[proc.disk].log, 1) if r[0] == "start"]
    return bool(starts) and starts[-1] > proc.inc


def _allow(world: World, sink: int) -> World:
    """One more repetition of this sink's rows is excused: an outcome was unknown to the process that goes on."""
    allowed = (*world.allowed[:sink], world.allowed[sink] + 1, *world.allowed[sink + 1 :])
    return world._replace(allowed=allowed)


def record_attempt(setting: Setting, world: World, p: int, sink: int, upto: int) -> World:
    """At-most-once: the range is durable before the one try."""
    lane = world.procs[p].lanes[sink]
    if setting.safe.attempt_before_try:
        world = append(setting, world, p, ("attempt", sink, lane.cursor + 1, upto))
    if world.procs[p].pc == "fatal":
        return world
    return put_lane(world, p, sink, lane._replace(state="trying", upto=upto))


def record_outcome(setting: Setting, world: World, p: int, sink: int) -> World:
    """Without a token: progress, and at most how many epochs with rows were lost."""
    lane, chain = world.procs[p].lanes[sink], view_of(world, p).chain
    lost = 0
    if lane.state == "lost" and setting.safe.losses_counted:
        lost = sum(seal_of(chain[e - 1]).rows >> sink & 1 for e in range(lane.cursor + 1, lane.upto + 1))
    world = append(setting, world, p, ("outcome", sink, lane.upto, lost))
    if world.procs[p].pc == "fatal":
        return world
    return put_lane(world, p, sink, Lane("open", 0, lane.upto, 0))


def _move_token(setting: Setting, world: World, p: int, sink: int) -> World:
    """The second half of a commit without `token_with_rows`."""
    lane = world.procs[p].lanes[sink]
    new = view_of(world, p).chain[lane.upto - 1]
    if setting.safe.token_compare_and_set and world.sinks[sink].token != lane.token:
        return _refused(setting, world, p, sink)
    world = put_sink(world, sink, world.sinks[sink]._replace(token=new))
    return put_lane(world, p, sink, Lane("open", new, lane.upto, 0))


def _sink_moves(setting: Setting, world: World, p: int, sink: int, view: View) -> Iterator[Move]:
    lane = world.procs[p].lanes[sink]
    if lane.state == "closed":
        yield ("open", p, sink, world.sinks[sink].token), open_sink(setting, world, p, sink)
    elif lane.state == "half":
        yield ("token", p, sink), _move_token(setting, world, p, sink)
    elif lane.state in ("done", "lost"):
        yield ("outcome", p, sink, lane.upto, lane.state), record_outcome(setting, world, p, sink)
    elif lane.state == "trying":
        yield from _commit_moves(setting, world, p, sink, lane.upto)
    else:
        yield from _range_moves(setting, world, p, sink, view)


def _range_moves(setting: Setting, world: World, p: int, sink: int, view: View) -> Iterator[Move]:
    cursor = world.procs[p].lanes[sink].cursor
    first = next((e for e in range(cursor + 1, view.head + 1) if seal_of(view.chain[e - 1]).rows >> sink & 1), 0)
    if first:
        for upto in range(view.head, first - 1, -1):
            if setting.scenario.guarantees[sink] == "most":
                yield ("attempt", p, sink, cursor + 1, upto), record_attempt(setting, world, p, sink, upto)
            else:
                yield from _commit_moves(setting, world, p, sink, upto)
    if is_exact(setting, sink) and setting.safe.token_only_commits:
        for upto in range((first or view.head + 1) - 1, cursor, -1):
            yield from _commit_moves(setting, world, p, sink, upto)


def _commit_moves(setting: Setting, world: World, p: int, sink: int, upto: int) -> Iterator[Move]:
    lane = world.procs[p].lanes[sink]
    new = view_of(world, p).chain[upto - 1]
    for is_answered in (True, False):
        after = commit(setting, world, p, sink, upto, is_answered=is_answered)
        if after is not None and after != world:
            answer = _answer(after, p) if is_answered else "unknown"
            yield ("commit", p, sink, lane.cursor + 1, upto, lane.token, new, answer), after


def _answer(after: World, p: int) -> str:
    proc = after.procs[p]
    return "ok" if proc.pc == "run" else {"token refused": "refused"}.get(proc.why, proc.why)


def separate_moves(setting: Setting, world: World, p: int) -> Iterator[Move]:
    """All steps of a running process whose sinks go at their own paces. The first is the one a calm run would take."""
    view, proc = view_of(world, p), world.procs[p]
    for sink in members_of(setting, proc):
        yield from _sink_moves(setting, world, p, sink, view)
    if proc.hand:
        yield ("seal", p, proc.hand), seal_epoch(setting, world, p, proc.hand)
        return
    for seal_id, _ in seal_choices(setting, world, p):
        yield ("seal", p, seal_id), seal_epoch(setting, world, p, seal_id)
        if world.budget.failed_seals:
            yield from fail_seal(setting, world, p, seal_id)
        if not setting.safe.seal_before_delivery:
            yield from _deliver_unsealed(setting, world, p, seal_id)
    yield from housekeeping(setting, world, p, view)


def _deliver_unsealed(setting: Setting, world: World, p: int, seal_id: int) -> Iterator[Move]:
    proc, seal = world.procs[p], seal_of(seal_id)
    for sink in members_of(setting, proc):
        lane = proc.lanes[sink]
        if lane.state == "open" and lane.cursor == seal.epoch - 1 and seal.rows >> sink & 1:
            request = Request("commit", sink, lane.token, seal_id, (seal_id,), None)
            state = take(setting, world.sinks[sink], request)
            if state is not None:
                after = put_sink(put_proc(world, p, proc._replace(hand=seal_id)), sink, state)
                label = ("commit", p, sink, seal.epoch, seal.epoch, lane.token, seal_id, "ok")
                yield label, put_lane(after, p, sink, Lane("open", seal_id, seal.epoch, 0))


def housekeeping(setting: Setting, world: World, p: int, view: View) -> Iterator[Move]:
    """Settle, free, drain."""
    through = settle(setting, world, p)
    if through > view.settled:
        yield ("settle", p, through), append(setting, world, p, ("settle", through))
    ended = drain(setting, world, p)
    if ended is not None:
        yield ("drain", p), ended
    if setting.scenario.frees:
        after = free(setting, world, p)
        if after is not None:
            yield ("free", p), after
