"""A Hudi table on an object store, its writers, and what each request brings about. Immutable tuples."""

from __future__ import annotations

from typing import NamedTuple

from spec.hudi_store_safeguards import StoreSafeguards

__all__ = [
    "Decided", "Instant", "Proc", "Request", "Setting", "StoreScenario", "Table", "World", "complete", "is_void",
    "land", "number_of", "put", "put_object", "roll_back", "token_of", "tokens_of",
]  # fmt: skip

Instant = tuple[int, int]
"""Who began it, and which of his: two that differ are two names."""


class StoreScenario(NamedTuple):
    """flows: of each process. epochs: of each flow. delays: requests whose answer is lost. restores: begun by others.

    is_alone: whoever restores first ended all writers, and what they had asked for was carried out or is lost.
    """

    flows: tuple[int, ...]
    epochs: tuple[int, ...]
    delays: int = 0
    restores: int = 0
    is_alone: bool = True


class Setting(NamedTuple):
    """What is searched."""

    scenario: StoreScenario
    safe: StoreSafeguards


class Decided(NamedTuple):
    """An instant and the metadata that completes it. base: commits there were when its files were written."""

    instant: Instant
    flow: int
    epoch: int
    base: int
    tokens: tuple[int, ...]

    @property
    def number(self) -> int:
        """One more than that of the commit before."""
        return self.base + 1


class Table(NamedTuple):
    """undoing: the commit of which a restore has deleted some files, and which it has not yet removed.

    wrong: what no step may do, and one did.
    """

    decided: Decided | None = None
    pending: tuple[Instant, ...] = ()
    commits: tuple[Decided, ...] = ()
    undoing: Instant | None = None
    wrong: str = ""


class Proc(NamedTuple):
    """A writer. at: the step that is next.

    is_current: the ETag it remembers is that of the object. is_mine: the object is what it put. found: the decided one
    that it read. listed: what was pending. token: what it was told. own: what it writes.
    """

    flow: int
    at: str = "read"
    is_current: bool = False
    is_mine: bool = False
    found: Decided | None = None
    listed: tuple[Instant, ...] = ()
    token: int = 0
    own: Decided | None = None


class Request(NamedTuple):
    """Something asked for by one who no longer waits for it. It is carried out at any time, or never."""

    kind: str
    sender: int
    what: Decided | None = None
    instant: Instant | None = None
    is_current: bool = False


class World(NamedTuple):
    """All there is."""

    table: Table
    procs: tuple[Proc, ...]
    net: tuple[Request, ...]
    delays: int
    restores: int


def tokens_of(table: Table) -> tuple[int, ...]:
    """Of all flows, by the newest commit."""
    newest = max(table.commits, key=lambda commit: commit.number, default=None)
    return newest.tokens if newest else ()


def token_of(table: Table, flow: int) -> int:
    """Of one; 0 for none."""
    return dict(enumerate(tokens_of(table))).get(flow, 0)


def number_of(table: Table) -> int:
    """That of the newest commit."""
    return max((commit.number for commit in table.commits), default=0)


def complete(setting: Setting, table: Table, what: Decided) -> Table:
    """Create the object that shows an instant. Twice under one name is once."""
    if any(commit.instant == what.instant for commit in table.commits):
        if not setting.safe.completion_decided:
            return table._replace(wrong="an instant is completed twice, under two times")
        return table
    if what.instant not in table.pending or what.instant == table.undoing:
        return table._replace(wrong="an instant is completed whose files are gone")
    if what.base != number_of(table):
        return table._replace(wrong="a commit hides what another one wrote to the same files")
    pending = tuple(instant for instant in table.pending if instant != what.instant)
    after = table._replace(pending=pending, commits=(*table.commits, what))
    if any(old > token_of(after, flow) for flow, old in enumerate(tokens_of(table))):
        return after._replace(wrong="a token moves backwards")
    return after


def roll_back(table: Table, instant: Instant) -> Table:
    """Delete the files of an instant and its place in the timeline."""
    if any(commit.instant == instant for commit in table.commits):
        return table._replace(wrong="a completed instant is rolled back")
    pending = tuple(other for other in table.pending if other != instant)
    return table._replace(pending=pending, undoing=None if table.undoing == instant else table.undoing)


def put_object(world: World, decided: Decided | None, by: int) -> World:
    """The object has another ETag: puts on those of before are refused from now on. by: whose content it is."""
    procs = [proc._replace(is_current=False, is_mine=False) for proc in world.procs]
    procs[by] = procs[by]._replace(is_current=True, is_mine=True)
    net = tuple(dict.fromkeys(request._replace(is_current=False) for request in world.net))
    return world._replace(table=world.table._replace(decided=decided), procs=tuple(procs), net=net)


def land(setting: Setting, world: World, request: Request) -> World:
    """A late request is carried out, or refused."""
    left = list(world.net)
    left.remove(request)
    world = world._replace(net=tuple(left))
    table = world.table
    if request.kind == "create" and request.instant:
        return world._replace(table=table._replace(pending=tuple(sorted({*table.pending, request.instant}))))
    if request.kind == "roll back" and request.instant:
        return world._replace(table=roll_back(table, request.instant))
    if request.kind == "complete" and request.what:
        return world._replace(table=complete(setting, table, request.what))
    if not request.is_current and (request.kind == "fence" or setting.safe.commit_on_etag):
        return world
    proc = world.procs[request.sender]
    waits = request.kind == "decide" and proc.own == request.what
    after = put_object(world, request.what, request.sender)
    return put(after, request.sender, proc._replace(is_current=False, is_mine=waits))


def put(world: World, p: int, proc: Proc) -> World:
    """The world with another state of process p."""
    return world._replace(procs=(*world.procs[:p], proc, *world.procs[p + 1 :]))


def is_void(setting: Setting, table: Table, decided: Decided) -> bool:
    """Whether a restore removed what a decided instant stands on, or has begun to remove it."""
    has_lost_its_base = decided.number > number_of(table) + 1 and setting.safe.number_compared
    return has_lost_its_base or (table.undoing == decided.instant and setting.safe.undoing_seen)
