"""Avro with a schema registry, by fastavro. Types: onefold.formats.avro_types.

Without `schema`, a message is read with its writer's schema alone: what is missing there is NULL. With one, Avro's own
rules apply between the two: defaults, aliases, promotions.
A schema whose types hold themselves is not used: fastavro recurses without a limit, so one message could end the
process. Source: Apache Avro 1.12, Specification: Schema Resolution.
"""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pyarrow as pa

from onefold.errors import ExtraMissing, RowsRefused, SchemaError
from onefold.formats.avro_types import Named, Shape, names_of, plain, shape_of
from onefold.formats.avro_write import avro_schema, to_records
from onefold.formats.exact import Unfit
from onefold.formats.framed import Framed, Reader, fit_columns
from onefold.formats.framing import Group
from onefold.formats.registry import Registry, Subject, WriterSchema
from onefold.formats.rows import Part, Refusals
from onefold.formats.types import is_json
from onefold.protocols import Decoded, Encoder

__all__ = ["Avro", "avro"]


def avro(
    registry: Registry | str, *, subject: str | None = None, schema: str | None = None, register: bool = True
) -> Avro:
    """Avro messages with a schema registry.

    Args:
        registry: of.schema_registry(…), or its address.
        subject: where the schema of the values is kept; None: TOPIC-value.
        schema: an Avro schema as JSON: to write; and to read as, with its defaults.
        register: whether we register what we write. If not, the newest schema of the subject is written.
    """
    return Avro(registry, subject=subject, schema=schema, register=register)


class Avro(Framed):
    """What `of.avro(…)` gives."""

    kind = "AVRO"
    word = "avro"
    _parsed: _Schema | None = None

    def decode(self, payload: pa.Array | pa.ChunkedArray, schema: pa.Schema, *, is_lenient: bool) -> Decoded:
        """See Framed. Raises SchemaError as well when the schema to read as is none: that is no message's fault."""
        self._own()
        return super().decode(payload, schema, is_lenient=is_lenient)

    def _own(self) -> _Schema | None:
        if self._parsed is None and self._text is not None:
            self._parsed = _Schema(WriterSchema("AVRO", self._text))
        return self._parsed

    def _reader_of(self, schema: WriterSchema) -> Reader:
        return _AvroReader(_Schema(schema), self._own())

    def _columns_of(self, schema: WriterSchema) -> pa.Schema:
        return (self._own() or _Schema(schema)).columns()

    def _schema_for(self, schema: pa.Schema, name: str, newest: Subject | None) -> WriterSchema:
        return WriterSchema("AVRO", json.dumps(avro_schema(schema, name)))

    def _encoder_to(self, wanted: WriterSchema, schema: pa.Schema) -> tuple[bytes, Encoder]:
        parsed = _Schema(wanted)
        records_of = to_records(parsed.columns(), parsed.root, schema)
        write = fastavro().schemaless_writer

        def encode(rows: pa.Table) -> pa.LargeBinaryArray:
            made = []
            for record in records_of(rows):
                body = io.BytesIO()
                try:
                    write(body, parsed.parsed, record)
                except Exception as error:  # noqa: BLE001 - whatever fastavro raises for a value
                    raise RowsRefused("A row is no Avro record of its schema.", found=str(error)[:200]) from None
                made.append(body.getvalue())
            return pa.array(made, pa.large_binary())

        return b"", encode


class _Schema:
    """An Avro schema, understood. Raises SchemaError."""

    def __init__(self, schema: WriterSchema) -> None:
        library = fastavro()
        self.named: Named = {}
        known: dict[str, Any] = {}
        try:
            for _, text in schema.references:
                part = json.loads(text)
                names_of(part, self.named)
                library.parse_schema(plain(part), named_schemas=known)
            self.root = json.loads(schema.text)
            names_of(self.root, self.named)
            self.parsed = library.parse_schema(plain(self.root), named_schemas=known)
        except (ValueError, TypeError, KeyError, library.schema.SchemaParseException, library.schema.UnknownType) as e:
            raise SchemaError("This is no Avro schema.", found=f"{type(e).__name__}: {e}") from None
        self.is_record = isinstance(self.root, dict) and self.root.get("type") in ("record", "error")
        self.fields: dict[str, Any] = (
            {member["name"]: member["type"] for member in self.root["fields"]}
            if self.is_record
            else {"value": self.root}
        )
        self._space = ""
        own: tuple[str, ...] = ()
        if self.is_record:
            name = str(self.root["name"])
            self._space = str(self.root.get("namespace", name.rpartition(".")[0]))
            own = (name if "." in name or not self._space else f"{self._space}.{name}",)
        self._above = own
        self._refuse_recursion()

    def shape(self, name: str, *, as_json: bool = False) -> Shape:
        """Of one field."""
        return shape_of(name, self.fields[name], self.named, as_json=as_json, space=self._space, above=self._above)

    def columns(self) -> pa.Schema:
        """Of all fields; a union that is no column is JSON."""
        return pa.schema([self.shape(name, as_json=True).field for name in self.fields])

    def _refuse_recursion(self) -> None:
        def walk(kind: Any, space: str, above: tuple[str, ...]) -> None:
            if isinstance(kind, list):
                for branch in kind:
                    walk(branch, space, above)
            elif isinstance(kind, str):
                full = kind if kind in self.named or not space else f"{space}.{kind}"
                if full in above:
                    raise SchemaError(f"The type {full} holds itself, which no column can.")
                if full in self.named:
                    walk(self.named[full], space, above)
            elif isinstance(kind, dict):
                inner = kind.get("type")
                if inner in ("record", "error"):
                    name = str(kind["name"])
                    space = str(kind.get("namespace", space)) if "." not in name else name.rpartition(".")[0]
                    full = name if "." in name or not space else f"{space}.{name}"
                    if full in above:
                        raise SchemaError(f"The type {full} holds itself, which no column can.")
                    for member in kind["fields"]:
                        walk(member["type"], space, (*above, full))
                elif inner not in ("enum", "fixed"):
                    for part in (kind.get("items"), kind.get("values"), inner):
                        walk(part, space, above)

        walk(self.root, "", ())


class _AvroReader:
    """Messages of one writer's schema."""

    def __init__(self, writer: _Schema, reader: _Schema | None) -> None:
        self._writer = writer
        self._target = reader or writer
        self._reading = None if reader is None else reader.parsed

    def read(self, group: Group, schema: pa.Schema, refusals: Refusals, *, is_lenient: bool) -> Part:
        """See onefold.formats.framed.Reader."""
        index, records = self._records(group, refusals)
        dead: dict[int, str] = {}
        columns: dict[pa.Field, pa.Array] = {}
        for field in schema:
            if field.name in self._target.fields:
                try:
                    shape = self._target.shape(field.name, as_json=is_json(field))
                except SchemaError as error:
                    for row in index:
                        refusals.add(row, "misfit", f"schema {group.schema_id}: {field.name}: {error.summary}")
                    return Part(np.empty(0, np.int64), schema.empty_table())
                columns[shape.field] = _column(shape, [record[field.name] for record in records], dead)
        for place in sorted(dead):
            refusals.add(index[place], "misfit", dead[place])
        numbers = np.asarray(index, np.int64)
        if columns:
            table = pa.table(list(columns.values()), schema=pa.schema(list(columns)))
        else:
            table = pa.table({"_": pa.nulls(len(index))}).select([])
        if dead:
            keep = np.ones(len(index), bool)
            keep[list(dead)] = False
            numbers, table = numbers[keep], table.filter(pa.array(keep))
        if not columns:
            nulls = pa.Table.from_arrays([pa.nulls(len(numbers), field.type) for field in schema], schema=schema)
            return Part(numbers, nulls)
        part = Part(numbers, table)
        return fit_columns(table, part, schema, refusals, schema_id=group.schema_id, is_lenient=is_lenient)

    def _records(self, group: Group, refusals: Refusals) -> tuple[list[int], list[dict[str, Any]]]:
        read = fastavro().schemaless_reader
        index, records = [], []
        for row, body in zip(group.index.tolist(), group.bodies.to_pylist(), strict=True):
            stream = io.BytesIO(body)
            try:
                found = read(stream, self._writer.parsed, self._reading)
            except Exception as error:  # noqa: BLE001 - fastavro raises whatever wrong bytes lead to
                text = f"{type(error).__name__}: {error}"
                refusals.add(row, "malformed", f"not what schema {group.schema_id} says: {text}")
                continue
            if stream.tell() != len(body):
                left = len(body) - stream.tell()
                refusals.add(row, "malformed", f"{left} bytes more than schema {group.schema_id} says")
                continue
            index.append(row)
            records.append(found if self._target.is_record else {"value": found})
        return index, records


def _column(shape: Shape, values: list[Any], dead: dict[int, str]) -> pa.Array:
    convert = shape.convert
    if convert is not None:
        made: list[Any] = []
        for place, value in enumerate(values):
            try:
                made.append(None if value is None else convert(value))
            except Unfit as error:
                made.append(None)
                dead.setdefault(place, f"{shape.field.name}: {error}")
        values = made
    try:
        return pa.array(values, shape.field.type)
    except (pa.ArrowException, OverflowError):  # a writer may put more into an int than its 32 bits
        return pa.array([_alone(shape, value, place, dead) for place, value in enumerate(values)], shape.field.type)


def _alone(shape: Shape, value: Any, place: int, dead: dict[int, str]) -> Any:
    try:
        pa.array([value], shape.field.type)
    except (pa.ArrowException, OverflowError) as error:
        dead.setdefault(place, f"{shape.field.name}: {error}")
        return None
    return value


def fastavro() -> Any:
    """The library. Raises ExtraMissing."""
    try:
        import fastavro as library
        import fastavro.schema
    except ImportError:
        raise ExtraMissing("Avro needs fastavro.", next_step="pip install 'onefold[avro]'") from None
    return library
