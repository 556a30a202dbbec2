"""How a table in a store is committed to: a record beside it decides, by compare-and-set.

A store has no lock that ends with the process that holds it, and Hudi completes an instant by creating one object,
which it compares with nothing. So one object of ours, RECORD, is what writers compete for. It changes by conditional
requests only (If-None-Match, then If-Match), and never has the same bytes twice. It names the turn, and the instant
that was decided last, with all that its completion consists of:

- A commit compares the token with the table's, then decides: it replaces the record that it read before it began to
  write, naming its instant. Then it completes the instant. Who opened or decided meanwhile has changed the record, and
  the commit is none: nothing of it was shown.
- What is decided is completed by whoever comes first: its writer, or the next that opens or writes, from what the
  record says. Completing an instant again changes nothing.
- Who opens reads the record, lists what is pending, and then takes the turn: what it listed began before that, and
  cannot be decided any more. It completes what is decided and rolls the rest of its list back.

spec/hudi_store.py searches this exhaustively; every rule above has a counter-example there without it.
Source: Amazon S3's documentation, page "How to prevent object overwrites with conditional writes".
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from onefold.clock import new_seal_id
from onefold.connectors.hudi.jvm import HudiTable
from onefold.connectors.hudi.prefix import Prefix, in_our_words
from onefold.disk import durable_step
from onefold.errors import OutcomeUnknown, SinkRefused, SinkUnavailable

__all__ = ["OWN", "RECORD", "Record", "StoreTable"]

RECORD = ".hoodie/onefold.json"
CLAIMS = ".hoodie/onefold.begun"
"""Below it an object for each instant that is under way: two writers may begin one in the same millisecond."""

PROBE = ".hoodie/onefold.probe"

OWN = {
    "hoodie.clean.failed.writes.policy": "NEVER",  # only who has the turn may roll back what is pending
    "hoodie.metadata.enable": "false",  # with it a commit would be more than one object
}
"""Settings of Hudi's writer that a table in a store needs."""

LEAST_VERSION = 8
ATTEMPTS = 20

Body = Mapping[str, Any]
"""turn: a random text. decided: None, or {"instant", "completion", "metadata"}: when it was begun and when it counts as
completed, which are the name of Hudi's commit, and what that says, in JSON."""


class Record:
    """The object that decides, and the claims. Its verbs raise OSError: then it is not known what happened."""

    def __init__(self, place: Prefix) -> None:
        self._place = place

    def read(self) -> tuple[str | None, Body]:
        """Its tag and what it says; None where there is none."""
        import obstore

        try:
            with in_our_words():
                found = obstore.get(self._place.store, RECORD)
                body = bytes(found.bytes())
        except FileNotFoundError:
            return None, {"turn": "", "decided": None}
        return str(found.meta["e_tag"]), json.loads(body)

    def replace(self, tag: str | None, decided: Body | None) -> bool:
        """Put another in the place of the one with this tag; whether it was that one.

        A request whose answer was lost may have been sent twice, and the second is refused: then it is ours that stands
        there, or stood.
        """
        turn = new_seal_id()
        if self._put(RECORD, json.dumps({"turn": turn, "decided": decided}).encode(), tag):
            return True
        return bool(self.read()[1]["turn"] == turn)

    def claim(self, instant: str) -> bool:
        """Whether an instant that was begun is ours alone."""
        mark = new_seal_id().encode()
        name = f"{CLAIMS}/{instant}"
        if self._put(name, mark, None):
            return True
        import obstore

        with in_our_words():
            return bytes(obstore.get(self._place.store, name).bytes()) == mark

    def let_go(self, instant: str) -> None:
        """The instant is no longer under way. What stays is removed by maintenance."""
        import obstore

        with contextlib.suppress(OSError), in_our_words():
            obstore.delete(self._place.store, f"{CLAIMS}/{instant}")

    def claimed(self) -> list[str]:
        """All instants that are claimed."""
        return [name.rpartition("/")[2] for name in self._place.names(CLAIMS)]

    def does_compare(self) -> bool:
        """Whether the store does what all of this rests on; some take the conditions and ignore them."""
        import obstore

        with in_our_words():
            obstore.put(self._place.store, PROBE, b"", use_multipart=False)
        return not self._put(PROBE, b"", None) and not self._put(PROBE, b"", '"no such tag"')

    def _put(self, name: str, body: bytes, tag: str | None) -> bool:
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        mode: Any = "create" if tag is None else {"e_tag": tag}
        with in_our_words(), contextlib.suppress(AlreadyExistsError, PreconditionError):
            obstore.put(self._place.store, name, body, mode=mode, use_multipart=False)
            return True
        return False


class StoreTable:
    """A HudiTable in a store, with the same verbs."""

    def __init__(self, table: HudiTable, place: Prefix, label: str) -> None:
        self._table = table
        self._record = Record(place)
        self._label = label
        self._tags: dict[str, str] = {}
        self._completed = ""
        self.look = table.look
        self.settings = table.settings
        self.schema = table.schema
        self.snapshot = table.snapshot
        self.instants = table.instants
        self.oldest = table.oldest

    def open(self) -> Mapping[str, str]:
        """Take the turn, complete what is decided, roll back what else was pending. The state of our newest commit.

        Raises SinkRefused, SinkUnavailable, OutcomeUnknown.
        """
        self._refuse_what_cannot_be()
        for _ in range(ATTEMPTS):
            tag, body = self._read()
            listed = self._table.pending()
            with durable_step("hudi.turn"):
                is_ours = self._take_turn(tag, body["decided"])
            if not is_ours:
                continue
            kept = body["decided"]["instant"] if self._complete(body["decided"]) else ""
            for instant in listed:
                if instant != kept:
                    self.abandon(instant)
            return self._table.look()
        raise SinkUnavailable(f"Others open {self._label} again and again.")

    def write(
        self, file: Path | None, schema: str, operation: str, *, owner: str, expected: str | None
    ) -> Sequence[str]:
        """As HudiTable's. What is decided by then is completed first."""
        tag, body = self._read()
        if tag is None:
            raise SinkUnavailable(f"The object {RECORD} of {self._label} is gone.")
        self._complete(body["decided"])
        word, text = self._table.begin(schema, owner=owner, expected=expected)
        if word != "begun":
            return word, text
        with self._failures():
            is_ours = self._record.claim(text)
        if not is_ours:
            self._table.forget(text)
            raise SinkUnavailable(f"Another writer of {self._label} began in the same millisecond.")
        self._tags[text] = tag
        return self._table.fill(text, file, operation)

    def commit(self, instant: str, *, owner: str, expected: str | None, new: str | None) -> Sequence[str]:
        """As HudiTable's: decided, then completed."""
        tag = self._tags.pop(instant)
        word, *told = self._table.seal(instant, owner=owner, expected=expected, new=new)
        if word != "sealed":
            return word, *told
        decided = {"instant": instant, "completion": told[0], "metadata": told[1]}
        with durable_step("hudi.decide"):
            is_decided = self._decide(tag, decided)
        if not is_decided and not self._was_decided(instant):
            return "gone", ""
        if not self._complete(decided):
            raise OutcomeUnknown(f"A commit to {self._label} was decided, and is gone: was the table restored?")
        self._record.let_go(instant)
        return "done", ""

    def abandon(self, instant: str) -> None:
        """Roll back what was written and is not decided."""
        self._tags.pop(instant, None)
        self._table.abandon(instant)
        self._record.let_go(instant)

    def maintain(self) -> None:
        """As HudiTable's, and claims that a dead writer left."""
        with self._failures():
            claimed = self._record.claimed()  # an instant is begun first, then claimed
        for instant in set(claimed) - set(self._table.pending()):
            self._record.let_go(instant)
        self._table.maintain()

    # --------------------------------------------------------------------------------------------------------- decided

    def _decide(self, tag: str, decided: Body) -> bool:
        try:
            return self._record.replace(tag, decided)
        except OSError as error:
            raise OutcomeUnknown(f"A commit to {self._label} may be decided.", found=str(error)) from error

    def _was_decided(self, instant: str) -> bool:
        """Our request was refused. It may be the second one of a first that landed, and that others took up since."""
        _, body = self._read()
        if (body["decided"] or {}).get("instant") == instant:
            return True
        if instant in self._table.pending():  # whoever decides another one completes what was decided before
            return False
        return instant in self._table.instants()  # completed; else rolled back

    def _complete(self, decided: Body | None) -> bool:
        """Whether what is decided is complete now; not when there is nothing, or when it was restored away."""
        if decided is None:
            return False
        instant = decided["instant"]
        if instant != self._completed:
            with durable_step("hudi.complete"):
                if self._table.complete(instant, decided["completion"], decided["metadata"]) != "done":
                    return False
            self._completed = instant
        return True

    # ----------------------------------------------------------------------------------------------------------- asked

    def _refuse_what_cannot_be(self) -> None:
        settings = self._table.settings()
        if int(settings.get("hoodie.table.version", 0)) < LEAST_VERSION:
            raise SinkRefused(
                f"{self._label} is of an old version, whose commits do not say when they were completed.",
                found=f"version {settings.get('hoodie.table.version')}",
                expected=f"version {LEAST_VERSION} or later",
                next_step="Upgrade it (Hudi's procedure upgrade_table), or write to another table.",
            )
        if settings.get("hoodie.table.metadata.partitions"):
            raise SinkRefused(
                f"{self._label} has a metadata table, which cannot be kept in step with it in a store.",
                next_step="Remove it (Hudi's procedure delete_metadata_table), and have its other writers set "
                "hoodie.metadata.enable=false.",
            )
        with self._failures():
            does_compare = self._record.does_compare()
        if not does_compare:
            raise SinkRefused(
                f"The store of {self._label} ignores If-None-Match or If-Match.",
                expected="a store that compares and writes in one step",
                next_step="Use another store, or a newer version of this one.",
            )

    def _take_turn(self, tag: str | None, decided: Body | None) -> bool:
        with self._failures():
            return self._record.replace(tag, decided)

    def _read(self) -> tuple[str | None, Body]:
        with self._failures():
            return self._record.read()

    @contextlib.contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise SinkUnavailable(f"The store of {self._label} does not answer.", found=str(error)) from error
