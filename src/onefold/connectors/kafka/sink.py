"""Topics as a sink: one transaction a delivery, with the token inside it.

Opening starts a new producer under the sink's own transactional.id, which settles the last one's transaction and fences
it; only then is the token read. Source: KIP-98, KIP-447.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
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
from onefold.connectors.kafka.token import (
    from_metadata,
    group_of,
    owners_from_metadata,
    owners_group,
    owners_to_metadata,
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
    OutcomeUnknown,
    RowsRefused,
    SchemaError,
    SinkForked,
    SinkRefused,
    SinkUnavailable,
    TokenRefused,
)
from onefold.formats.json import JsonLines
from onefold.protocols import Check, CheckResult, Clock, SinkPromise, WritingFormat
from onefold.types import Binding, CommitClass, Guarantee, Receipt, Token, TokenMove

__all__ = ["KafkaSink"]

_SNAPSHOT_TRIES = 5

TRANSACTION_SECONDS = 60.0
"""The transaction timeout unless the connection says otherwise. A delivery gets half of it."""

RENEW_SECONDS = 3600.0
"""How often the token is written again. Brokers forget offsets after offsets.retention.minutes: 7 days by default."""

PAUSE_MS = 100

_NOT_YET = ("NOT_COORDINATOR", "COORDINATOR_NOT_AVAILABLE", "COORDINATOR_LOAD_IN_PROGRESS")
_TOO_LARGE = ("MSG_SIZE_TOO_LARGE", "_MSG_SIZE_TOO_LARGE", "RECORD_LIST_TOO_LARGE")
_REFUSALS = (
    "TOPIC_AUTHORIZATION_FAILED", "GROUP_AUTHORIZATION_FAILED", "CLUSTER_AUTHORIZATION_FAILED",
    "TRANSACTIONAL_ID_AUTHORIZATION_FAILED", "_AUTHENTICATION", "SASL_AUTHENTICATION_FAILED",
    "INVALID_TRANSACTION_TIMEOUT", "UNSUPPORTED_VERSION", "_UNSUPPORTED_FEATURE",
)  # fmt: skip


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
        topics = Cluster(self._connection, SinkUnavailable).topics([self._topic])
        if self._topic not in topics:
            raise SinkRefused(
                f"{self._label} does not exist.", sink=binding.sink, next_step="Make the topic, or correct its name."
            )
        self._messages = Messages(self._layout(binding), self._topic)
        with self._answers():
            self._producing = Producing(self._settings(), self._clock)
            if binding.guarantee is Guarantee.EXACTLY_ONCE:
                self._owners = owners_from_metadata(self._offset_of(owners_group(self._topic))[1])
                others = [owner for owner in self._owners if tuple(owner) != self._owner]
                refuse_taken(binding, self._label, others)
                with durable_step("kafka.fence"):
                    self._producing.begin(ANSWER_SECONDS)
                self._token = self._read_token()
                if self._clock.monotonic() - self._renewed_at >= RENEW_SECONDS:
                    self._rewrite_token(self._producing)
                return self._token
        return None

    @property
    def renew_every_seconds(self) -> float:
        """An hour."""
        return RENEW_SECONDS

    def renew(self) -> None:
        """Commit the token's offset again, in a transaction without rows; so does the first `open` of a process."""
        if self._producing is None or self._clock.monotonic() - self._renewed_at < RENEW_SECONDS / 2:
            return
        with self._answers():
            self._rewrite_token(self._producing)

    def commit(self, receipts: Sequence[Receipt], move: TokenMove | None) -> None:
        """With a move: rows and token in one transaction. Without: rows, acknowledged, or sent and forgotten."""
        rows = rows_of(self.binding, receipts)
        producing, messages = self._producing, self._messages
        if producing is None or messages is None:
            raise SinkUnavailable(f"{self._label} is not open.", sink=self.binding.sink)
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
            raise self._fenced(move) if move and is_fenced else self._commit_error(error) from error
        except TimeoutError as error:
            self._throw_away(producing)
            raise OutcomeUnknown(f"{self._label} took too long.", sink=self.binding.sink) from error
        self._token, self._renewed_at = move.new, began
        if producing.is_suspect:
            self.close()

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
            found = Cluster(self._connection, SinkUnavailable).topics([self._topic])
        except SinkUnavailable as error:
            return [CheckResult(self._label, "failed", error.summary, error.next_step or "")]
        if self._topic not in found:
            return [CheckResult(self._label, "failed", "no such topic", "Make it, or correct the name.")]
        of_format = self._format.check(binding) if isinstance(self._format, Check) else ()
        return [CheckResult(self._label, "ok", f"{len(found[self._topic].partitions)} partitions"), *of_format]

    # ------------------------------------------------------------------------------------------------------- inner

    @property
    def _label(self) -> str:
        return f"{self._connection.label}.topic({self._topic})"

    def _layout(self, binding: Binding) -> Layout:
        return Layout(binding, self._format, self._label, self._headers)

    @property
    def _token_group(self) -> str:
        return group_of(self.binding.flow, self.binding.lane, self.binding.sink)

    @property
    def _transaction_seconds(self) -> float:
        return float(self._connection.options.get("transaction.timeout.ms", TRANSACTION_SECONDS * 1000)) / 1000

    def _settings(self) -> dict[str, str]:
        binding = self.binding
        wanted: dict[str, str] = {
            "linger.ms": "5",
            "queue.buffering.max.messages": "500000",
            "partitioner": "murmur2_random",
            **self._connection.settings(),
        }
        wanted.pop("transaction.timeout.ms", None)
        if binding.guarantee is Guarantee.EXACTLY_ONCE:
            name = f"onefold.{binding.flow}.{binding.lane}.{binding.sink}"
            timeout = str(int(self._transaction_seconds * 1000))
            return wanted | {"transactional.id": name, "transaction.timeout.ms": timeout}
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
        consumer = compiled.Consumer(consumer_settings(self._connection, group))
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
            self._refuse_changes(columns)
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
            raise self._open_error(error.name, error.text) from error
        except BaseException:
            self.close()
            raise

    def _open_error(self, name: str, text: str) -> SinkRefused | SinkUnavailable:
        kind = SinkRefused if name in _REFUSALS else SinkUnavailable
        said = "refuses us" if kind is SinkRefused else "cannot be written now"
        return kind(f"{self._label} {said}.", found=f"{name}: {text}", sink=self.binding.sink)

    def _refuse_changes(self, written: Mapping[str, str]) -> None:
        for column in self.binding.schema:
            if written.get(column.name, str(column.type)) != str(column.type):
                raise SchemaError(
                    f"{self._label} already holds column {column.name} with another type.",
                    found=written[column.name],
                    expected=str(column.type),
                    next_step="Write to another topic, or cast the column in select(…).",
                    sink=self.binding.sink,
                    column=column.name,
                )

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

    def _commit_error(self, error: Any) -> RowsRefused | OutcomeUnknown:
        if error.name in _TOO_LARGE:  # it was never in the log: the transaction is aborted by the next open
            return RowsRefused(
                f"{self._label} refuses a message for its size.",
                found=error.text,
                sink=self.binding.sink,
                next_step="Raise max.message.bytes of the topic and message.max.bytes here, or write less in a row.",
            )
        return OutcomeUnknown(
            f"{self._label} did not answer for certain.", found=f"{error.name}: {error.text}", sink=self.binding.sink
        )
