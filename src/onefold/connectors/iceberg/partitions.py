"""Hidden partitioning as people write it: day(paid_at), bucket(16, id), merchant."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from onefold.errors import BuildError

__all__ = ["PartitionPart", "parse_partitions"]

_CALL = re.compile(r"\s*(\w+)\s*\(\s*(?:(\d+)\s*,\s*)?(.+?)\s*\)\s*")
_PLAIN = ("year", "month", "day", "hour")
_NUMBERED = ("bucket", "truncate")
_EXPECTED = "a column, year(c), month(c), day(c), hour(c), bucket(16, c) or truncate(10, c)"


@dataclass(frozen=True)
class PartitionPart:
    """One part of a table's partitioning: the column, what is done to it, and the number that some need."""

    column: str
    transform: str = "identity"
    number: int | None = None

    def __str__(self) -> str:
        if self.transform == "identity":
            return self.column
        return f"{self.transform}({'' if self.number is None else f'{self.number}, '}{self.column})"

    @property
    def iceberg_text(self) -> str:
        """As the format's specification writes the transform."""
        return self.transform if self.number is None else f"{self.transform}[{self.number}]"

    @property
    def field_name(self) -> str:
        """What the partition is called in the table."""
        suffixes = {"identity": "", "truncate": "_trunc"}
        return f"{self.column}{suffixes.get(self.transform, f'_{self.transform}')}"

    def as_transform(self) -> Any:
        """pyiceberg's."""
        from pyiceberg.transforms import parse_transform

        return parse_transform(self.iceberg_text)


def parse_partitions(texts: Iterable[str]) -> tuple[PartitionPart, ...]:
    """From text. Raises BuildError.

    >>> [str(part) for part in parse_partitions(["day( paid_at )", "bucket(16,id)", "merchant"])]
    ['day(paid_at)', 'bucket(16, id)', 'merchant']
    """
    return tuple(map(_parse, texts))


def _parse(text: str) -> PartitionPart:
    match = _CALL.fullmatch(text)
    if match is None:
        return PartitionPart(text.strip())
    name, number, column = match[1].lower(), match[2], match[3]
    if name in _PLAIN and number is None:
        return PartitionPart(column, name)
    if name in _NUMBERED and number is not None and int(number) > 0:
        return PartitionPart(column, name, int(number))
    raise BuildError("A table cannot be partitioned so.", found=text, expected=_EXPECTED)
