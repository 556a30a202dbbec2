"""What is asked of a sink, and what is true if killed inside."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import pyarrow as pa

from onefold.types import (
    Binding,
    CommitClass,
    EpochHead,
    Handle,
    Mode,
    Receipt,
    Token,
    TokenMove,
)

__all__ = [
    "Check", "CheckResult", "Maintain", "Maintained", "Paced", "ReadBack", "RefusedRow", "Renewing", "Sifting", "Sink",
    "SinkPromise", "TwoPhase",
]  # fmt: skip


@dataclass(frozen=True)
class SinkPromise:
    """What a sink declares; `explain` and the engine read it.

    Args:
        commit_class: the strongest thing its commit can promise.
        modes: what it can do: "append", "upsert"; deletes: whether upserts may carry `_op` = "delete".
        can_prepare_together: its prepare holds until committed or aborted, so it may join commit="together".
        target: the fingerprint of where it writes; a change of it is a change of sink. No secrets.
        conditions: sentences that must be true for the promise to hold. conditions_together: those that
            commit="together" adds.
        rows_outlive_token: the token can be lost while the rows stay: then one that is gone says nothing about them.
        tokens: where the user has the token kept, if that can be elsewhere: it counts as a part of the fingerprint.
    """

    commit_class: CommitClass
    modes: frozenset[Mode]
    target: str
    deletes: bool = False
    can_prepare_together: bool = False
    conditions: tuple[str, ...] = ()
    conditions_together: tuple[str, ...] = ()
    rows_outlive_token: bool = False
    tokens: str = ""


@runtime_checkable
class Sink(Protocol):
    """A place to write to.

    Threads: `open`, `commit` and `close` are called by the sink's delivery thread; `prepare` by the sealing thread,
    possibly while a commit runs, and on Spark on another machine: so prepare shares no connection with commit.
    """

    @property
    def promise(self) -> SinkPromise:
        """What it declares. Pure; needs no connection."""
        ...

    def open(self, binding: Binding) -> Token | None:
        """Connect, fence what an earlier instance left in flight, and then read the token back.

        May block; may be called again after `close`: this is how an unknown outcome is read back. When it returns,
        no commit begun before can land any more, or it would be refused for its expected token.
        Also checks the target against binding.schema, mode and key (SchemaError, NotSupported).
        Raises SinkUnavailable. If killed inside: as before, or fenced.
        """
        ...

    def prepare(self, epoch: EpochHead, batches: Iterable[pa.RecordBatch]) -> Receipt:
        """Take the rows and make them durable but invisible: in binding.spool by default, or staged natively.

        Durable when it returns; of sinks that stage rows in one transaction (EpochHead.sinks), when the last returns.
        May block. If killed inside: nothing is visible. What was staged natively is named by journal, incarnation,
        epoch and seal, and listed by `handles` (TwoPhase): only the core can tell a leftover from rows that a seal
        still refers to, so `open` never removes staged rows; `abort` does, when asked.
        Raises SinkUnavailable, RowsRefused, DiskError; OutcomeUnknown when rows may be staged natively, or may come to
        be: then the sink stays in the flow until a later run has looked.
        """
        ...

    def commit(self, receipts: Sequence[Receipt], move: TokenMove | None) -> None:
        """Make the rows of the receipts (consecutive epochs, in order) visible and move the token with them.

        With a move: one atomic step, refused unless the token is move.expected. An empty list of receipts moves the
        token alone. Without a move (a weaker guarantee): just write.
        Returns only when durable. If killed inside: wholly done or not at all (with a move).
        Raises TokenRefused (nothing written), SinkUnavailable (surely nothing written), RowsRefused (nothing
        written), OutcomeUnknown; every other exception is taken for OutcomeUnknown.
        """
        ...

    def close(self) -> None:
        """Let go of connections and files. Never raises. May be called twice, and before `open`."""
        ...


@runtime_checkable
class TwoPhase(Protocol):
    """A sink that stages rows natively: its handles survive their process.

    Every sink whose prepare may return a native receipt has these verbs; commit="together" needs them too.
    """

    def handles(self) -> Sequence[Handle]:
        """All prepared and undecided handles of binding.flow at this target, of any journal and incarnation."""
        ...

    def abort(self, handle: Handle) -> None:
        """Remove one. Idempotent. If killed inside: it is there or not. Never touches a committed one."""
        ...


@dataclass(frozen=True)
class RefusedRow:
    """A row that the target does not take. row: its place in what was to be prepared. why: the target's words."""

    row: int
    why: str


@runtime_checkable
class Sifting(Protocol):
    """A two-phase sink that can prepare an epoch without the rows that its target refuses: see Binding.is_sifted.

    If one of two rows that exclude each other is refused, it is the later.
    """

    def refused(self) -> Sequence[RefusedRow]:
        """What was left out of the epoch prepared last, in order. Asked when every sink has prepared it. Pure."""
        ...


@runtime_checkable
class Renewing(Protocol):
    """A sink whose target forgets a token that is not written for a while."""

    @property
    def renew_every_seconds(self) -> float:
        """How often the engine is to ask for it while the sink is open; much shorter than the target remembers."""
        ...

    def renew(self) -> None:
        """Write the token again as it stands, on the delivery thread. May block. Before `open`: does nothing.

        If killed inside: the token stands as it stood. An error leaves the sink closed: the next commit says so.
        Raises SinkUnavailable, OutcomeUnknown, TokenRefused (a newer instance has opened the sink).
        """
        ...


@runtime_checkable
class Paced(Protocol):
    """A sink whose target grows with every commit, whatever its size: epochs are gathered for it."""

    @property
    def commit_every_seconds(self) -> float:
        """The time from one delivery to the next, 0 for no wait. Not waited for at the end of a run, nor when as many
        bytes wait as one delivery may take, nor under commit="together". Pure."""
        ...


@dataclass(frozen=True)
class Maintained:
    """What was done to a target. what: "compacted", "vacuumed", …; found: counts and sizes, for people."""

    what: str
    found: str


@runtime_checkable
class Maintain(Protocol):
    """A sink whose target wants to be looked after: small files joined, old ones and leftovers removed."""

    @property
    def maintain_every_seconds(self) -> float | None:
        """How often the engine does it between deliveries; None: only when asked, by `onefold maintain`. Pure."""
        ...

    def maintain(self, binding: Binding, *, is_dry: bool) -> Sequence[Maintained]:
        """Do what is due, beside a run or within one; is_dry: only say what would be done. May block for long.

        Never touches the token, rows that wait for their delivery, or what a reader may still read within the
        retention that the target declares. If killed inside: every part is done or not, and may be done again.
        Raises SinkUnavailable, SinkRefused.
        """
        ...


@dataclass(frozen=True)
class CheckResult:
    """One finding of `onefold doctor`: what was looked at, how it stands, what was found, what to do.

    prepared: handles that it is about; the journal knows which of them are decided.
    """

    what: str
    status: Literal["ok", "warning", "failed"]
    found: str = ""
    next_step: str = ""
    prepared: tuple[Handle, ...] = ()


@runtime_checkable
class Check(Protocol):
    """A source or sink that can tell whether a run would succeed, without side effects."""

    def check(self, binding: Binding | None) -> Sequence[CheckResult]:
        """Look, write nothing. Never raises for an operating error: that is a finding."""
        ...


@runtime_checkable
class ReadBack(Protocol):
    """A sink whose rows can be read back, with the token, in one snapshot."""

    def read_back(self, binding: Binding) -> tuple[pa.Table, Token | None]:
        """All rows and the token. May block."""
        ...
