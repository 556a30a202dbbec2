"""The course of one sink: which epochs it gets next, and what an unknown outcome means under its guarantee. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from onefold.chain import Chain, Header
from onefold.errors import OnefoldError, SinkRestored, TokenRefused, check
from onefold.steps import (
    AppendAttempt,
    AppendOutcome,
    CommitSink,
    Halt,
    OpenSink,
    PauseSink,
    Step,
    StopSink,
)
from onefold.types import Attempt, EpochNumber, Guarantee, Token, TokenMove

__all__ = ["Course", "SinkRule"]

Phase = Literal["opening", "ready", "attempting", "committing", "recording", "paused", "stopped"]

_NONE = EpochNumber(0)
_FIRST = EpochNumber(1)


@dataclass(frozen=True)
class SinkRule:
    """What the journal says of a sink when an instance starts.

    joined: the first epoch that is for it. base: the token it had when it joined (a sink that comes back), else None.
    through: how far outcome records say it is (weaker guarantees). attempt: one without an outcome.
    rows_outlive_token: the token can be lost while the rows stay.
    is_paced: deliveries wait until they are due, or until as many bytes wait as one may take; what is staged in the
        sink's own system does not count, for there all of it can be committed at once.
    """

    name: str
    guarantee: Guarantee
    joined: EpochNumber = _FIRST
    base: Token | None = None
    through: EpochNumber = _NONE
    attempt: Attempt | None = None
    rows_outlive_token: bool = False
    is_paced: bool = False


class Course:
    """Where one sink is. Every method gives the steps to take next; none blocks."""

    def __init__(
        self, rule: SinkRule, chain: Chain, settled: EpochNumber, *, deliver_bytes: int, joins_epochs: bool = True
    ) -> None:
        """joins_epochs: a delivery may go on over later epochs; not where prepared rows hold the token's move."""
        self.rule = rule
        self.phase: Phase = "opening"
        self.was_answered = False
        self.cursor = EpochNumber(max(rule.joined - 1, rule.through, settled))
        self.token = rule.base
        self.failures = 0
        self.is_due = True
        self.head_when_opening = _NONE
        self._chain = chain
        self.undelivered_bytes = self._bytes_between(self.cursor, chain.head)
        self._most_bytes = deliver_bytes
        self._limit_bytes = deliver_bytes
        self._joins_epochs = joins_epochs
        self._range: tuple[EpochNumber, EpochNumber] | None = None
        self._abandoned = rule.attempt

    @property
    def is_exact(self) -> bool:
        """Whether it moves a token."""
        return self.rule.guarantee is Guarantee.EXACTLY_ONCE

    @property
    def is_waiting(self) -> bool:
        """Whether nothing is under way: it is ready for the next delivery."""
        return self.phase == "ready"

    @property
    def is_down(self) -> bool:
        """Whether it makes no progress for now."""
        return self.phase == "stopped" or (self.failures > 0 and self.phase in ("paused", "opening"))

    def done_through(self) -> EpochNumber:
        """Everything through this epoch has taken effect here. Without a token, empty epochs need no proof."""
        if self.is_exact or self._range is not None or self._abandoned is not None:
            return self.cursor
        for header in self._chain.between(self.cursor, self._chain.head):
            if self.rule.name in header.rows:
                return EpochNumber(header.epoch - 1)
        return self._chain.head

    def sealed(self, header: Header) -> None:
        """An epoch more is sealed."""
        self.undelivered_bytes += header.sizes.get(self.rule.name, 0)

    def skip_empty(self, settled: EpochNumber) -> None:
        """Without a token, settled epochs need no proof: nothing is kept for them any more."""
        if not self.is_exact and self.is_waiting and self.done_through() >= settled > self.cursor:
            self._move(settled)

    def open(self) -> list[Step]:
        """Open, fence, read the token."""
        self.phase = "opening"
        self.head_when_opening = self._chain.head
        return [OpenSink(self.rule.name)]

    def opened(self, token: Token | None, settled: EpochNumber) -> list[Step]:
        """The token was read: the token is the cursor (INV-3). Raises SinkForked, SinkRestored."""
        check(self.phase == "opening", "a sink is opened once at a time", sink=self.rule.name)
        self.was_answered = self.is_due = True
        if self.is_exact:
            self._locate(token, settled)
            self._range = None
        self.phase = "ready"
        if self._abandoned is not None:
            return self._give_up(self._abandoned.first, self._abandoned.last)
        return []

    def _locate(self, token: Token | None, settled: EpochNumber) -> None:
        joined = EpochNumber(self.rule.joined - 1)
        known = max(settled, joined)
        if token == self.rule.base:
            at = joined
        elif token is None:
            at = EpochNumber(0)
        else:
            at = self._chain.locate(self.rule.name, token)
        if at < known and token is None and self.rule.rows_outlive_token:
            raise SinkRestored(
                "A sink's token is gone, and its rows may still be there.",
                sink=self.rule.name,
                found="no token",
                expected=f"the token of epoch {known} or later, which was settled",
                next_step="Look at what the sink holds. If it is empty, `onefold reset` the flow; else give the sink "
                "another name and target.",
            )
        if at < known or (token is None and self.rule.base is not None):
            self._demand_payloads(at, known)
        self._move(at)
        self.token = token

    def _demand_payloads(self, at: EpochNumber, known: EpochNumber) -> None:
        for number in range(at + 1, known + 1):
            epoch = EpochNumber(number)
            header = self._chain.get(epoch)
            if header is None or (self.rule.name in header.rows and not header.keeps_rows_of(self.rule.name)):
                raise SinkRestored(
                    sink=self.rule.name,
                    found=f"its token is at epoch {at}",
                    expected=f"at least epoch {known}, which was settled; the rows of epoch {epoch} are not kept",
                )

    def open_failed(self, error: OnefoldError) -> list[Step]:
        """It is down: try again later; nothing is lost meanwhile."""
        self.was_answered = True
        return self._pause(error)

    def retry(self) -> list[Step]:
        """The pause is over."""
        check(self.phase == "paused", "only a paused sink retries", sink=self.rule.name)
        return self.open()

    def due(self) -> list[Step]:
        """The pace allows a delivery again."""
        self.is_due = True
        return []

    def deliver(self, *, also_token: bool, at_once: bool = False) -> list[Step]:
        """The next delivery, if any: consecutive epochs, bounded in bytes; also_token: over an empty tail too.

        at_once: whatever the pace.
        """
        if not self.is_waiting or not (at_once or self._may_start):
            return []
        last = self._last_of_next()
        if last is None:
            if not (also_token and self.is_exact and self.cursor < self._chain.head):
                return []
            last = self._chain.head
        first = EpochNumber(self.cursor + 1)
        return self._start(first, last)

    @property
    def _may_start(self) -> bool:
        if not self.rule.is_paced or self.is_due:
            return True
        waiting = self._chain.between(self.cursor, self._chain.head)
        return sum(map(self._size_in, waiting)) >= self._limit_bytes

    def _size_in(self, header: Header) -> int:
        """What its rows of this epoch count towards the bytes of one delivery."""
        is_free = self.rule.is_paced and self.rule.name in header.staged
        return 0 if is_free else header.sizes.get(self.rule.name, 0)

    def deliver_prepared(self, epoch: EpochNumber) -> list[Step]:
        """commit="together": the decision is sealed, so this sink commits its handle."""
        check(self.is_waiting, "a prepared sink waits for the decision", sink=self.rule.name)
        return self._start(EpochNumber(self.cursor + 1), epoch)

    def _last_of_next(self) -> EpochNumber | None:
        size, last, has_rows = 0, None, False
        for header in self._chain.between(self.cursor, self._chain.head):
            if self.rule.name in header.rows:
                check(header.has_payload, "INV-8: a missing payload is not an empty one", epoch=header.epoch)
                size += self._size_in(header)
                if has_rows and size > self._limit_bytes:
                    break
                has_rows = True
            last = header.epoch
            if has_rows and not self._joins_epochs:
                break
        return last if has_rows else None

    def _start(self, first: EpochNumber, last: EpochNumber) -> list[Step]:
        self._range = (first, last)
        self.is_due = False
        if self.rule.guarantee is Guarantee.AT_MOST_ONCE:
            self.phase = "attempting"
            return [AppendAttempt(self.rule.name, first, last)]
        return self._commit()

    def _commit(self) -> list[Step]:
        first, last = self._in_flight()
        self.phase = "committing"
        move = TokenMove(self.token, self._chain[last].token()) if self.is_exact else None
        return [CommitSink(self.rule.name, first, last, move)]

    def _in_flight(self) -> tuple[EpochNumber, EpochNumber]:
        check(self._range is not None, "a delivery is under way", sink=self.rule.name)
        return self._range  # type: ignore[return-value]

    def attempt_recorded(self) -> list[Step]:
        """INV-7: the attempt is durable before the one try."""
        check(self.phase == "attempting", "an attempt was asked for", sink=self.rule.name)
        return self._commit()

    def committed(self) -> list[Step]:
        """Acknowledged: the cursor moves; without a token a record remembers it."""
        check(self.phase == "committing", "a commit was asked for", sink=self.rule.name)
        _, last = self._in_flight()
        self.failures = 0
        self._limit_bytes = min(self._most_bytes, self._limit_bytes * 2)
        if not self.is_exact:
            self.phase = "recording"
            return [AppendOutcome(self.rule.name, last)]
        self._move(last)
        self.token, self._range = self._chain[last].token(), None
        self.phase = "ready"
        return []

    def outcome_recorded(self) -> list[Step]:
        """The journal knows how far the sink is."""
        check(self.phase == "recording", "an outcome was asked for", sink=self.rule.name)
        _, last = self._in_flight()
        self._move(last)
        self._range, self._abandoned = None, None
        if self.failures:
            return self.open()
        self.phase = "ready"
        return []

    def failed(self, error: OnefoldError, *, is_timeout: bool = False) -> list[Step]:
        """Unknown is not failed (INV-5).

        exactly-once reads the token back and decides by it; at-least-once repeats; at-most-once gives up.
        """
        check(self.phase == "committing", "a commit was asked for", sink=self.rule.name)
        if is_timeout:
            self._limit_bytes = max(1, self._limit_bytes // 2)
        if self.rule.guarantee is Guarantee.AT_MOST_ONCE:
            self.failures += 1
            return self._give_up(*self._in_flight())
        return self._pause(error)

    def refused(self, found: Token | None) -> list[Step]:
        """INV-6: a refused token is fatal to this instance."""
        expected = self.token
        return [Halt(TokenRefused(sink=self.rule.name, found=_text(found), expected=_text(expected)))]

    def rows_refused(self, error: OnefoldError) -> list[Step]:
        """This sink stops; at most once it has had its try."""
        if self.rule.guarantee is Guarantee.AT_MOST_ONCE:
            return self._give_up(*self._in_flight())
        self.phase = "stopped"
        return [StopSink(self.rule.name, error)]

    def _move(self, to: EpochNumber) -> None:
        self.undelivered_bytes += self._bytes_between(to, self.cursor) - self._bytes_between(self.cursor, to)
        self.cursor = to

    def _bytes_between(self, after: EpochNumber, through: EpochNumber) -> int:
        return sum(header.sizes.get(self.rule.name, 0) for header in self._chain.between(after, through))

    def _give_up(self, first: EpochNumber, last: EpochNumber) -> list[Step]:
        rows = sum(h.rows.get(self.rule.name, 0) for h in self._chain.between(EpochNumber(first - 1), last))
        self._range = (first, last)
        self.phase = "recording"
        return [AppendOutcome(self.rule.name, last, rows)]

    def _pause(self, error: OnefoldError) -> list[Step]:
        self.failures += 1
        self.phase = "paused"
        return [PauseSink(self.rule.name, self.failures, error)]


def _text(token: Token | None) -> str:
    return "no token" if token is None else f"epoch {token.epoch}, seal {token.seal}"
