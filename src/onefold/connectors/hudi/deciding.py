"""How a table in a store is committed to: a record beside it decides, by compare-and-set.

A store has no lock that ends with the process that holds it, and Hudi completes an instant by creating one object,
which it compares with nothing. So one object of ours, RECORD, is what writers compete for. It changes by conditional
requests only (If-None-Match, then If-Match), and never has the same bytes twice. It names the turn, and the instant
that was decided last, with its metadata:

- A commit compares the token with the table's, then decides: it replaces the record that it read before it began to
  write, naming its instant. Then it completes the instant. Who opened or decided meanwhile has changed the record, and
  the commit is none: nothing of it was shown.
- What is decided is completed by whoever comes first: its writer, or the next that opens or writes, from the metadata
  in the record. Completing an instant again changes nothing.
- Who opens takes the turn, completes what is decided, and rolls back what else is pending, if it still has the turn
  when it has listed that: then nothing of it can be decided any more.

spec/hudi_store.py searches this exhaustively. Source: Amazon S3's documentation, page Conditional writes.
"""

from __future__ import annotations

import contextlib
import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from onefold.connectors.hudi.jvm import HudiTable
from onefold.connectors.hudi.prefix import Prefix, in_our_words
from onefold.disk import durable_step
from onefold.errors import OutcomeUnknown, SinkUnavailable

__all__ = ["RECORD", "StoreTable"]

RECORD = ".hoodie/onefold.json"
OWN = {"hoodie.clean.failed.writes.policy": "NEVER"}
"""Hudi must not roll back what it finds pending: only who has the turn may."""

ATTEMPTS = 20

Body = Mapping[str, Any]
"""turn: a random text. decided: None, or {"instant", "metadata"}, metadata as Hudi writes it, in JSON."""


class Record:
    """The object that decides."""

    def __init__(self, place: Prefix) -> None:
        self._store = place.store

    def read(self) -> tuple[str | None, Body]:
        """Its tag and what it says; None where there is none. Raises OSError."""
        import obstore

        try:
            with in_our_words():
                found = obstore.get(self._store, RECORD)
                body = bytes(found.bytes())
        except FileNotFoundError:
            return None, {"turn": "", "decided": None}
        return str(found.meta["e_tag"]), json.loads(body)

    def replace(self, tag: str | None, decided: Body | None) -> str | None:
        """Put another in the place of the one with this tag; its tag, or None when it is another by now.

        A request whose answer was lost may have been sent twice, and the second is refused: then it is ours that stands
        there. Raises OSError: then it is not known what happened.
        """
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        turn = secrets.token_hex(16)
        body = json.dumps({"turn": turn, "decided": decided}).encode()
        mode: Any = "create" if tag is None else {"e_tag": tag}
        with in_our_words():
            try:
                return str(obstore.put(self._store, RECORD, body, mode=mode, use_multipart=False)["e_tag"])
            except (AlreadyExistsError, PreconditionError):
                pass
        there, found = self.read()
        return there if found["turn"] == turn else None


class StoreTable:
    """A HudiTable in a store, with the same verbs."""

    def __init__(self, table: HudiTable, place: Prefix, label: str) -> None:
        self._table = table
        self._record = Record(place)
        self._label = label
        self._tags: dict[str, str | None] = {}
        self.create = table.create
        self.look = table.look
        self.settings = table.settings
        self.schema = table.schema
        self.maintain = table.maintain
        self.snapshot = table.snapshot
        self.instants = table.instants

    def open(self) -> Mapping[str, str]:
        """Take the turn; complete what is decided; roll back what else is pending. The state of our newest commit."""
        for _ in range(ATTEMPTS):
            tag, body = self._read()
            with durable_step("hudi.turn"):
                mine = self._take_turn(tag, body["decided"])
            if mine is None:
                continue
            self._complete(body["decided"])
            decided = (body["decided"] or {}).get("instant")
            listed = [instant for instant in self._table.pending() if instant != decided]
            if self._read()[0] != mine:
                continue
            for instant in listed:
                self._table.abandon(instant)
            return self._table.look()
        raise SinkUnavailable(f"Others open {self._label} again and again.")

    def write(
        self, file: Path | None, schema: str, operation: str, *, owner: str, expected: str | None
    ) -> Sequence[str]:
        """As HudiTable's. What is decided by then is completed first."""
        tag, body = self._read()
        self._complete(body["decided"])
        answer = self._table.write(file, schema, operation, owner=owner, expected=expected)
        if answer[0] == "written":
            self._tags[answer[1]] = tag
        return answer

    def commit(self, instant: str, *, owner: str, expected: str | None, new: str | None) -> Sequence[str]:
        """As HudiTable's: decided, then completed."""
        tag = self._tags.pop(instant)
        word, text = self._table.seal(instant, owner=owner, expected=expected, new=new)
        if word != "sealed":
            return word, text
        decided = {"instant": instant, "metadata": text}
        with durable_step("hudi.decide"):
            mine = self._decide(tag, decided)
        if mine is None and not self._was_decided(instant):
            return "gone", ""
        self._complete(decided)
        return "done", ""

    def _decide(self, tag: str | None, decided: Body) -> str | None:
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

    def abandon(self, instant: str) -> None:
        """Forget what was written and is not decided."""
        self._tags.pop(instant, None)
        self._table.abandon(instant)

    def _complete(self, decided: Body | None) -> None:
        if decided is not None:
            with durable_step("hudi.complete"):
                self._table.complete(decided["instant"], decided["metadata"])

    def _take_turn(self, tag: str | None, decided: Body | None) -> str | None:
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
