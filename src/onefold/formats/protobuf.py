"""Protobuf with a schema registry, by Google's library, which needs no generated code: descriptors come as schemas.

The registry must give schemas in serialized form (`format=serialized`), as Confluent's does since 7.0; text in the
.proto language is not compiled here. Behind the schema id stand the indexes of the message type in its file.
Source: Confluent, "Formats, Serializers, and Deserializers for Schema Registry", section Wire format.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from onefold.errors import ExtraMissing, RowsRefused, SchemaError, SourceError
from onefold.formats.exact import Unfit
from onefold.formats.framed import Framed, Reader, fit_columns
from onefold.formats.framing import Group
from onefold.formats.protobuf_types import Cell, cell_of
from onefold.formats.protobuf_write import add_fields, values_for
from onefold.formats.registry import Registry, Subject, WriterSchema
from onefold.formats.rows import Part, Refusals
from onefold.protocols import Encoder

__all__ = ["Protobuf", "protobuf"]

_ROOT = "onefold/root.proto"
_MOST_INDEXES = 100
_KNOWN = ("timestamp", "wrappers", "struct", "duration", "any", "empty", "field_mask", "type", "api", "source_context",
          "descriptor")  # fmt: skip


def protobuf(
    registry: Registry | str, *, subject: str | None = None, message: str | None = None, register: bool = True
) -> Protobuf:
    """Protobuf messages with a schema registry.

    Args:
        registry: of.schema_registry(…), or its address.
        subject: where the schema of the values is kept; None: TOPIC-value.
        message: the message type of the schema to write, or to take the columns from; None: the first.
        register: whether we register what we write: the newest schema with fields added for new columns. If not, the
            newest schema is written as it is.
    """
    made = Protobuf(registry, subject=subject, register=register)
    made.message = message
    return made


class _TextOnly(SchemaError):
    """A schema in the .proto language."""


class Protobuf(Framed):
    """What `of.protobuf(…)` gives."""

    kind = "PROTOBUF"
    word = "protobuf"
    message: str | None = None

    def _reader_of(self, schema: WriterSchema) -> Reader:
        try:
            return _ProtobufReader(_File(schema))
        except _TextOnly as error:  # no message's fault: none may become a dead letter for it
            raise SourceError(error.summary, expected=error.expected, next_step=error.next_step) from None

    def _columns_of(self, schema: WriterSchema) -> pa.Schema:
        file = _File(schema)
        kind = file.at(file.path_of(self.message))
        return pa.schema([cell_of(field, above=(kind.full_name,)).inferred for field in kind.fields])

    def _schema_for(self, schema: pa.Schema, name: str, newest: Subject | None) -> WriterSchema:
        library()
        from google.protobuf import descriptor_pb2

        if newest is None:
            file = descriptor_pb2.FileDescriptorProto(name=f"{name}.proto", syntax="proto3")
            file.dependency.append("google/protobuf/timestamp.proto")
            kind = file.message_type.add(name=self.message or (name if name[:1].isalpha() else f"T{name}"))
            add_fields(kind, list(schema))
            return WriterSchema("PROTOBUF", _text(file))
        known = _File(newest.schema)
        file = known.proto
        kind = known.proto_at(known.path_of(self.message))
        if not add_fields(kind, list(schema)):
            return newest.schema
        if newest.schema.references:
            raise SchemaError(
                "The schema of the subject lacks columns and refers to others, so onefold does not change it.",
                subject=newest.name, next_step="Register a schema with all columns, and say register=False.",
            )  # fmt: skip
        if "google/protobuf/timestamp.proto" not in file.dependency:
            file.dependency.append("google/protobuf/timestamp.proto")
        return WriterSchema("PROTOBUF", _text(file))

    def _encoder_to(self, wanted: WriterSchema, schema: pa.Schema) -> tuple[bytes, Encoder]:
        file = _File(wanted)
        path = file.path_of(self.message)
        kind = file.at(path)
        values_of, make = values_for(kind, schema), file.maker(kind)

        def encode(rows: pa.Table) -> pa.LargeBinaryArray:
            made = []
            for values in values_of(rows):
                try:
                    made.append(make(**values).SerializeToString(deterministic=True))
                except Exception as error:  # noqa: BLE001 - whatever the library raises for a value
                    raise RowsRefused("A row is no message of its schema.", found=str(error)[:200]) from None
            return pa.array(made, pa.large_binary())

        return _indexes(path), encode


class _File:
    """A file of message types, loaded into a pool of its own. Raises SchemaError, ExtraMissing."""

    def __init__(self, schema: WriterSchema) -> None:
        library()
        from google.protobuf import descriptor_pool

        self._references = dict(schema.references)
        self._pool = descriptor_pool.DescriptorPool()
        self._added: set[str] = set()
        self.proto = _proto(schema.text)
        self.proto.name = _ROOT
        try:
            self._add(self.proto, ())
            self._pool.FindFileByName(_ROOT)
        except (TypeError, KeyError, ValueError) as error:
            raise SchemaError("This Protobuf schema cannot be loaded.", found=str(error)[:200]) from None

    def path_of(self, message: str | None) -> tuple[int, ...]:
        """The indexes of a message type by its name, with or without the package; of the first. Raises SchemaError."""
        names = dict(self._paths(self.proto.message_type, (), self.proto.package))
        for path, name in names.items():
            if message is None or message in (name, name.removeprefix(f"{self.proto.package}.")):
                return path
        raise SchemaError(f"The schema has no message {message or ''}.", found=", ".join(names.values()))

    def proto_at(self, path: tuple[int, ...]) -> Any:
        """The definition (a DescriptorProto) of a message type. Raises IndexError."""
        found = self.proto.message_type[path[0]]
        for place in path[1:]:
            found = found.nested_type[place]
        return found

    def at(self, path: tuple[int, ...]) -> Any:
        """The descriptor of a message type. Raises IndexError."""
        names, found = [self.proto.package] if self.proto.package else [], self.proto.message_type[path[0]]
        names.append(found.name)
        for place in path[1:]:
            found = found.nested_type[place]
            names.append(found.name)
        return self._pool.FindMessageTypeByName(".".join(names))

    def maker(self, descriptor: Any) -> Any:
        """The class of its messages."""
        from google.protobuf import message_factory

        return message_factory.GetMessageClass(descriptor)

    def _paths(self, types: Any, path: tuple[int, ...], space: str) -> Iterator[tuple[tuple[int, ...], str]]:
        for place, kind in enumerate(types):
            if not kind.options.map_entry:
                name = f"{space}.{kind.name}" if space else kind.name
                yield (*path, place), name
                yield from self._paths(kind.nested_type, (*path, place), name)

    def _add(self, file: Any, above: tuple[str, ...]) -> None:
        if file.name in self._added:
            return
        if file.name in above:
            raise ValueError(f"{file.name} refers to itself")
        for name in file.dependency:
            self._add(self._dependency(name), (*above, file.name))
        self._pool.AddSerializedFile(file.SerializeToString())
        self._added.add(file.name)

    def _dependency(self, name: str) -> Any:
        from google.protobuf import descriptor_pb2, descriptor_pool

        if name in self._references:
            file = _proto(self._references[name])
            file.name = name
            return file
        file = descriptor_pb2.FileDescriptorProto()
        descriptor_pool.Default().FindFileByName(name).CopyToProto(file)
        return file


class _ProtobufReader:
    """Messages of one schema; of several types, if they come."""

    def __init__(self, file: _File) -> None:
        self._file = file
        self._made: dict[tuple[int, ...], tuple[Any, Any]] = {}

    def read(self, group: Group, schema: pa.Schema, refusals: Refusals, *, is_lenient: bool) -> Part:
        """See onefold.formats.framed.Reader."""
        kinds: dict[tuple[int, ...], list[tuple[int, bytes]]] = {}
        for row, body in zip(group.index.tolist(), group.bodies.to_pylist(), strict=True):
            try:
                path, start = _path(body)
                if path not in self._made:
                    descriptor = self._file.at(path)
                    self._made[path] = descriptor, self._file.maker(descriptor)
            except (ValueError, IndexError):
                refusals.add(row, "malformed", f"schema {group.schema_id} has no message type as the value names it")
                continue
            kinds.setdefault(path, []).append((row, body[start:]))
        parts = [
            self._rows(path, rows, schema, refusals=refusals, schema_id=group.schema_id, is_lenient=is_lenient)
            for path, rows in kinds.items()
        ]
        if len(parts) == 1:
            return parts[0]
        index = np.concatenate([np.empty(0, np.int64), *(part.index for part in parts)])
        order = np.argsort(index, kind="stable")
        tables = [schema.empty_table(), *(part.rows for part in parts)]
        return Part(index[order], pa.concat_tables(tables).take(order))

    def _rows(
        self,
        path: tuple[int, ...],
        rows: list[tuple[int, bytes]],
        schema: pa.Schema,
        *,
        refusals: Refusals,
        schema_id: int,
        is_lenient: bool,
    ) -> Part:
        descriptor, make = self._made[path]
        try:
            cells = [
                cell_of(descriptor.fields_by_name[name], above=(descriptor.full_name,))
                for name in schema.names
                if name in descriptor.fields_by_name
            ]
        except SchemaError as error:
            for row, _ in rows:
                refusals.add(row, "misfit", f"schema {schema_id}: {error.summary}")
            return Part(np.empty(0, np.int64), schema.empty_table())
        index, columns = _cells(rows, make, cells, refusals, schema_id)
        if not cells:
            nulls = [pa.nulls(len(index), field.type) for field in schema]
            return Part(index, pa.Table.from_arrays(nulls, schema=schema))
        arrays = [pa.array(column, cell.field.type) for column, cell in zip(columns, cells, strict=True)]
        table = pa.table(arrays, schema=pa.schema([cell.field for cell in cells]))
        return fit_columns(table, Part(index, table), schema, refusals, schema_id=schema_id, is_lenient=is_lenient)


def _cells(
    rows: list[tuple[int, bytes]], make: Any, cells: list[Cell], refusals: Refusals, schema_id: int
) -> tuple[Any, list[list[Any]]]:
    index: list[int] = []
    columns: list[list[Any]] = [[] for _ in cells]
    for row, body in rows:
        values: list[Any] = []
        try:
            message = make.FromString(body)
            if not message.IsInitialized():
                raise ValueError("a required field is missing")
            for cell in cells:
                values.append(cell.value(message))  # noqa: PERF401 - the error names the column it stands at
        except Unfit as error:
            refusals.add(row, "misfit", f"{cells[len(values)].field.name}: {error}")
        except Exception as error:  # noqa: BLE001 - whatever the library raises for wrong bytes
            refusals.add(row, "malformed", f"not what schema {schema_id} says: {type(error).__name__}: {error}")
        else:
            index.append(row)
            for column, value in zip(columns, values, strict=True):
                column.append(value)
    return np.asarray(index, np.int64), columns


def _path(body: bytes) -> tuple[tuple[int, ...], int]:
    """The indexes of the message type, and where the message begins. Raises ValueError, IndexError."""
    if body[0] == 0:  # the first type is written so
        return (0,), 1
    count, at = _varint(body, 0)
    if not 0 < count <= _MOST_INDEXES:
        raise ValueError("no indexes")
    found = []
    for _ in range(count):
        number, at = _varint(body, at)
        if number < 0:
            raise ValueError("no index")
        found.append(number)
    return tuple(found), at


def _varint(body: bytes, at: int) -> tuple[int, int]:
    """A zigzag number of at most five bytes, and the place after it."""
    value = shift = 0
    while True:
        byte = body[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (value >> 1) ^ -(value & 1), at
        shift += 7
        if shift > 28:
            raise ValueError("no number")


def _indexes(path: tuple[int, ...]) -> bytes:
    if path == (0,):
        return b"\0"
    out = bytearray()
    for number in (len(path), *path):
        left = number << 1
        while left > 0x7F:
            out.append(left & 0x7F | 0x80)
            left >>= 7
        out.append(left)
    return bytes(out)


def _proto(text: str) -> Any:
    """A FileDescriptorProto from a registry's text. Raises SchemaError."""
    from google.protobuf import descriptor_pb2
    from google.protobuf.message import DecodeError

    try:
        return descriptor_pb2.FileDescriptorProto.FromString(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError, DecodeError):
        raise _TextOnly(
            "The registry gave a Protobuf schema as text.", expected="its serialized form (format=serialized)",
            next_step="Use a registry that gives it, or register the serialized descriptor.",
        ) from None  # fmt: skip


def _text(file: Any) -> str:
    return base64.b64encode(file.SerializeToString(deterministic=True)).decode("ascii")


def library() -> None:
    """Load the library with the types that everyone knows. Raises ExtraMissing."""
    import importlib

    try:
        for name in _KNOWN:
            importlib.import_module(f"google.protobuf.{name}_pb2")
    except ImportError:
        raise ExtraMissing("Protobuf needs protobuf.", next_step="pip install 'onefold[protobuf]'") from None
    for name in ("date", "timeofday", "money", "datetime", "latlng", "decimal"):
        try:
            importlib.import_module(f"google.type.{name}_pb2")
        except ImportError:
            break
    try:
        importlib.import_module("confluent_kafka.schema_registry.confluent.type.decimal_pb2")
        importlib.import_module("confluent_kafka.schema_registry.confluent.meta_pb2")
    except ImportError:
        return
