"""What the sinks of database servers share that prepare transactions: for commit="together".

Rows and the token's move are one transaction of the server, prepared before the seal and committed after it. Its name
says whose it is. It holds its locks until it is decided, the token's row among them, so there is one at a time.
"""

from __future__ import annotations

import abc
import threading
from collections.abc import Callable, Sequence

from onefold.clock import SystemClock
from onefold.connectors.spooling import SpooledSink, refuse_token, same_token
from onefold.errors import OutcomeUnknown, SinkError, SinkUnavailable, check
from onefold.protocols import CheckResult, Clock
from onefold.types import Binding, Handle, Receipt, Token, TokenMove

__all__ = ["RUN_AGAIN", "PreparingSink", "name_in", "undecided"]

PREPARE_SECONDS = 30.0
"""How long a server may be away while an epoch is prepared, before the run ends. What others prepared waits for it."""

RETRY_SECONDS = 0.2

RUN_AGAIN = "a run that crashed is started again: what it had prepared keeps its locks until then"
"""A condition of every such sink."""


class PreparingSink(SpooledSink, abc.ABC):
    """A sink that spools, or prepares a transaction when its flow commits together.

    `open` sets `_listed` before it reads the token.
    """

    def __init__(self, label: str, clock: Clock | None) -> None:
        self._shown_as = label
        self._clock: Clock = clock or SystemClock()
        self._listed: Sequence[Handle] = ()

    def handles(self) -> Sequence[Handle]:
        """Prepared transactions of this sink: those there are, and those that were there before the token was read.

        One that was committed in between is in the token by then, or else would seem to have vanished.
        """
        found = {handle.detail["name"]: handle for handle in (*self._listed, *self._prepared_now())}
        self._listed = ()
        return list(found.values())

    @abc.abstractmethod
    def open(self, binding: Binding) -> Token | None:
        """See Sink."""

    @abc.abstractmethod
    def abort(self, handle: Handle) -> None:
        """Forget a prepared transaction; one that is decided stays so. See TwoPhase."""

    @property
    @abc.abstractmethod
    def _is_cut_off(self) -> bool:
        """Whether there is no session to prepare in."""

    @abc.abstractmethod
    def _hang_up(self) -> None:
        """End the session that there is, and with it what was under way. Never raises."""

    @abc.abstractmethod
    def _prepared_now(self) -> Sequence[Handle]:
        """Every undecided handle of this flow's sink, of any journal and incarnation. Raises SinkUnavailable."""

    def _persist(self, begin_again: Callable[[], None], prepare: Callable[[], None]) -> None:
        """Prepare, and wait for a server that is away. begin_again: what comes before it in a new session.

        Both may raise SinkUnavailable or OutcomeUnknown, which another try may mend. Raises what else they raise, and
        after PREPARE_SECONDS SinkUnavailable; OutcomeUnknown when it may be prepared still, or come to be.
        """
        began, pause, is_in_doubt = self._clock.monotonic(), threading.Event(), False
        while True:
            try:
                if self._is_cut_off:
                    begin_again()
                    is_in_doubt = False
                prepare()
            except (SinkUnavailable, OutcomeUnknown) as error:
                is_in_doubt |= isinstance(error, OutcomeUnknown)
                self._hang_up()
                if self._clock.monotonic() - began > PREPARE_SECONDS:
                    raise self._gave_up(error, is_in_doubt=is_in_doubt) from error
                pause.wait(RETRY_SECONDS)
            else:
                return

    def _gave_up(self, error: SinkError, *, is_in_doubt: bool) -> SinkError:
        summary, sink = f"{self._shown_as} took too long.", self.binding.sink
        if not is_in_doubt:
            return SinkUnavailable(summary, found=error.found, sink=sink)
        return OutcomeUnknown(
            summary,
            found=error.found,
            sink=sink,
            next_step="Run again when the server answers: what was prepared is found and forgotten. The sink stays in "
            "the flow until then.",
        )

    def _begin_again(self, move: TokenMove, name: str) -> None:
        """After a lost session: nobody else has gone on, and what it prepared under this name is forgotten."""
        found = self.open(self.binding)
        if not same_token(found, move.expected):
            raise refuse_token(self.binding, found, move.expected)
        for handle in self.handles():
            if handle.detail["name"] == name:
                self.abort(handle)


def name_in(receipts: Sequence[Receipt], binding: Binding) -> str | None:
    """The name of the transaction that these rows were prepared as; None for rows that were spooled."""
    names = [str(receipt.detail["name"]) for receipt in receipts if receipt.kind == "native"]
    check(not names or len(receipts) == 1, "a prepared epoch is committed alone", sink=binding.sink)
    return names[0] if names else None


def undecided(handles: Sequence[Handle]) -> list[CheckResult]:
    """What `doctor` says of prepared transactions; which are decided, it tells by the journal."""
    if not handles:
        return []
    names = "; ".join(str(handle.detail["name"]) for handle in handles)
    step = "The next run of the flow decides them by its journal. Decide none by hand unless that is lost."
    return [CheckResult("prepared transactions", "warning", f"not committed: {names}", step, tuple(handles))]
