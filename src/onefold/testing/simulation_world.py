"""The simulated outside: journals, sinks, and the judge who looks at them. No onefold code decides anything here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from onefold.errors import Fenced
from onefold.protocols import JournalRecord
from onefold.types import EpochNumber, Guarantee, Handle, RecordNumber, Token, TokenMove

__all__ = ["Chance", "Delivery", "Judge", "PromiseBroken", "Row", "SimulatedJournal", "SimulatedSink", "wants"]

Row = tuple[int, str]
"""A position of the input, and the seal id of the epoch in which the row was computed."""


class Chance(Protocol):
    """All randomness of a schedule; random.Random(seed) is one."""

    def random(self) -> float:
        """At least 0, below 1."""
        ...


class PromiseBroken(Exception):
    """The protocol did what it promises never to do."""


def wants(place: int, position: int) -> bool:
    """Whether the sink at this place gets a row for the position: so some epochs are empty for some sinks."""
    return (True, position % 3 != 0, position % 2 == 0, position % 4 == 1)[place]


class SimulatedJournal:
    """A numbered log that appends if absent. A copy or a restored backup is another object: another file."""

    def __init__(self, name: str, place: str) -> None:
        self.id = name
        self.place = place
        self.records: list[JournalRecord] = []
        self.dropped = 0
        self.freed = 0

    def copy(self, place: str) -> SimulatedJournal:
        """The same history as another file, in this place."""
        copy = SimulatedJournal(self.id, place)
        copy.records, copy.dropped, copy.freed = list(self.records), self.dropped, self.freed
        return copy

    def append(self, number: RecordNumber, record: JournalRecord) -> None:
        """Raises Fenced unless the number is the next one."""
        if number != len(self.records) + 1:
            raise Fenced(found=f"record {len(self.records)}", expected=f"record {number - 1} to be the last")
        self.records.append(record)

    def read(self, start: RecordNumber) -> Iterator[tuple[RecordNumber, JournalRecord]]:
        """Records that were not dropped, in order."""
        for number in range(max(start, self.dropped + 1), len(self.records) + 1):
            yield RecordNumber(number), self.records[number - 1]

    def last_number(self) -> RecordNumber:
        """The number of the last record."""
        return RecordNumber(len(self.records))

    def strip(self, before: RecordNumber, *, prefix: str) -> None:
        """Payloads are not in the records here; `freed` says which are gone."""

    def drop_before(self, number: RecordNumber) -> None:
        """Forget records below."""
        self.dropped = max(self.dropped, number - 1)

    def close(self) -> None:
        """Nothing is open."""


@dataclass(frozen=True)
class Delivery:
    """A commit on its way. handles: the seals of the prepared rows that it commits, where they lie in the sink."""

    rows: tuple[Row, ...]
    move: TokenMove | None
    guarantee: Guarantee
    handles: tuple[str, ...] = ()


@dataclass
class SimulatedSink:
    """A system that holds rows and a token, moves both in one step, and prepares rows under handles.

    floating: deliveries that nobody knows the fate of; they may land until the sink is opened again.
    stages: rows are prepared here and not in the spool. locks: they hold the token fast, as a prepared transaction
    does; else they are files that nobody sees yet. beside: sinks whose prepared rows are in the same transactions: each
    lists those of all, and aborts them for all.
    """

    name: str
    place: int
    token: Token | None = None
    rows: list[Row] = field(default_factory=list)
    handles: dict[str, tuple[Handle, TokenMove | None]] = field(default_factory=dict)
    floating: list[Delivery] = field(default_factory=list)
    backups: list[tuple[Token | None, list[Row], dict[str, tuple[Handle, TokenMove | None]]]] = field(
        default_factory=list
    )
    is_down: bool = False
    stages: bool = False
    locks: bool = False
    poison: int = -1
    beside: Sequence[SimulatedSink] = ()

    def listed(self) -> tuple[Handle, ...]:
        """What is prepared here, by whomever."""
        handles = [handle for sink in (self, *self.beside) for handle, _ in sink.handles.values()]
        return tuple({handle.seal: handle for handle in handles}.values())

    def forget(self, seal: str) -> None:
        """Abort what is prepared for an epoch."""
        for sink in (self, *self.beside):
            sink.handles.pop(seal, None)

    def is_held(self, handles: tuple[str, ...]) -> bool:
        """Whether other prepared rows hold the token fast."""
        return self.locks and any(other not in handles for other in self.handles)

    def land(self, delivery: Delivery, judge: Judge) -> bool:
        """Do it in one atomic step. Returns False when the token or the handles are not what the delivery expects."""
        move = delivery.move
        if (move is not None and self.token != move.expected) or self.is_held(delivery.handles):
            return False
        if any(handle not in self.handles for handle in delivery.handles):
            return False
        for handle in delivery.handles:
            _, prepared = self.handles.pop(handle)
            if self.locks and prepared != move:
                raise PromiseBroken(f"{self.name}: prepared for {prepared}, committed as {move}")
        judge.landing(self, delivery)
        self.rows += delivery.rows
        if move is not None:
            self.token = move.new
        return True


@dataclass(frozen=True)
class Sealed:
    """What the judge wrote down when a seal landed."""

    epoch: EpochNumber
    previous: str
    rows: Mapping[str, tuple[int, ...]]
    laws: Mapping[str, Guarantee]


class Judge:
    """Looks at what was sealed and at what the sinks hold, and at nothing that the protocol concludes from it."""

    def __init__(self, inputs: int, *, is_forked: bool = False) -> None:
        self.inputs = inputs
        self.is_forked = is_forked
        self.was_restored: set[str] = set()
        self.sealed: dict[str, Sealed] = {}
        self.law: dict[tuple[str, int], Guarantee] = {}

    def sealing(self, seal: str, what: Sealed) -> None:
        """A seal record landed in a journal. Raises PromiseBroken when it does not continue its predecessor."""
        before = self.sealed.get(what.previous)
        if what.epoch != (before.epoch if before else 0) + 1 or seal in self.sealed:
            raise PromiseBroken(f"seal {seal} of epoch {what.epoch} does not follow {what.previous}")
        self.sealed[seal] = what
        for sink, positions in what.rows.items():
            for position in positions:
                self.law[sink, position] = what.laws[sink]

    def landing(self, sink: SimulatedSink, delivery: Delivery) -> None:
        """Rows become visible. Raises PromiseBroken unless exactly the rows between the two tokens do."""
        if any(seal not in self.sealed for _, seal in delivery.rows):
            raise PromiseBroken(f"{sink.name}: rows {delivery.rows} show before they are sealed")
        if delivery.guarantee is Guarantee.AT_MOST_ONCE:
            there = {position for position, _ in sink.rows}
            if any(position in there for position, _ in delivery.rows):
                raise PromiseBroken(f"{sink.name}: {delivery.rows} a second time, at most once was promised")
        if delivery.guarantee is not Guarantee.EXACTLY_ONCE:
            return
        if delivery.move is None:
            raise PromiseBroken(f"{sink.name}: rows without a token")
        due = self.rows_between(sink.name, delivery.move)
        if list(delivery.rows) != due:
            raise PromiseBroken(f"{sink.name}: {delivery.move} brings {delivery.rows}, due are {due}")

    def rows_between(self, sink: str, move: TokenMove) -> list[Row]:
        """What was sealed for the sink between two tokens. Raises PromiseBroken when they are of two histories."""
        stop = move.expected.seal if move.expected else None
        at, due = str(move.new.seal), list[Row]()
        if at not in self.sealed:
            raise PromiseBroken(f"{sink}: a token of epoch {move.new.epoch}, which is not sealed")
        while at in self.sealed and at != stop:
            what = self.sealed[at]
            if what.laws.get(sink) is Guarantee.EXACTLY_ONCE:
                due[:0] = [(position, at) for position in what.rows.get(sink, ())]
            at = what.previous
        if stop is not None and at != stop:
            raise PromiseBroken(f"{sink}: the token moves from {move.expected} to another history")
        return due

    def settling(self, end: int, sinks: Sequence[SimulatedSink], given_up: Mapping[str, int]) -> None:
        """Sources may forget everything before `end`. Raises PromiseBroken when a sink lacks a row of that."""
        for sink in sinks:
            if not self.is_forked and sink.name not in self.was_restored:
                self._demand(sink, end, given_up.get(sink.name, 0))

    def ended(
        self, sinks: Sequence[SimulatedSink], given_up: Mapping[str, int], *, is_member: Callable[[str], bool]
    ) -> None:
        """Drained: everything is where it belongs, once, in order. is_member: sinks that were there all the time."""
        for sink in sinks:
            self._demand(sink, self.inputs, given_up.get(sink.name, 0))
            due = [position for position in range(self.inputs) if wants(sink.place, position)]
            sealed = [position for position in due if (sink.name, position) in self.law]
            if is_member(sink.name) and sealed != due:
                raise PromiseBroken(f"{sink.name}: sealed were {sealed}, the input has {due}")

    def _demand(self, sink: SimulatedSink, end: int, given_up: int) -> None:
        found = Counter(position for position, _ in sink.rows)
        order = [position for position, _ in sink.rows if self.law.get((sink.name, position)) is Guarantee.EXACTLY_ONCE]
        if order != sorted(set(order)):
            raise PromiseBroken(f"{sink.name}: doubled or out of order: {order}")
        missing = 0
        for position in range(end):
            law = self.law.get((sink.name, position))
            if law is Guarantee.AT_MOST_ONCE:
                missing += not found[position]
            elif law is not None and not found[position]:
                raise PromiseBroken(f"{sink.name}: lost {position}, {law} was promised")
        if missing > given_up:
            raise PromiseBroken(f"{sink.name}: {missing} rows lost, {given_up} counted as given up")
