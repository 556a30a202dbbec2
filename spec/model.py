"""What the model's world consists of: journals, processes, sinks, and commits on their way. Immutable tuples.

A seal id stands for its whole history: it is the number of an interned (predecessor, maker, positions, rows), and
every maker seals an epoch at most once, so two ids are equal exactly where two random 128-bit ids would be. That
names ids independently of the order in which processes drew them.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

from spec.safeguards import Safeguards

__all__ = [
    "ALIVE", "Budget", "Disk", "Handle", "Lane", "Proc", "Record", "Request", "Scenario", "Seal", "Setting",
    "SinkState", "View", "World", "chain_to", "epoch_of", "intern_seal", "read_log", "seal_of",
]  # fmt: skip

Record = tuple[Any, ...]
"""("start", members, place) | ("seal", id) | ("settle", epoch) | ("attempt", sink, first, last) |
("outcome", sink, last, epochs given up) | ("void",): forgotten by a mutant."""


class Seal(NamedTuple):
    """pred: the seal id before; for epoch 1 minus the journal's id. rows: bit s says that sink s gets rows."""

    pred: int
    maker: int
    epoch: int
    first: int
    stop: int
    rows: int


_SEALS: list[Seal] = [Seal(0, 0, 0, 0, 0, 0)]
_IDS: dict[Seal, int] = {}


def intern_seal(seal: Seal) -> int:
    """The id of a seal, from 1; 0 stands for no token."""
    found = _IDS.get(seal)
    if found is None:
        found = _IDS[seal] = len(_SEALS)
        _SEALS.append(seal)
    return found


def seal_of(seal_id: int) -> Seal:
    """The inverse of `intern_seal`."""
    return _SEALS[seal_id]


def epoch_of(seal_id: int) -> int:
    """The epoch of a token; 0 for none."""
    return _SEALS[seal_id].epoch


@cache
def chain_to(seal_id: int) -> tuple[int, ...]:
    """The seal ids from epoch 1 to this one."""
    chain: list[int] = []
    while seal_id > 0:
        chain.append(seal_id)
        seal_id = _SEALS[seal_id].pred
    return tuple(reversed(chain))


class Disk(NamedTuple):
    """A journal with its spool: payloads up to `freed` are gone, headers before `pruned` are gone.

    marked: together, an epoch may be prepared and undecided. Only kept where a later version has other sinks.
    """

    journal: int
    place: int
    log: tuple[Record, ...]
    freed: int
    pruned: int
    marked: bool = False


class Lane(NamedTuple):
    """What a process knows of one sink.

    state: closed (token unknown) | open | half (rows written, token not: a mutant) | trying (attempt recorded) |
    done (acknowledged, outcome not recorded) | lost (given up, outcome not recorded).
    token: the expected one. cursor: epochs through it are delivered. upto: the end of the range in hand.
    """

    state: str
    token: int
    cursor: int
    upto: int


class Proc(NamedTuple):
    """A process. Once superseded it may go on at any time with stale memory; killed is: never goes on.

    pc: new -> read -> run -> drained | fatal, or abort (together: a prepare failed). log: the journal as remembered.
    position: where it reads next. hand: together, the open epoch's seal id. ready, opened, listed: sinks that
    prepared, that were opened once, whose handles were listed. why: the reason of a fatal end.
    """

    disk: int
    maker: int
    members: int
    pc: str = "new"
    inc: int = 0
    log: tuple[Record, ...] = ()
    position: int = 0
    lanes: tuple[Lane, ...] = ()
    hand: int = 0
    ready: int = 0
    opened: int = 0
    listed: int = 0
    why: str = ""


ALIVE = ("new", "read", "run", "abort")


class Handle(NamedTuple):
    """A native prepared handle: rows and token move (expected -> seal), invisible until committed."""

    journal: int
    inc: int
    seal: int
    expected: int


class SinkState(NamedTuple):
    """table: payloads applied, by seal id, in order (sorted without tokens); negative: computed again by a mutant."""

    token: int
    table: tuple[int, ...]
    handles: tuple[Handle, ...]


class Request(NamedTuple):
    """A request whose answer the process gave up: it may still take effect at any time, or never."""

    kind: str
    sink: int
    expected: int
    new: int
    rows: tuple[int, ...]
    handle: Handle | None


class Budget(NamedTuple):
    """How many faults of each kind may still happen."""

    starts: int = 0
    delays: int = 0
    journal_restores: int = 0
    copies: int = 0
    fresh: int = 0
    sink_restores: int = 0
    failed_seals: int = 0
    failed_prepares: int = 0


class World(NamedTuple):
    """One state of everything. drained: heads of processes that reported a clean end. allowed: see properties."""

    disks: tuple[Disk, ...]
    procs: tuple[Proc, ...]
    sinks: tuple[SinkState, ...]
    net: tuple[Request, ...]
    budget: Budget
    drained: tuple[int, ...]
    allowed: tuple[int, ...]


class Scenario(NamedTuple):
    """The bounds of one search.

    routes: for each way the computation may turn out, by event, a bit set of the sinks that get rows. cut: most events
    in an epoch. guarantees: by sink. versions: of the flow, each a bit set of its sinks; it may change with every
    start, also back; none: all sinks, always. A sink that gets another target is one that leaves and one that joins.
    zombies: older processes go on.
    frees: payloads may be freed. locks: together, a prepare holds the token until the decision. fences: once a
    sink was opened, no request made before takes effect there.
    """

    name: str
    about: str
    routes: tuple[tuple[int, ...], ...]
    guarantees: tuple[str, ...]
    budget: Budget
    cut: int = 1
    together: bool = False
    versions: tuple[int, ...] = ()
    zombies: bool = True
    frees: bool = True
    locks: bool = True
    fences: bool = False

    @property
    def events(self) -> int:
        """How many events the input has."""
        return len(self.routes[0])

    @property
    def choices(self) -> tuple[int, ...]:
        """The bit sets of sinks that a process may start with, the first version's first."""
        return self.versions or ((1 << len(self.guarantees)) - 1,)


class Setting(NamedTuple):
    """A scenario under some safeguards."""

    scenario: Scenario
    safe: Safeguards


class View(NamedTuple):
    """What a log says. joins: by sink, epochs sealed before it last joined, -1 never. bases: the token that
    it had then, should it have moved it to the end before it left. pending: attempts without outcome."""

    chain: tuple[int, ...]
    broken: str
    settled: int
    joins: tuple[int, ...]
    bases: tuple[int, ...]
    pending: tuple[tuple[int, int] | None, ...]
    done: tuple[int, ...]
    lost: tuple[int, ...]
    starts: tuple[tuple[int, int], ...]

    @property
    def head(self) -> int:
        """The newest sealed epoch."""
        return len(self.chain)


_MOST_SINKS = 8


@cache
def read_log(log: tuple[Record, ...], journal: int) -> View:
    """Interpret a log. A record that does not follow makes it broken, and what comes after it is not read."""
    chain: list[int] = []
    settled, broken = 0, ""
    joins, done, lost = [-1] * _MOST_SINKS, [0] * _MOST_SINKS, [0] * _MOST_SINKS
    pending: list[tuple[int, int] | None] = [None] * _MOST_SINKS
    starts: list[tuple[int, int]] = []
    members, bases = 0, [0] * _MOST_SINKS
    for number, record in enumerate(log, 1):
        kind = record[0]
        if kind == "start":
            starts.append((number, record[2]))
            for sink in range(_MOST_SINKS):
                if record[1] & ~members >> sink & 1:
                    joins[sink] = len(chain)
                elif members & ~record[1] >> sink & 1 and len(chain) > joins[sink]:
                    bases[sink] = chain[-1]
            members = record[1]
        elif kind == "seal":
            broken = _misfit(record[1], chain, journal)
            if broken:
                break
            chain.append(record[1])
        elif kind == "settle":
            settled = record[1]
        elif kind == "attempt":
            pending[record[1]] = (record[2], record[3])
        elif kind == "outcome":
            done[record[1]] = max(done[record[1]], record[2])
            lost[record[1]] += record[3]
            pending[record[1]] = None
        if max(settled, *done) > len(chain):
            broken = "a record speaks of an epoch that is not sealed"
            break
    return View(
        tuple(chain), broken, settled, tuple(joins), tuple(bases), tuple(pending), tuple(done), tuple(lost),
        tuple(starts),
    )  # fmt: skip


def _misfit(seal_id: int, chain: list[int], journal: int) -> str:
    seal = _SEALS[seal_id]
    before = chain[-1] if chain else -journal
    if seal.pred != before or seal.epoch != len(chain) + 1:
        return "a seal does not name its predecessor"
    if seal.first != (_SEALS[before].stop if chain else 0):
        return "a seal leaves a hole in the input"
    return ""
