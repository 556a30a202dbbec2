"""The chain of seals: what says whether a token is on our history, and how far. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from onefold.errors import SinkForked, SinkRestored, check
from onefold.types import EpochNumber, Positions, SealId, Token

__all__ = ["Chain", "Header"]


@dataclass(frozen=True)
class Header:
    """What is kept of a seal for as long as a token may be that old.

    rows, sizes: by sink, only sinks that get rows: a payload that is missing is never taken for an empty one (INV-8).
    has_payload: the rows can still be delivered again. staged: sinks whose rows were staged in their own system, from
    where a delivery takes them away: these can be delivered once only.
    """

    epoch: EpochNumber
    seal: SealId
    previous: str
    ends: Positions
    rows: Mapping[str, int]
    sizes: Mapping[str, int]
    has_payload: bool = True
    staged: frozenset[str] = frozenset()

    def keeps_rows_of(self, sink: str) -> bool:
        """Whether rows that the sink has had already could be given to it again."""
        return self.has_payload and sink not in self.staged

    def token(self) -> Token:
        """The token of a sink that is exactly here."""
        return Token(self.epoch, self.seal, self.ends)


class Chain:
    """Consecutive headers, the oldest still kept first. journal: the random id that precedes epoch 1."""

    def __init__(self, journal: str, headers: Iterable[Header] = ()) -> None:
        self.journal = journal
        self._headers: dict[EpochNumber, Header] = {}
        self._head: Header | None = None
        for header in headers:
            self.append(header)

    @property
    def head(self) -> EpochNumber:
        """The newest sealed epoch; 0 when there is none."""
        return self._head.epoch if self._head else EpochNumber(0)

    @property
    def head_id(self) -> str:
        """What the next seal names as its predecessor."""
        return self._head.seal if self._head else self.journal

    def append(self, header: Header) -> None:
        """Add the next seal. Raises InvariantBroken when it does not follow (INV-1)."""
        if self._head is not None:
            check(header.epoch == self._head.epoch + 1, "INV-1: epochs are consecutive", epoch=header.epoch)
            check(header.previous == self._head.seal, "INV-1: a seal names its predecessor", epoch=header.epoch)
        elif header.epoch == 1:
            check(header.previous == self.journal, "INV-1: the first seal names the journal", epoch=header.epoch)
        self._headers[header.epoch] = header
        self._head = header

    def __getitem__(self, epoch: EpochNumber) -> Header:
        return self._headers[epoch]

    def get(self, epoch: EpochNumber) -> Header | None:
        """The header if it is kept."""
        return self._headers.get(epoch)

    def __contains__(self, epoch: object) -> bool:
        return epoch in self._headers

    def between(self, after: EpochNumber, through: EpochNumber) -> Iterator[Header]:
        """Headers of after+1 … through. Raises InvariantBroken when one is no longer kept."""
        for number in range(after + 1, through + 1):
            epoch = EpochNumber(number)
            check(epoch in self._headers, "INV-8: headers are kept back to the oldest token", epoch=number)
            yield self._headers[epoch]

    def locate(self, sink: str, token: Token) -> EpochNumber:
        """How far a sink with this token is. Raises SinkForked when the token is not on this chain (INV-4).

        Raises SinkRestored when it is older than every seal that is kept: then nobody can tell whose it is.
        """
        header = self._headers.get(token.epoch)
        if header is not None and header.seal == token.seal:
            return token.epoch
        oldest = min(self._headers, default=EpochNumber(1))
        if token.epoch < oldest:
            raise SinkRestored(
                sink=sink,
                found=f"epoch {token.epoch}, seal {token.seal}",
                expected=f"epoch {oldest} to {self.head}; the seals before, and their rows, are no longer kept",
            )
        if header is not None:
            expected = f"seal {header.seal} for epoch {token.epoch}"
        else:
            expected = f"at most epoch {self.head}, the newest that this journal has sealed"
        found = f"epoch {token.epoch}, seal {token.seal}"
        if not self._headers:
            raise SinkForked(
                "This journal is new, and a sink holds the token of another one.",
                sink=sink,
                found=found,
                expected="no token",
                next_step="Was the state folder deleted or reset, or does --state name another one? Run on the journal "
                "that the sinks follow; or empty every target together with its token; `onefold recover --from-sinks` "
                "rebuilds a stateless flow.",
            )
        raise SinkForked(sink=sink, found=found, expected=expected)

    def has_rows(self, sink: str, after: EpochNumber, through: EpochNumber) -> bool:
        """Whether any epoch of after+1 … through has rows for the sink."""
        return any(sink in header.rows for header in self.between(after, through))

    def strip(self, through: EpochNumber) -> None:
        """Payloads through this epoch are gone."""
        for number, header in self._headers.items():
            if number <= through and header.has_payload:
                self._headers[number] = replace(header, has_payload=False)

    def forget_before(self, epoch: EpochNumber) -> None:
        """Headers before this epoch are gone. The head is always kept."""
        for number in [number for number in self._headers if number < epoch and number != self.head]:
            del self._headers[number]
