"""`flow.read`: what an endpoint and its options become."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

from onefold.durations import Duration, duration_micros
from onefold.errors import BuildError, SchemaError
from onefold.flow import columns
from onefold.flow.graph import Draft, check_name
from onefold.plan import ReadNode
from onefold.protocols import Format, Informed, KnowsColumns, Reading, Source, describe

__all__ = ["ReadOptions", "read_draft"]


@dataclass(frozen=True)
class ReadOptions:
    """How a source is read.

    Args:
        format: how bytes become columns ("json", "csv", … or an object with a Format's verbs); None: as the endpoint
            says, else JSON.
        event_time: the column that says when it happened; TIMESTAMP, TIMESTAMPTZ or DATE.
        lateness: how far behind the newest event a row may be before it is late.
        max_ahead: a row further ahead of the newest event than this is a dead letter; None: no limit.
        casts: "exact" (a value that does not fit exactly is a dead letter) or "lenient" (rounding allowed).
        meta: columns of the source to keep beside the schema's, such as _file.
        name: of the read; it names the positions in the journal. Default: the endpoint's.
    """

    format: str | Format | None = None
    event_time: str | None = None
    lateness: Duration | None = None
    max_ahead: Duration | None = None
    casts: Literal["exact", "lenient"] = "exact"
    meta: Sequence[str] = ()
    name: str | None = None


def read_draft(flow: str, endpoint: Any, schema: object, options: ReadOptions) -> tuple[Draft, pa.Schema, str | None]:
    """A read to be, the schema of its rows, and its event time. Raises BuildError, SchemaError, NotSupported."""
    if options.casts not in ("exact", "lenient"):
        raise BuildError("There is no such kind of casts.", found=repr(options.casts), expected="exact or lenient")
    label = str(describe(endpoint))
    wanted = _format(options.format)
    source = _source_of(endpoint, wanted)
    kept_format = None if source.promise.payload == "rows" else wanted or _default_format(endpoint, source)
    declared = _declared(endpoint, source, schema, kept_format)
    rows = columns.schema_of([*declared, *_meta_fields(source, options.meta, label)], f"the read of {label}")
    lateness, max_ahead = _times(options, declared)
    name = check_name(options.name or str(getattr(endpoint, "default_name", "") or "read"), "A read")
    if isinstance(source, Informed):
        meta = (options.meta,) if isinstance(options.meta, str) else tuple(options.meta)
        source.told(Reading(flow, name, kept_format, declared, meta))

    def make(own: str, inputs: tuple[str, ...]) -> ReadNode:
        return ReadNode(
            own, inputs, rows, source, label, kept_format, declared, options.event_time, lateness, max_ahead,
            options.casts,
        )  # fmt: skip

    return Draft("read", name, (), make), rows, options.event_time


def _source_of(endpoint: Any, wanted: Format | None) -> Source:
    if hasattr(endpoint, "as_source"):
        source: Source = endpoint.as_source(wanted)
        return source
    if isinstance(endpoint, Source):
        return endpoint
    raise BuildError("This is nothing to read from.", found=repr(endpoint), expected="an endpoint, such as of.files(…)")


def _declared(endpoint: Any, source: Source, schema: object, format: Format | None) -> pa.Schema:  # noqa: A002
    if schema is not None:
        return columns.to_schema(schema)
    label = str(describe(endpoint))
    knowing: object = format
    if isinstance(knowing, KnowsColumns):
        topics = getattr(endpoint, "topic_names", (str(getattr(endpoint, "default_name", "") or "read"),))
        return columns.to_schema(knowing.infer_schema(topics))
    infer = getattr(endpoint, "infer_schema", None)
    if source.promise.payload == "bytes" or infer is None:
        raise SchemaError(
            f"The read of {label} needs a schema: the source does not know its columns.",
            expected='for instance schema={"event_id": "VARCHAR", "amount": "DECIMAL(18,2)"}',
        )
    return columns.schema_of(list(infer()), f"the schema of {label}")


def _meta_fields(source: Source, meta: Sequence[str], label: str) -> list[pa.Field]:
    offered = source.promise.meta
    for name in [meta] if isinstance(meta, str) else meta:
        columns.existing(name, offered, f"meta of {label}")
    return [_plain(offered.field(name)) for name in ([meta] if isinstance(meta, str) else meta)]


def _plain(column: pa.Field) -> pa.Field:
    """A source may repeat a file's name as a dictionary; rows of the flow hold the name itself."""
    return column.with_type(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def _times(options: ReadOptions, declared: pa.Schema) -> tuple[int | None, int | None]:
    if options.event_time is None:
        for name in ("lateness", "max_ahead"):
            if getattr(options, name) is not None:
                raise BuildError(f"{name} needs an event time.", next_step='Add event_time="column".')
        return None, None
    kind = declared.field(columns.existing(options.event_time, declared, "event_time")).type
    if not columns.is_event_time(kind):
        raise SchemaError(
            f"The column {options.event_time} cannot be the event time.",
            found=str(kind),
            expected="TIMESTAMP, TIMESTAMPTZ or DATE",
            next_step="Declare it so in the schema.",
        )
    ahead = None if options.max_ahead is None else duration_micros(options.max_ahead, what="max_ahead")
    return duration_micros(options.lateness or 0, what="lateness"), ahead


def _format(wanted: str | Format | None) -> Format | None:
    if wanted is None:
        return None
    if isinstance(wanted, str):
        return _format_named(wanted)
    if isinstance(wanted, Format):
        return wanted
    raise BuildError("This is no format.", found=repr(wanted), expected="a name, or an object with name and decode")


def _default_format(endpoint: Any, source: Source) -> Format:
    for part in (endpoint, source):
        own = getattr(part, "format", None)
        if isinstance(own, Format):
            return own
        name = getattr(part, "format_name", None)
        if isinstance(name, str):
            return _format_named(name)
    return _format_named("json")


def _format_named(name: str) -> Format:
    from onefold.formats import format_named

    return format_named(name)
