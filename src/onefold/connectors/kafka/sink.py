"""Topics as a sink: one transaction a delivery, with the token inside it.

Opening starts a new producer under the sink's own transactional.id, which settles the last one's transaction and fences
it; only then is the token read. Source: KIP-98, KIP-447.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa

from onefold.clock import SystemClock
from onefold.connectors.kafka.cluster import ANSWER_SECONDS, Cluster
from onefold.connectors.kafka.connection import Connection
from onefold.connectors.kafka.library import bridge
from onefold.connectors.kafka.messages import Layout, Messages
from onefold.connectors.kafka.messages import rows_of as rows_of_topic
from onefold.connectors.kafka.producing import Producing
from onefold.connectors.kafka.reading import consumer_settings, read_topic
from onefold.connectors.kafka.refusal import refusal_of
from onefold.connectors.kafka.sizes import NO_LIMITS, fitting, limits_of
from onefold.connectors.kafka.token import (
    from_metadata,
    group_of,
    owners_from_metadata,
    owners_group,
    owners_to_metadata,
    refuse_changes,
    to_metadata,
)
from onefold.connectors.spooling import (
    SpooledSink,
    described,
    refuse_taken,
    refuse_token,
    rows_of,
    same_token,
)
from onefold.disk import durable_step
from onefold.errors import (
    OnefoldError,
    OutcomeUnknown,
    RowsRefused,
    SinkForked,
    SinkRefused,
    SinkUnavailable,
    TokenRefused,
)
from onefold.formats.json import JsonLines
from onefold.protocols import Check, CheckResult, Clock, SinkPromise, WritingFormat
from onefold.settings import resolve
from onefold.types import Binding, CommitClass, EpochHead, Guarantee, Receipt, Token, TokenMove

__all__ = ["KafkaSink"]

_SNAPSHOT_TRIES = 5

TRANSACTION_SECONDS = 60.0
"""The transaction timeout unless the connection says otherwise. A delivery gets half of it."""

RENEW_SECONDS = 3600.0
"""How often the token is written again. Brokers forget offsets after offsets.retention.minutes: 7 days by default."""

PAUSE_MS = 100

_NOT_YET = ("NOT_COORDINATOR", "COORDINATOR_NOT_AVAILABLE", "COORDINATOR_LOAD_IN_PROGRESS")
_TOO_LARGE = ("MSG_SIZE_TOO_LARGE", "_MSG_SIZE_TOO_LARGE", "RECORD_LIST_TOO_LARGE")
_REFUSALS = ("INVALID_TRANSACTION_TIMEOUT", "UNSUPPORTED_VERSION", "_UNSUPPORTED_FEATURE", "_INVALID_ARG")


class KafkaSink(SpooledSink):
    """Append, and upsert into a compacted topic, where a delete is a tombstone. Values are JSON objects
    unless a format says otherwise.

    A message's key is the one key column's text or bytes as they are, or a JSON object of several.
    """

    def __init__(
        self,
        connection: Connection,
        topic: str,
        format: WritingFormat | None = None,  # noqa: A002 - the word of the API
        headers: str | None = None,
        *,
        clock: Clock | None = None,
    ) -> None:
        self._connection = connection
        self._topic = topic
        self._format: WritingFormat = format or JsonLines()
        self._headers = headers
        self._messages: Messages | None = None
        self._clock = clock or SystemClock()
        self._producing: Producing | None = None
        self._token: Token | None = None
        self._renewed_at = -math.inf
        self._owners: list[Sequence[str]] = []
        self._limits = NO_LIMITS

    @property
    def promise(self) -> SinkPromise:
        """Transactional; the token is an offset, which can be lost while the rows stay."""
        return SinkPromise(
            commit_class=CommitClass.TRANSACTIONAL,
            modes=frozenset({"append", "upsert"}),
            target=f"{self._connection.label}:{self._topic}",
            deletes=True,
            rows_outlive_token=True,
            conditions=(
                "readers of the topic use isolation.level=read_committed",
                "a delivery ends within half of transaction.timeout.ms; one that does not is aborted and made smaller",
                "offsets.retention.minutes is longer than the flow may stand still",
                "nobody else uses the sink's transactional.id or its token's group",
            ),
        )

    def open(self, binding: Binding) -> Token | None:
        """Fence, then read the token. Raises SinkUnavailable, SinkRefused, SinkForked, SettingMissing.

        If killed inside: fenced or not.
        """
        self._binding = binding
        self.close()
        cluster = self._permitted(binding)
        limits = limits_of(self._connection, cluster.message_bytes(self._topic), is_keyed=bool(binding.key))
        self._limits = limits.one_by_one() if self._limits.is_one_by_one else limits
        self._messages = Messages(self._layout(binding), self._topic)
        with self._answers():
            self._producing = Producing(self._settings(), self._connection, self._clock)
            if binding.guarantee is Guarantee.EXACTLY_ONCE:
                with durable_step("kafka.fence"):  # first: what a predecessor left open hides the offsets
                    self._producing.begin(ANSWER_SECONDS)
                self._owners = owners_from_metadata(self._offset_of(owners_group(self._topic))[1])
                others = [owner for owner in self._owners if tuple(owner) != self._owner]
                refuse_taken(binding, self._label, others)
                self._token = self._read_token()
                if self._clock.monotonic() - self._renewed_at >= RENEW_SECONDS / 2:
                    self._rewrite_token(self._producing)
                return self._token
        return None

    def prepare(self, epoch: EpochHead, batches: Iterable[pa.RecordBatch]) -> Receipt:
        """Spool the rows, unless one makes a message that the topic can never take. Raises RowsRefused, DiskError."""
        messages = self._messages
        if messages is None:  # never opened, so that nobody knows what fits
            return super().prepare(epoch, batches)
        limits, label, sink = self._limits, self._label, self.binding.sink
        return super().prepare(epoch, (fitting(one, limits, messages.of, label=label, sink=sink) for one in batches))

    @property
    def renew_every_seconds(self) -> float:
        """An hour."""
        return RENEW_SECONDS

    def renew(self) -> None:
        """Commit the token's offset again, in a transaction without rows; so does the first `open` of a process."""
        if self._binding is None or self._clock.monotonic() - self._renewed_at < RENEW_SECONDS / 2:
            return
        if self._producing is None or self._producing.is_spent():
            self.open(self._binding)
            return
        with self._answers():
            self._rewrite_token(self._producing)

    def commit(self, receipts: Sequence[Receipt], move: TokenMove | None) -> None:
        """With a move: rows and token in one transaction. Without: rows, acknowledged, or sent and forgotten."""
        rows = rows_of(self.binding, receipts)
        producing, messages = self._producing, self._messages
        if producing is None or messages is None or producing.is_spent():
            self.close()
            raise SinkUnavailable(f"{self._label} was cut off, and is to be opened again.", sink=self.binding.sink)
        batch = messages.of(rows)
        began = self._clock.monotonic()
        deadline = began + self._transaction_seconds / 2
        try:
            if move is None:
                with durable_step("kafka.send"):
                    producing.send(self._topic, batch, deadline)
                return
            if not same_token(self._token, move.expected):
                raise refuse_token(self.binding, self._token, move.expected)
            producing.transact()
            with durable_step("kafka.send"):
                producing.send(self._topic, batch, deadline)
            with durable_step("kafka.commit"):
                producing.finish(self._offsets(move.new), self._transaction_seconds / 2)
        except bridge().KafkaFault as error:
            is_fenced = producing.is_fenced() and self._clock.monotonic() < deadline  # later it may have expired
            self._throw_away(producing)
            raise self._fenced(move) if move and is_fenced else self._commit_error(error, rows.num_rows) from error
        except TimeoutError as error:
            self._throw_away(producing)
            raise OutcomeUnknown(f"{self._label} took too long.", sink=self.binding.sink) from error
        self._token, self._renewed_at = move.new, began

    def close(self) -> None:
        """Throw the producer away."""
        producing, self._producing = self._producing, None
        if producing is not None:
            producing.close()

    def read_back(self, binding: Binding) -> tuple[pa.Table, Token | None]:
        """The rows of the whole topic, whoever wrote them, and the token. Raises SinkUnavailable.

        Of an upsert the newest of each key. Read again while the token moves meanwhile.
        """
        self._binding = binding
        with self._answers():
            for _ in range(_SNAPSHOT_TRIES):
                before = self._read_token()
                found = read_topic(
                    self._connection,
                    self._topic,
                    ANSWER_SECONDS,
                    self._clock,
                    with_headers=self._headers is not None,
                )
                if same_token(before, self._read_token()):
                    return rows_of_topic(self._layout(binding), *found), before
        raise SinkUnavailable(f"{self._label} is written too fast to be read in one snapshot.", sink=binding.sink)

    def check(self, binding: Binding | None) -> Sequence[CheckResult]:
        """Is the topic there? Writes nothing and fences nobody."""
        try:
            cluster = Cluster(self._connection, SinkUnavailable)
            found = cluster.demand_topics([self._topic], ["WRITE"])
        except OnefoldError as error:
            return [CheckResult(self._label, "failed", error.summary, error.next_step or "")]
        of_format = self._format.check(binding) if isinstance(self._format, Check) else ()
        return [CheckResult(self._label, "ok", f"{len(found[self._topic].partitions)} partitions"), *of_format]

    # ------------------------------------------------------------------------------------------------------- inner

    @property
    def _label(self) -> str:
        return f"{self._connection.label}.topic({self._topic})"

    def _permitted(self, binding: Binding) -> Cluster:
        """What can be known before anything is sealed: may we do all that a delivery does? A token is an offset of the
        topic, for which brokers ask READ. The transactional id is asked by using it."""
        cluster = Cluster(self._connection, SinkUnavailable)
        is_exact = binding.guarantee is Guarantee.EXACTLY_ONCE
        cluster.demand_topics([self._topic], ["WRITE", "READ"] if is_exact else ["WRITE"])
        if is_exact:
            cluster.demand_groups([self._token_group, owners_group(self._topic)])
        return cluster

    @property
    def _transactional_id(self) -> str:
        return f"onefold.{self.binding.flow}.{self.binding.lane}.{self.binding.sink}"

    def _layout(self, binding: Binding) -> Layout:
        return Layout(binding, self._format, self._label, self._headers)

    @property
    def _token_group(self) -> str:
        return group_of(self.binding.flow, self.binding.lane, self.binding.sink)

    @property
    def _transaction_seconds(self) -> float:
        given = self._connection.options.get("transaction.timeout.ms")
        return TRANSACTION_SECONDS if given is None else float(resolve(given)) / 1000

    def _settings(self) -> dict[str, str]:
        binding = self.binding
        wanted: dict[str, str] = {
            "linger.ms": "0",  # a delivery is handed over at once: nothing more is coming
            "queue.buffering.max.messages": "500000",
            "partitioner": "murmur2_random",
            **self._limits.batching,
            **self._connection.settings(),
        }
        wanted.pop("transaction.timeout.ms", None)
        if binding.guarantee is Guarantee.EXACTLY_ONCE:
            timeout = str(int(self._transaction_seconds * 1000))
            return wanted | {"transactional.id": self._transactional_id, "transaction.timeout.ms": timeout}
        if binding.guarantee is Guarantee.AT_LEAST_ONCE:
            return wanted | {"enable.idempotence": "true"}
        return wanted | {"acks": "0", "message.send.max.retries": "0"}

    @property
    def _owner(self) -> tuple[str, str, str]:
        return self.binding.flow, self.binding.lane, self.binding.sink

    def _offsets(self, token: Token) -> dict[str, tuple[str, int, int, bytes]]:
        """By group, what is committed with the rows."""
        columns = [(column.name, str(column.type)) for column in self.binding.schema]
        found: dict[str, tuple[str, int, int, bytes]] = {}
        found[self._token_group] = (self._topic, 0, token.epoch, to_metadata(token, columns))
        if self._owner not in map(tuple, self._owners):
            self._owners.append(self._owner)
            found[owners_group(self._topic)] = (self._topic, 0, 0, owners_to_metadata(self._owners))
        return found

    def _rewrite_token(self, producing: Producing) -> None:
        """Whether it lands or not, the token stands as it stood."""
        if self._token is not None:
            producing.transact()
            with durable_step("kafka.renew"):
                producing.finish(self._offsets(self._token), ANSWER_SECONDS)
            self._renewed_at = self._clock.monotonic()

    def _offset_of(self, group: str) -> tuple[int, bytes]:
        """Committed only: of a transaction that is not decided yet the broker says so, and we wait."""
        compiled = bridge()
        consumer = compiled.Consumer(consumer_settings(self._connection, group), self._connection.token)
        deadline = self._clock.monotonic() + ANSWER_SECONDS
        try:
            while True:
                try:
                    offset, metadata = consumer.committed(self._topic, 0, int(ANSWER_SECONDS * 1000))
                    return int(offset), bytes(metadata)
                except compiled.KafkaFault as error:
                    if error.name not in _NOT_YET or self._clock.monotonic() > deadline:
                        raise
                    consumer.poll(PAUSE_MS)
        finally:
            consumer.close()

    def _read_token(self) -> Token | None:
        offset, metadata = self._offset_of(self._token_group)
        if offset < 0:
            return None
        try:
            token, columns = from_metadata(offset, metadata)
            refuse_changes(self.binding, self._label, columns)
            return token
        except ValueError as error:
            raise SinkForked(
                f"The group {self._token_group} holds an offset that is no token of ours.",
                sink=self.binding.sink,
                found=f"offset {offset}, {metadata!r}",
                next_step="Somebody else uses this group. Give the flow or the sink another name.",
            ) from error

    @contextlib.contextmanager
    def _answers(self) -> Any:
        try:
            yield
        except bridge().KafkaFault as error:
            self.close()
            raise self._open_error(error) from None
        except TimeoutError as error:
            self.close()
            raise SinkUnavailable(
                f"{self._label} cannot be written now.", found=error, sink=self.binding.sink
            ) from error
        except BaseException:
            self.close()
            raise

    def _open_error(self, error: Any) -> OnefoldError:
        cluster = Cluster(self._connection, SinkUnavailable)
        if error.name == "TRANSACTIONAL_ID_AUTHORIZATION_FAILED":
            return cluster.denied("transactional id", self._transactional_id, "WRITE")
        if error.name == "CLUSTER_AUTHORIZATION_FAILED":  # a broker before 3.0, which asks this of idempotent producers
            return cluster.denied("cluster", "kafka-cluster", "IDEMPOTENT_WRITE")
        asked = (
            ("topic", self._topic, "WRITE") if error.name.startswith("TOPIC") else ("group", self._token_group, "READ")
        )
        if error.name.endswith("_AUTHORIZATION_FAILED") or refusal_of(error.name, error.text) is not None:
            return cluster.unavailable(error, asked=asked)
        kind = SinkRefused if error.name in _REFUSALS else SinkUnavailable
        said = "refuses us" if kind is SinkRefused else "cannot be written now"
        found = self._connection.clean(f"{error.name}: {error.text}")
        return kind(f"{self._label} {said}.", found=found, sink=self.binding.sink)

    def _fenced(self, move: TokenMove) -> TokenRefused:
        return TokenRefused(
            f"A newer instance has opened {self._label} for this sink.",
            found="a newer producer of its transactional.id",
            expected=described(move.expected),
            sink=self.binding.sink,
        )

    def _throw_away(self, producing: Producing) -> None:
        """Nothing that this producer sent may land in a transaction of the next one."""
        self._producing = None
        producing.close()

    def _commit_error(self, error: Any, messages: int) -> RowsRefused | SinkUnavailable | OutcomeUnknown:
        found = self._connection.clean(f"{error.name}: {error.text}")
        if error.name not in _TOO_LARGE:
            return OutcomeUnknown(f"{self._label} did not answer for certain.", found=found, sink=self.binding.sink)
        if messages > 1 and not self._limits.is_one_by_one:  # it was never in the log: the next open aborts the rest
            self._limits = self._limits.one_by_one()
            return SinkUnavailable(f"{self._label} takes smaller batches than we sent.", sink=self.binding.sink)
        return RowsRefused(
            f"{self._label} refuses a message for its size.",
            found=found,
            sink=self.binding.sink,
            next_step="Raise max.message.bytes of the topic and message.max.bytes here, then run again.",
        )
