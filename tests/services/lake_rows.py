"""Rows of many types, and how Spark shows one of them."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import pyarrow as pa


def typed(number: int) -> dict[str, Any]:
    """One of TYPES; its id is the number."""
    return {
        "id": number,
        "name": f"n{number} ü",
        "amount": Decimal("12.30") + number,
        "at": dt.datetime(1969, 1, 1, 0, 0, number, 123456),  # noqa: DTZ001 - naive on purpose
        "zoned": dt.datetime(2024, 1, 1, 0, 0, number, 654321, tzinfo=dt.UTC),
        "day": dt.date(2024, 1, 1 + number),
        "is_ok": bool(number % 2),
        "tags": ["x", None],
        "inner": {"a": number, "b": None},
        "counts": [("k", number)],
        "ratio": 0.1 * number,
        "body": b"\x00\xff",
    }


TYPES = pa.schema(
    [
        ("id", pa.int64()),
        ("name", pa.string()),
        ("amount", pa.decimal128(18, 2)),
        ("at", pa.timestamp("us")),
        ("zoned", pa.timestamp("us", "UTC")),
        ("day", pa.date32()),
        ("is_ok", pa.bool_()),
        ("tags", pa.list_(pa.string())),
        ("inner", pa.struct([("a", pa.int64()), ("b", pa.string())])),
        ("counts", pa.map_(pa.string(), pa.int64())),
        ("ratio", pa.float64()),
        ("body", pa.binary()),
    ]
)

SHOWN = [
    "2", "new", "14.30", "1969-01-01 00:00:02.123456", "2024-01-01 00:00:02.654321", "2024-01-03", "False",
    "['x', None]", "Row(a=2, b=None)", "{'k': 2}", "0.2", "bytearray(b'\\x00\\xff')",
]  # fmt: skip
"""`typed(2)` with the name "new", each value as Python's str of what Spark collects."""
