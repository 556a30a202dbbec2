"""The ports: what the engine asks of a source, a sink, a spool, a journal, and what is true if killed inside.

The shape of Source and Sink is deliberately that of Spark's Python Data Source API (partitions, bounded reads with
opaque offsets, write -> commit message -> commit by the driver), so that one connector serves both engines.
ARCHITECTURE.md holds these verbs against Kafka, PostgreSQL, Delta, Spark and HTTP.
"""

from __future__ import annotations

from onefold.protocols.endpoints import Endpoint, describe
from onefold.protocols.formats import Decoded, Encoder, Format, KnowsColumns, Misfits, WritingFormat
from onefold.protocols.sinks import (
    Check,
    CheckResult,
    Maintain,
    Maintained,
    Paced,
    ReadBack,
    RefusedRow,
    Renewing,
    Sifting,
    Sink,
    SinkPromise,
    TwoPhase,
)
from onefold.protocols.sources import (
    Copied,
    Copy,
    Informed,
    LeavesTraces,
    Limit,
    Read,
    Reading,
    Remarking,
    SeesTargets,
    Source,
    SourcePromise,
)
from onefold.protocols.storage import Clock, Journal, JournalRecord, Spool

__all__ = [
    "Check", "CheckResult", "Clock", "Copied", "Copy", "Decoded", "Encoder", "Endpoint", "Format", "Informed",
    "Journal", "JournalRecord", "KnowsColumns", "LeavesTraces", "Limit", "Maintain", "Maintained", "Misfits", "Paced",
    "Read", "ReadBack", "Reading", "RefusedRow", "Remarking", "Renewing", "SeesTargets", "Sifting", "Sink",
    "SinkPromise", "Source", "SourcePromise", "Spool", "TwoPhase", "WritingFormat", "describe",
]  # fmt: skip
