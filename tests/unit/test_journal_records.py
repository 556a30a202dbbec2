"""What records hold comes back from the journal as it was."""

from __future__ import annotations

import json

from onefold.protocols import JournalRecord
from onefold.records import PAYLOAD, STATE, Seal, SinkEntry, Start, StateDelta
from onefold.types import EpochNumber, PartitionId, Receipt, SealId, Token

EPOCH = EpochNumber(3)


def written(record: JournalRecord) -> JournalRecord:
    """As the journal keeps it: the header as JSON text."""
    return JournalRecord(record.kind, json.loads(json.dumps(record.header)), record.attachments)


def seal() -> Seal:
    return Seal(
        epoch=EPOCH,
        seal=SealId("s3"),
        previous="s2",
        ends={"in": {PartitionId("0"): {"file": "é", "at": 7}}},
        receipts={
            "small": (Receipt(EPOCH, "spool", 2, 16, {"size": 9, "checksum": "c"}, b"\x00rows"),),
            "large": (Receipt(EPOCH, "spool", 5, 99, {"file": "f.arrow"}), Receipt(EPOCH, "native", 1, 8, {"x": [1]})),
            "and/one with a slash/0": (Receipt(EPOCH, "spool", 1, 8, {}, b"slash"),),
        },
        deltas=(StateDelta("dedup", {"size": 1}, b"delta"), StateDelta("read:in", {"file": "d.arrow"}, None)),
        watermarks={"in": {PartitionId("0"): -5, PartitionId("1"): None}},
        books={"operators": {}, "sinks": {"small": {"digest": "ff"}}},
        totals={"operators": {}, "sinks": {}},
        sealed_at=1.5,
    )


def test_a_seal_comes_back_as_it_was() -> None:
    assert Seal.of(written(seal().record())) == seal()


def test_small_payloads_are_attachments_so_that_they_can_be_stripped() -> None:
    record = seal().record()
    assert {name.split("/")[0] + "/" for name in record.attachments} == {PAYLOAD, STATE}
    stripped = Seal.of(JournalRecord("seal", written(record).header))
    assert stripped == seal().without_payload()


def test_the_chain_knows_rows_and_sizes_by_sink() -> None:
    header = seal().chain_header(has_payload=True)
    assert header.rows == {"small": 2, "large": 6, "and/one with a slash/0": 1}
    assert header.sizes == {"small": 16, "large": 107, "and/one with a slash/0": 8}
    assert header.token() == Token(EPOCH, SealId("s3"), seal().ends)


def test_a_start_comes_back_as_it_was() -> None:
    token = Token(EPOCH, SealId("s3"), {"in": {PartitionId("0"): 7}})
    sinks = {
        "a": SinkEntry({"target": "t", "key": ["k"]}, EpochNumber(1)),
        "b": SinkEntry({"target": "u"}, EpochNumber(4), token, EpochNumber(2), retired=True),
    }
    start = Start({"pid": 1}, {"path": "/p"}, {"nodes": {}}, sinks, "ab" * 16, "0.1")
    again = Start.of(written(start.record()))
    assert again == start
    assert again.sinks["b"].base is not None
    assert again.sinks["b"].base.ends == token.ends
    assert Start.from_json(json.loads(json.dumps(start.to_json()))) == start
