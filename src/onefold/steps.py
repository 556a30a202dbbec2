"""What the core is told (events) and what it asks for (steps): plain data, so that runs can be recorded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from onefold.errors import OnefoldError
from onefold.types import EpochNumber, Handle, Positions, SealId, Token, TokenMove

__all__ = [
    "AbortHandle", "AppendAttempt", "AppendOutcome", "AppendSeal", "AppendSettle", "AttemptRecorded", "Committed",
    "CommitFailed", "CommitRefused", "CommitSink", "CommitUnknown", "DeliveryDue", "DrainAsked", "Drained",
    "EpochOffered", "Event", "FenceDue", "Halt", "HandleAborted", "OpenFailed", "OpenSink", "OutcomeRecorded",
    "PauseSink", "Prepare", "PrepareFailed", "Prepared", "RetryDue", "RowsWereRefused", "AppendFailed", "Sealed",
    "SettleDue", "Settled", "SinkOpened", "Step", "StopAsked", "StopSink", "TellSources",
]  # fmt: skip


# ----------------------------------------------------------------------------------------------------------- events


@dataclass(frozen=True)
class SinkOpened:
    """The sink is open and fenced; this is the token it holds, and the prepared handles found there."""

    sink: str
    token: Token | None
    handles: tuple[Handle, ...] = ()


@dataclass(frozen=True)
class OpenFailed:
    """The sink could not be opened; nothing happened."""

    sink: str
    error: OnefoldError


@dataclass(frozen=True)
class EpochOffered:
    """An epoch has been computed. rows: by sink, only sinks that get some. seal: fresh random id.

    last: sinks that take what the others refuse: they are prepared behind them, whether or not they have rows so far.
    """

    seal: SealId
    ends: Positions
    rows: Mapping[str, int]
    last: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Prepared:
    """The sink's rows of the open epoch are durable and invisible. is_staged: in its own system, not in our spool.

    is_part: not, of a sink that is prepared last and has no rows.
    """

    sink: str
    size_bytes: int
    is_staged: bool = False
    is_part: bool = True


@dataclass(frozen=True)
class PrepareFailed:
    """The sink's rows could not be prepared; what is left of them is not visible."""

    sink: str
    error: Exception


@dataclass(frozen=True)
class Sealed:
    """The seal record of the open epoch is durable."""


@dataclass(frozen=True)
class AppendFailed:
    """Appending a journal record failed; whether it is durable is unknown."""

    error: OnefoldError


@dataclass(frozen=True)
class Committed:
    """The sink acknowledged the delivery that it was asked for."""

    sink: str


@dataclass(frozen=True)
class CommitFailed:
    """The sink surely wrote nothing (unreachable, said no for now)."""

    sink: str
    error: OnefoldError


@dataclass(frozen=True)
class CommitUnknown:
    """No answer, or one that does not tell. is_timeout: it took too long, so deliver less at once."""

    sink: str
    error: OnefoldError
    is_timeout: bool = False


@dataclass(frozen=True)
class CommitRefused:
    """The sink compared the token and found another one."""

    sink: str
    found: Token | None


@dataclass(frozen=True)
class RowsWereRefused:
    """The sink refuses some of the rows for good; nothing was written."""

    sink: str
    error: OnefoldError


@dataclass(frozen=True)
class AttemptRecorded:
    """The attempt record is durable."""

    sink: str


@dataclass(frozen=True)
class OutcomeRecorded:
    """The outcome record is durable."""

    sink: str


@dataclass(frozen=True)
class Settled:
    """The settle record is durable."""


@dataclass(frozen=True)
class HandleAborted:
    """A prepared handle is gone."""

    sink: str


@dataclass(frozen=True)
class RetryDue:
    """The pause of a sink is over."""

    sink: str


@dataclass(frozen=True)
class DeliveryDue:
    """The last delivery to a sink that is paced was long enough ago."""

    sink: str


@dataclass(frozen=True)
class FenceDue:
    """Time to move tokens over empty tails."""


@dataclass(frozen=True)
class SettleDue:
    """Time to write down how far everything has been settled."""


@dataclass(frozen=True)
class DrainAsked:
    """No more epochs will be offered: deliver everything, move all tokens, settle, then say Drained."""


@dataclass(frozen=True)
class StopAsked:
    """As DrainAsked, but leave behind what a sink that is down cannot take."""


Event: TypeAlias = (
    SinkOpened | OpenFailed | EpochOffered | Prepared | PrepareFailed | Sealed | AppendFailed | Committed | CommitFailed
    | CommitUnknown | CommitRefused | RowsWereRefused | AttemptRecorded | OutcomeRecorded | Settled | HandleAborted
    | RetryDue | DeliveryDue | FenceDue | SettleDue | DrainAsked | StopAsked
)  # fmt: skip


# ------------------------------------------------------------------------------------------------------------ steps


@dataclass(frozen=True)
class OpenSink:
    """Close the sink if it is open, then open it: fences, and reads the token back."""

    sink: str


@dataclass(frozen=True)
class Prepare:
    """Make the open epoch's rows durable and invisible. move, sinks: only under commit="together", see EpochHead."""

    sink: str
    epoch: EpochNumber
    seal: SealId
    move: TokenMove | None = None
    sinks: tuple[str, ...] = ()


@dataclass(frozen=True)
class AppendSeal:
    """Append the seal of the open epoch: the decision."""

    epoch: EpochNumber
    seal: SealId
    previous: str


@dataclass(frozen=True)
class CommitSink:
    """Deliver the epochs first..last. move None: a weaker guarantee. Without rows in between: the token alone."""

    sink: str
    first: EpochNumber
    last: EpochNumber
    move: TokenMove | None


@dataclass(frozen=True)
class AppendAttempt:
    """Record that first..last are about to be tried once."""

    sink: str
    first: EpochNumber
    last: EpochNumber


@dataclass(frozen=True)
class AppendOutcome:
    """Record that the sink is through `last`; rows_given_up may be lost (an upper bound)."""

    sink: str
    last: EpochNumber
    rows_given_up: int = 0


@dataclass(frozen=True)
class AppendSettle:
    """Record that everything through `epoch` has taken effect everywhere."""

    epoch: EpochNumber


@dataclass(frozen=True)
class TellSources:
    """Everything before these positions is settled: tell the sources, free what is no longer kept."""

    epoch: EpochNumber
    ends: Positions


@dataclass(frozen=True)
class AbortHandle:
    """Remove a prepared handle of a dead incarnation, or (handle None) what the epoch of this seal prepared here."""

    sink: str
    handle: Handle | None
    seal: SealId | None = None


@dataclass(frozen=True)
class PauseSink:
    """Wait, longer with every failure, then say RetryDue."""

    sink: str
    failures: int
    error: OnefoldError


@dataclass(frozen=True)
class StopSink:
    """This sink cannot go on until a person helps; the others do."""

    sink: str
    error: OnefoldError


@dataclass(frozen=True)
class Drained:
    """Nothing is left to do. behind: sinks that have not taken everything, with the epoch they are at."""

    behind: Mapping[str, EpochNumber] = field(default_factory=dict)


@dataclass(frozen=True)
class Halt:
    """The instance must stop at once: going on could duplicate or lose."""

    error: Exception


Step: TypeAlias = (
    OpenSink | Prepare | AppendSeal | CommitSink | AppendAttempt | AppendOutcome | AppendSettle | TellSources
    | AbortHandle | PauseSink | StopSink | Drained | Halt
)  # fmt: skip
