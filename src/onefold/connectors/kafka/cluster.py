"""What a cluster says about topics: their ids, partitions and offsets. Through the client's own admin interface."""

from __future__ import annotations

import concurrent.futures
import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from onefold.clock import SystemClock
from onefold.connectors.kafka.connection import Connection, TokenOf
from onefold.connectors.kafka.library import bridge, client
from onefold.connectors.kafka.refusal import Heard, Refusal, refusal_of
from onefold.errors import OnefoldError, SinkRefused, SinkUnavailable, SourceRefused, SourceUnavailable

__all__ = ["Cluster", "TopicPartition", "Topic"]

ANSWER_SECONDS = 10.0

REFUSED_SECONDS = 1.0
"""How long another broker may still let us in after one has refused us."""

LOOK_SECONDS = 0.05

NEAR_TOPICS = 3


@dataclass(frozen=True)
class Topic:
    """A topic as it is now.

    id: changes when a topic is deleted and made anew; "" where brokers do not tell. allowed: what we may do with it
    (READ, WRITE, DESCRIBE, …); None where brokers do not tell.
    """

    name: str
    id: str
    partitions: tuple[int, ...]
    allowed: frozenset[str] | None = None


@dataclass(frozen=True, order=True)
class TopicPartition:
    """One partition; as text topic:number."""

    topic: str
    number: int

    def __str__(self) -> str:
        return f"{self.topic}:{self.number}"

    @staticmethod
    def of(text: str) -> TopicPartition:
        """The inverse of str. Raises ValueError."""
        topic, _, number = text.rpartition(":")
        return TopicPartition(topic, int(number))


class Cluster:
    """Answers questions. Its errors have no cause: a traceback would show the client's text as it is, not `clean`ed.

    error: what to raise when nobody answers, SourceUnavailable or SinkUnavailable; when we are refused, it is
    SourceRefused or SinkRefused.
    """

    def __init__(self, connection: Connection, error: type[SourceUnavailable | SinkUnavailable]) -> None:
        kafka = client()
        self._connection = connection
        self._error = error
        self._refused = SinkRefused if error is SinkUnavailable else SourceRefused
        self._clock = SystemClock()
        self._heard = Heard()
        told = {"log_level": "0", "error_cb": self._heard.tell}
        if connection.token is not None:
            told["oauth_cb"] = self._tokens(connection.token)
        try:
            self._admin = kafka.admin.AdminClient({**connection.settings(), **told})
        except kafka.KafkaException as error_:
            raise self.unavailable(error_) from None

    def topics(self, names: Sequence[str]) -> dict[str, Topic]:
        """Those of these names that exist; a name that begins with ^ is a pattern over all names."""
        from confluent_kafka import TopicCollection

        wanted = self._matching(names)
        if not wanted:
            return {}
        found: dict[str, Topic] = {}
        answers = self._admin.describe_topics(
            TopicCollection(wanted), request_timeout=ANSWER_SECONDS, include_authorized_operations=True
        )
        for name, answer in answers.items():
            about = self._answer(answer, missing="UNKNOWN_TOPIC_OR_PART", asked=("topic", name, "DESCRIBE"))
            if about is not None:
                numbers = tuple(sorted(partition.id for partition in about.partitions))
                found[name] = Topic(name, str(about.topic_id or ""), numbers, _allowed(about))
        return found

    def demand_topics(self, names: Sequence[str], operations: Sequence[str]) -> dict[str, Topic]:
        """`topics`, all of which exist and let us do these operations (READ, WRITE). Raises SourceRefused, SinkRefused:
        one that does not exist is told with names that are near it."""
        found = self.topics(names)
        for name in names:
            if name not in found and not name.startswith("^"):
                raise self._missing(name)
        for topic in found.values():
            for operation in operations:
                if topic.allowed is not None and operation not in topic.allowed:
                    raise self.denied("topic", topic.name, operation)
        return found

    def demand_groups(self, groups: Sequence[str]) -> None:
        """Raise SourceRefused or SinkRefused unless offsets may be committed for these groups."""
        answers = self._admin.describe_consumer_groups(
            list(groups), request_timeout=ANSWER_SECONDS, include_authorized_operations=True
        )
        for group, answer in answers.items():
            try:
                allowed = _allowed(self._result(answer))
            except OnefoldError:
                raise
            except Exception as error:  # noqa: BLE001
                if name_of(error) != "GROUP_AUTHORIZATION_FAILED":
                    continue  # a coordinator that is not ready: whoever uses the group is told by that, or waits for it
                raise self.denied("group", group, "READ") from None
            if allowed is not None and "READ" not in allowed:
                raise self.denied("group", group, "READ")

    def message_bytes(self, topic: str) -> int | None:
        """What a message of the topic may have, its frame included; None when we may not know."""
        from confluent_kafka.admin import ConfigResource, ResourceType

        asked = ConfigResource(ResourceType.TOPIC, topic)
        answer = self._admin.describe_configs([asked], request_timeout=ANSWER_SECONDS)[asked]
        try:
            return int(self._result(answer)["max.message.bytes"].value)
        except Exception as error:  # noqa: BLE001
            if name_of(error) in ("TOPIC_AUTHORIZATION_FAILED", "CLUSTER_AUTHORIZATION_FAILED"):
                return None
            raise self.unavailable(error) from None

    def offsets(self, partitions: Iterable[TopicPartition], at: str | int) -> dict[TopicPartition, tuple[int, int]]:
        """(offset, leader epoch) by partition. at: "earliest", "latest", or milliseconds since 1970: the first record
        with that time or later, else the end. Epoch -1: not known."""
        wanted = list(partitions)
        if not wanted:
            return {}
        found = {one: self.offset_of(one.topic, answer) for one, answer in self._ask_offsets(wanted, at).items()}
        behind = [one for one in wanted if found[one][0] < 0]  # no record is as young as that
        return found | (self.offsets(behind, "latest") if behind else {})

    def ask_ends(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, Any]:
        """Where partitions end now, without waiting: answers for `offset_of`, which are `done()` at some time."""
        return self._ask_offsets(list(partitions), "latest")

    def _ask_offsets(self, wanted: Sequence[TopicPartition], at: str | int) -> dict[TopicPartition, Any]:
        from confluent_kafka import IsolationLevel
        from confluent_kafka import TopicPartition as Named
        from confluent_kafka.admin import OffsetSpec

        specs = {"earliest": OffsetSpec.earliest, "latest": OffsetSpec.latest}
        spec = specs[at]() if isinstance(at, str) else OffsetSpec.for_timestamp(at)
        asked = {Named(one.topic, one.number): spec for one in wanted}
        answers = self._admin.list_offsets(
            asked, isolation_level=IsolationLevel.READ_COMMITTED, request_timeout=ANSWER_SECONDS
        )
        return {TopicPartition(named.topic, named.partition): answer for named, answer in answers.items()}

    def offset_of(self, topic: str, answer: Any) -> tuple[int, int]:
        """(offset, leader epoch) of one answer. Raises SinkUnavailable or SourceUnavailable."""
        about = self._answer(answer, asked=("topic", topic, "DESCRIBE"))
        return about.offset, about.leader_epoch if about.leader_epoch is not None else -1

    def denied(self, kind: str, name: str, operation: str) -> OnefoldError:
        """The error of a permission that we lack. kind: topic, group or transactional id."""
        may_be_absent = kind == "topic" and operation == "DESCRIBE"
        absent = (
            " If there is no such topic, make it: who may not see a topic is not told which." if may_be_absent else ""
        )
        return self._refused(
            f"{self._connection.label} does not let {self._connection.principal} use the {kind} {name}.",
            found=f"no permission to {operation} the {kind} {name}",
            expected=f"{operation} on the {kind} {name}",
            next_step=f"Have it granted to this user, then run again: nothing is lost.{absent}",
        )

    def unavailable(self, error: Exception, *, asked: tuple[str, str, str] | None = None) -> OnefoldError:
        """What to raise. asked: kind, name and operation that an authorization error is about."""
        if isinstance(error, OnefoldError):
            return error
        name = name_of(error)
        if name.endswith("_AUTHORIZATION_FAILED") and asked is not None:
            return self.denied(*asked)
        text = f"{name}: {_text_of(error)}" if name else str(error)
        refusal = self._heard.refusal or refusal_of(name, text)
        if refusal is not None:
            return self._refused_for(refusal)
        last = f"; {self._heard.last}" if self._heard.last else ""
        return self._error(
            f"{self._connection.label} does not answer.",
            found=self._connection.clean(text + last),
            expected=f"brokers whose listener speaks {self._connection.settings()['security.protocol']}",
        )

    # ------------------------------------------------------------------------------------------------------- inner

    def _tokens(self, token: TokenOf) -> Callable[[str], tuple[str, float]]:
        """The client's callback. The first token is asked for now: of one that fails, the client would not tell why."""
        try:
            ready = [token()]
        except Exception as error:  # noqa: BLE001 - whatever a function of the user raises
            raise self._refused_for(Refusal("token", f"{type(error).__name__}: {error}")) from None
        return lambda _: ready.pop() if ready else token()

    def _matching(self, names: Sequence[str]) -> list[str]:
        patterns = [re.compile(name) for name in names if name.startswith("^")]
        plain = [name for name in names if not name.startswith("^")]
        if not patterns:
            return plain
        return sorted({*plain, *(name for name in self._all() if any(pattern.search(name) for pattern in patterns))})

    def _all(self) -> Mapping[str, Any]:
        """Every topic that we may see. That call of the client waits by itself, so another asks first."""
        self._answer(self._admin.describe_cluster(request_timeout=ANSWER_SECONDS))
        try:
            listed: Mapping[str, Any] = self._admin.list_topics(timeout=ANSWER_SECONDS).topics
        except Exception as error:  # noqa: BLE001
            raise self.unavailable(error) from None
        return listed

    def _missing(self, name: str) -> OnefoldError:
        near = difflib.get_close_matches(name, self._all(), NEAR_TOPICS)
        return self._refused(
            f"{self._connection.label} has no topic {name}.",
            found=f"near it: {', '.join(near)}" if near else "no topic of a name near it",
            expected=f"a topic {name}",
            next_step="Make the topic, or correct its name.",
        )

    def _answer(self, answer: Any, *, missing: str = "", asked: tuple[str, str, str] | None = None) -> Any:
        """None for an answer that says `missing`."""
        try:
            return self._result(answer)
        except Exception as error:  # noqa: BLE001
            if missing and name_of(error) == missing:
                return None
            raise self.unavailable(error, asked=asked) from None

    def _result(self, answer: Any) -> Any:
        """The client tries for ever to be let in: what it says of that meanwhile decides how long we wait."""
        deadline = self._clock.monotonic() + ANSWER_SECONDS + 5
        refused_at: float | None = None
        while not concurrent.futures.wait([answer], timeout=LOOK_SECONDS).done:
            self._admin.poll(0)
            now = self._clock.monotonic()
            if self._heard.refusal is not None:
                refused_at = refused_at or now
                if now - refused_at >= REFUSED_SECONDS:
                    raise self._refused_for(self._heard.refusal)
            if now > deadline:
                break
        found = answer.result(0)
        self._heard.forget()
        return found

    def _refused_for(self, refusal: Refusal) -> OnefoldError:
        about = refusal.about(self._connection)
        return self._refused(
            f"{self._connection.label} {about.summary}",
            found=self._connection.clean(refusal.text),
            expected=about.expected,
            next_step=f"{about.next_step} Nothing is lost.",
        )


def name_of(error: BaseException) -> str:
    """The client's or the bridge's name of an error, such as _TRANSPORT; "" when it is another."""
    if isinstance(error, bridge().KafkaFault):
        return str(error.name)
    about: Any = error.args[0] if error.args else None
    return str(about.name()) if hasattr(about, "name") else ""


def _text_of(error: BaseException) -> str:
    if isinstance(error, bridge().KafkaFault):
        return str(error.text)
    about: Any = error.args[0] if error.args else None
    return str(about.str()) if hasattr(about, "str") else str(error)


def _allowed(about: Any) -> frozenset[str] | None:
    operations = getattr(about, "authorized_operations", None)
    return None if operations is None else frozenset(operation.name for operation in operations)
