"""Steps of a writer of a Hudi table on an object store: open, write, commit. Each is one request."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from spec.hudi_store_world import (
    Decided,
    Instant,
    Proc,
    Request,
    Setting,
    World,
    complete,
    is_void,
    number_of,
    put,
    put_object,
    roll_back,
    token_of,
)
from spec.journal import Label

__all__ = ["Move", "own_moves"]

Move = tuple[Label, World]

_NAMELESS: Instant = (-1, 0)


def own_moves(setting: Setting, world: World, p: int) -> Iterator[Move]:
    """What process p may do next. The first is what happens in a calm run."""
    yield from _STEPS[world.procs[p].at](setting, world, p)


def _late(world: World, p: int, request: Request) -> Iterator[Move]:
    """The answer is lost and the process opens again."""
    if world.delays:
        net = tuple(sorted((*world.net, request), key=repr))
        after = world._replace(net=net, delays=world.delays - 1)
        yield ("unknown", p, request.kind), put(after, p, _reopened(world.procs[p]))


def _reopened(proc: Proc) -> Proc:
    return Proc(proc.flow, token=proc.token)


def _completes(setting: Setting, world: World, p: int, what: Decided, proc: Proc) -> Iterator[Move]:
    after = put(world, p, proc)._replace(table=complete(setting, world.table, what))
    yield ("complete", p, what.instant), after
    yield from _late(world, p, Request("complete", p, what))


def _rolls_back(world: World, p: int, instant: Instant, proc: Proc) -> Iterator[Move]:
    yield ("roll back", p, instant), put(world, p, proc)._replace(table=roll_back(world.table, instant))
    yield from _late(world, p, Request("roll back", p, instant=instant))


# ----------------------------------------------------------------------------------------------------------------- open


def _read(setting: Setting, world: World, p: int) -> Iterator[Move]:
    proc = world.procs[p]
    if not setting.safe.list_after_read and proc.listed == ():
        yield from _listing(world, p, at="read again")
        return
    yield from _reading(setting, world, p)


def _reading(setting: Setting, world: World, p: int) -> Iterator[Move]:
    proc = world.procs[p]
    is_next = setting.safe.list_after_read and setting.safe.list_before_fence
    at = "list" if is_next else "fence"
    yield ("read object", p), put(world, p, proc._replace(at=at, is_current=True, found=world.table.decided))


def _list(setting: Setting, world: World, p: int) -> Iterator[Move]:
    proc = world.procs[p]
    if proc.found and is_void(setting, world.table, proc.found):
        world = put(world, p, proc._replace(found=None))
    yield from _listing(world, p, at="fence" if setting.safe.list_before_fence else "check again")


def _listing(world: World, p: int, *, at: str) -> Iterator[Move]:
    yield ("list", p), put(world, p, world.procs[p]._replace(at=at, listed=world.table.pending))


def _fence(setting: Setting, world: World, p: int) -> Iterator[Move]:
    proc = world.procs[p]
    safe = setting.safe
    decided = world.table.decided
    if proc.is_current or not safe.fence_at_open:
        after = put_object(world, decided, p) if safe.fence_at_open else world
        yield ("fence", p), _fenced(setting, after, p)
        yield from _late(world, p, Request("fence", p, decided, is_current=True))
    else:
        yield ("fence refused", p), put(world, p, _reopened(proc))


def _fenced(setting: Setting, world: World, p: int) -> World:
    proc, safe = world.procs[p], setting.safe
    known = proc.listed if safe.list_before_fence else world.table.pending
    if proc.found and proc.found.instant in known and safe.forward_at_open:
        return put(world, p, proc._replace(at="forward"))
    return put(world, p, proc._replace(at="roll back" if safe.list_before_fence else "list"))


def _forward(setting: Setting, world: World, p: int) -> Iterator[Move]:
    proc = world.procs[p]
    assert proc.found
    at = "roll back" if setting.safe.list_before_fence else "list"
    yield from _completes(setting, world, p, proc.found, proc._replace(at=at))


def _check_again(_: Setting, world: World, p: int) -> Iterator[Move]:
    proc = world.procs[p]
    yield ("read object", p), put(world, p, proc._replace(at="roll back") if proc.is_current else _reopened(proc))


def _roll_back(setting: Setting, world: World, p: int) -> Iterator[Move]:
    proc = world.procs[p]
    kept = proc.found.instant if proc.found and setting.safe.decided_kept else None
    left = [instant for instant in proc.listed if instant != kept]
    if left:
        after = tuple(instant for instant in proc.listed if instant != left[0])
        yield from _rolls_back(world, p, left[0], proc._replace(listed=after))
        return
    table, found = world.table, proc.found
    token = token_of(table, proc.flow)
    if found and found.flow == proc.flow and found.instant in table.pending:
        world = world._replace(table=table._replace(wrong="open tells a token that what is decided will yet move"))
    yield ("read token", p, token), put(world, p, _ready(setting, proc.flow, token))


def _ready(setting: Setting, flow: int, token: int) -> Proc:
    is_done = token == setting.scenario.epochs[flow]
    return Proc(flow, at="drained" if is_done else "write", token=token)


def _drained(*_: object) -> Iterator[Move]:
    return iter(())


# ----------------------------------------------------------------------------------------------------- write and commit


def _write(_: Setting, world: World, p: int) -> Iterator[Move]:
    proc = world.procs[p]._replace(at="look", is_current=True, found=world.table.decided)
    yield ("read object", p), put(world, p, proc)


def _look(setting: Setting, world: World, p: int) -> Iterator[Move]:
    proc, table = world.procs[p], world.table
    found = proc.found
    is_left = found is not None and found.instant in table.pending and not is_void(setting, table, found)
    is_left = is_left and setting.safe.forward_at_write
    if not setting.safe.loaded_after_forward:
        proc = proc._replace(own=_draft(setting, world, p, _NAMELESS))
    after = proc._replace(at="finish") if is_left else proc._replace(at="compare", found=None)
    yield ("look", p), put(world, p, after)


def _draft(setting: Setting, world: World, p: int, instant: Instant) -> Decided:
    """What is decided about an instant, as the table is now: what it is written on, and all tokens."""
    proc, table = world.procs[p], world.table
    tokens = [token_of(table, flow) for flow in range(len(setting.scenario.epochs))]
    tokens[proc.flow] = proc.token + 1
    return Decided(instant, proc.flow, proc.token + 1, number_of(table), tuple(tokens))


def _finish(setting: Setting, world: World, p: int) -> Iterator[Move]:
    proc = world.procs[p]
    assert proc.found
    yield from _completes(setting, world, p, proc.found, proc._replace(at="compare", found=None))


def _compare(setting: Setting, world: World, p: int) -> Iterator[Move]:
    proc = world.procs[p]
    if setting.safe.compare_at_write and token_of(world.table, proc.flow) != proc.token:
        yield ("refused", p), put(world, p, _reopened(proc))
    else:
        yield ("compare", p), put(world, p, proc._replace(at="create"))


def _create(setting: Setting, world: World, p: int) -> Iterator[Move]:
    proc, table = world.procs[p], world.table
    instant = _new_name(setting, world, p)
    own = (proc.own or _draft(setting, world, p, instant))._replace(instant=instant)
    pending = tuple(sorted({*table.pending, instant}))
    after = put(world, p, proc._replace(at="check", own=own))
    yield ("create", p, instant), after._replace(table=table._replace(pending=pending))
    yield from _late(world, p, Request("create", p, instant=instant))


def _new_name(setting: Setting, world: World, p: int) -> Instant:
    """The first of this process's names that nothing refers to; the first of all where clocks alone make names."""
    table = world.table
    used = {*table.pending, *(commit.instant for commit in table.commits)}
    used |= {instant for proc in world.procs for instant in proc.listed}
    used |= {what.instant for proc in world.procs for what in (proc.found, proc.own) if what}
    used |= {request.instant for request in world.net if request.instant}
    used |= {what.instant for what in (table.decided, *(request.what for request in world.net)) if what}
    if not setting.safe.names_unique:
        return (0, len(table.commits))
    return next((p, count) for count in range(99) if (p, count) not in used)


def _check(setting: Setting, world: World, p: int) -> Iterator[Move]:
    proc, table, safe = world.procs[p], world.table, setting.safe
    own = proc.own
    assert own
    if safe.compare_at_commit and token_of(table, proc.flow) != proc.token:
        yield ("refused", p), put(world, p, _reopened(proc))
    elif safe.pending_at_commit and own.instant not in table.pending:
        yield ("gone", p), put(world, p, _ready(setting, proc.flow, proc.token))
    else:
        tokens = _draft(setting, world, p, own.instant).tokens if safe.loaded_after_forward else own.tokens
        is_current = proc.is_current or not safe.etag_of_write
        after = proc._replace(at="decide", own=own._replace(tokens=tokens), is_current=is_current)
        yield ("check", p), put(world, p, after)


def _decide(setting: Setting, world: World, p: int) -> Iterator[Move]:
    proc = world.procs[p]
    if not proc.is_current and setting.safe.commit_on_etag:
        at = "read back" if setting.safe.read_back else "abandon"
        yield ("precondition failed", p), put(world, p, proc._replace(at=at))
        return
    after = put_object(world, proc.own, p)
    yield ("decide", p), put(after, p, proc._replace(at="complete", is_current=False))
    request = Request("decide", p, proc.own, is_current=True)
    yield from _late(world, p, request)
    for _, repeated in _late(world, p, request):
        yield ("asks again", p), put(repeated, p, proc)


def _read_back(setting: Setting, world: World, p: int) -> Iterator[Move]:
    """The put was refused: perhaps because it had landed when it was first sent."""
    proc, decided = world.procs[p], world.table.decided
    assert proc.own
    is_ours = decided is not None and decided.instant == proc.own.instant
    if not setting.safe.instant_compared:
        is_ours = proc.is_mine
    at = "complete" if is_ours else "look back" if setting.safe.timeline_read_back else "abandon"
    yield ("read back", p, is_ours), put(world, p, proc._replace(at=at, is_mine=False))


def _look_back(setting: Setting, world: World, p: int) -> Iterator[Move]:
    """Another one is decided now: ours is completed, or will never be."""
    proc = world.procs[p]
    own = proc.own
    assert own
    is_there = any(commit.instant == own.instant for commit in world.table.commits)
    after = _ready(setting, proc.flow, own.epoch) if is_there else proc._replace(at="abandon")
    yield ("look back", p, is_there), put(world, p, after)


def _abandon(setting: Setting, world: World, p: int) -> Iterator[Move]:
    proc = world.procs[p]
    assert proc.own
    yield from _rolls_back(world, p, proc.own.instant, _ready(setting, proc.flow, proc.token))


def _complete(setting: Setting, world: World, p: int) -> Iterator[Move]:
    proc = world.procs[p]
    assert proc.own
    yield from _completes(setting, world, p, proc.own, _ready(setting, proc.flow, proc.own.epoch))


_STEPS: dict[str, Callable[[Setting, World, int], Iterator[Move]]] = {
    "read": _read, "read again": _reading, "list": _list, "fence": _fence, "forward": _forward,
    "check again": _check_again, "roll back": _roll_back, "drained": _drained,
    "write": _write, "look": _look, "finish": _finish, "compare": _compare, "create": _create,
    "check": _check, "decide": _decide, "read back": _read_back, "look back": _look_back, "abandon": _abandon,
    "complete": _complete,
}  # fmt: skip
