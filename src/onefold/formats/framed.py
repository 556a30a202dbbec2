"""What the formats of a schema registry share: a message is read with the schema that it was written with.

A message without a schema id is "malformed", and so is one that does not hold what its schema says; one whose id the
registry does not know, or whose schema cannot be used, is "unknown-schema"; a value that does not fit its column is a
"misfit". A registry that does not answer is SourceUnavailable: it never turns messages into dead letters.
A column that the writer's schema does not have is NULL; fields that are not declared are dropped.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Protocol, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from onefold.errors import OnefoldError, SchemaError, SinkUnavailable, SourceUnavailable
from onefold.formats.casts import fit_part
from onefold.formats.framing import Group, framed, trimmed, unframed
from onefold.formats.registry import Kind, Registry, Subject, WriterSchema, registry_of
from onefold.formats.rows import Part, Refusals, around_nulls, gather
from onefold.formats.types import is_json, marked
from onefold.formats.write import json_values
from onefold.protocols import CheckResult, Decoded, Encoder
from onefold.types import Binding

__all__ = ["Framed", "Reader", "fit_columns"]

_MOST_READERS = 10_000


class Reader(Protocol):
    """Decodes messages of one schema."""

    def read(self, group: Group, schema: pa.Schema, refusals: Refusals, *, is_lenient: bool) -> Part:
        """Rows of exactly the declared schema; every other one is refused."""
        ...


Found: TypeAlias = "Reader | str"
"""A reader, or why there is none."""


class Framed(ABC):
    """A format whose messages name their schema.

    Args:
        registry: or its address.
        subject: where the schema of the values is kept; None: TOPIC-value.
        schema: the text of the schema to write, and in Avro to read as; None: made from the columns.
        register: whether a schema that is not there yet is registered by us. If not, the newest of the subject is
            written, or `schema`, which must be there.
    """

    kind: ClassVar[Kind]
    word: ClassVar[str]

    def __init__(
        self, registry: Registry | str, *, subject: str | None = None, schema: str | None = None, register: bool = True
    ) -> None:
        self._registry = registry_of(registry)
        self._subject = subject
        self._text = schema
        self._may_register = register
        self._readers: dict[int, Found] = {}

    @property
    def name(self) -> str:
        """The format's word, such as avro."""
        return self.word

    @property
    def label(self) -> str:
        """For people; no secrets."""
        return f"{self.word}({self._registry.label})"

    def __repr__(self) -> str:
        return f"<{self.label}>"

    def decode(self, payload: pa.Array | pa.ChunkedArray, schema: pa.Schema, *, is_lenient: bool) -> Decoded:
        """Decode each message; one without a value (a tombstone) is a row of NULLs. Raises SourceUnavailable."""
        return around_nulls(payload, schema, lambda there: self._decode(there, schema, is_lenient))

    def infer_schema(self, topics: Sequence[str]) -> pa.Schema:
        """The columns of the newest schema of the subject. Raises SourceUnavailable, SchemaError."""
        subject = self._subject
        if subject is None:
            if len(topics) != 1 or topics[0].startswith("^"):
                raise SchemaError(
                    "Several topics have no one schema.", found=", ".join(topics), next_step="Say subject=, or schema=."
                )
            subject = f"{topics[0]}-value"
        newest = self._registry.latest(subject, self.kind, SourceUnavailable)
        if newest is None:
            raise self._missing(subject)
        return self._columns_of(self._checked(newest).schema)

    def encoder(self, schema: pa.Schema, topic: str) -> Encoder:
        """Finds or registers the schema of the rows. Raises SchemaError, SinkUnavailable, SinkRefused."""
        subject = self._subject or f"{topic}-value"
        newest = self._registry.latest(subject, self.kind, SinkUnavailable)
        if newest is not None:
            self._checked(newest)
        if self._text is not None:
            wanted = WriterSchema(self.kind, self._text)
        elif self._may_register:
            wanted = self._schema_for(schema, re.sub(r"\W", "_", topic, flags=re.ASCII), newest)
        elif newest is not None:
            wanted = newest.schema
        else:
            raise self._missing(subject)
        extra, encode = self._encoder_to(wanted, schema)
        number = self._id_of(subject, wanted, newest)
        return lambda rows: framed(number, encode(rows), extra=extra)

    def check(self, binding: Binding | None) -> Sequence[CheckResult]:
        """Does the registry answer, and does it keep schemas of this kind? For `onefold doctor`."""
        try:
            kinds = self._registry.kinds()
        except OnefoldError as error:
            return [CheckResult(self._registry.label, "failed", error.summary, error.next_step or "")]
        if self.kind not in kinds:
            found = f"it keeps {', '.join(kinds)}"
            return [CheckResult(self._registry.label, "failed", found, f"Use a registry that keeps {self.kind}.")]
        return [CheckResult(self._registry.label, "ok", "it answers")]

    # ---------------------------------------------------------------------------------------------- of each format

    @abstractmethod
    def _reader_of(self, schema: WriterSchema) -> Reader:
        """Raises SchemaError for a schema that cannot be used."""

    @abstractmethod
    def _columns_of(self, schema: WriterSchema) -> pa.Schema:
        """Raises SchemaError."""

    @abstractmethod
    def _schema_for(self, schema: pa.Schema, name: str, newest: Subject | None) -> WriterSchema:
        """A schema to register for rows of these columns. Raises SchemaError."""

    @abstractmethod
    def _encoder_to(self, wanted: WriterSchema, schema: pa.Schema) -> tuple[bytes, Encoder]:
        """What stands behind the id in each message, and the bodies. Raises SchemaError."""

    # ------------------------------------------------------------------------------------------------------- inner

    def _decode(self, payload: pa.Array | pa.ChunkedArray, schema: pa.Schema, is_lenient: bool) -> Decoded:
        refusals = Refusals()
        parts = []
        for group in unframed(payload, refusals):
            reader = self._reader(group.schema_id)
            if isinstance(reader, str):
                for row in group.index.tolist():
                    refusals.add(row, "unknown-schema", reader)
            else:
                parts.append(reader.read(group, schema, refusals, is_lenient=is_lenient))
        return gather(schema, parts, refusals, total=len(payload))

    def _reader(self, number: int) -> Found:
        found = self._readers.get(number)
        if found is not None:
            return found
        schema = self._registry.by_id(number, self.kind)
        if schema is None:  # not remembered: it may be registered later
            return f"the registry has no {self.kind} schema {number}"
        try:
            found = self._reader_of(schema)
        except SchemaError as error:
            found = f"schema {number} cannot be used: {error.summary}"
        if len(self._readers) >= _MOST_READERS:
            self._readers.pop(next(iter(self._readers)), None)
        self._readers[number] = found
        return found

    def _id_of(self, subject: str, wanted: WriterSchema, newest: Subject | None) -> int:
        if newest is not None and wanted == newest.schema:
            return newest.id
        if self._may_register:
            return self._registry.register(subject, wanted)
        number = self._registry.lookup(subject, wanted)
        if number is None:
            raise self._missing(subject)
        return number

    def _checked(self, newest: Subject) -> Subject:
        if newest.schema.kind != self.kind:
            raise SchemaError(
                f"The subject {newest.name} holds schemas of another kind.",
                found=newest.schema.kind, expected=self.kind, next_step="Choose that format, or say subject=.",
            )  # fmt: skip
        return newest

    def _missing(self, subject: str) -> SchemaError:
        return SchemaError(
            f"{self._registry.label} has no such schema for {subject}.",
            subject=subject,
            next_step="Register it, correct subject=, or declare the columns with schema=.",
        )


def fit_columns(
    table: pa.Table, part: Part, schema: pa.Schema, refusals: Refusals, *, schema_id: int, is_lenient: bool
) -> Part:
    """Decoded columns as the declared ones. part: of `table`, only its index counts.

    A column whose type never fits makes all rows of its schema misfits: other messages may have another schema.
    """
    columns = {}
    for name in table.column_names:
        column = table.column(name)
        place = schema.get_field_index(name)
        if is_json(schema.field(place)) and not _is_text(column.type):
            objects = json_values(pa.table({"v": column}))
            text = trimmed(objects, len(b'{"v":'), len(b"}")).cast(pa.string())
            column = pc.if_else(column.is_valid(), text, pa.scalar(None, pa.string()))
            columns[marked(name, "JSON")] = column
        else:
            columns[table.schema.field(name)] = column
    ready = pa.table(list(columns.values()), schema=pa.schema(list(columns))) if columns else table
    try:
        return fit_part(ready, part.index, schema, refusals, is_lenient=is_lenient)
    except SchemaError as error:
        for row in part.index.tolist():
            refusals.add(row, "misfit", f"schema {schema_id}: {error.summary}")
        return Part(part.index[:0], schema.empty_table())


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))
