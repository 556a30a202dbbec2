"""Durations, sizes and shares as people write them: "10 minutes", "16 MiB", "1%"."""

from __future__ import annotations

import math
import re
from datetime import timedelta
from decimal import Decimal
from typing import TypeAlias

from onefold.errors import BuildError

__all__ = ["Duration", "duration_micros", "duration_text", "share", "size_bytes"]

Duration: TypeAlias = "str | timedelta | int | float"
"""Text such as "10 minutes", a timedelta, or a number of seconds."""

_MICROS = {
    "microsecond": 1,
    "millisecond": 1_000,
    "second": 1_000_000,
    "minute": 60_000_000,
    "hour": 3_600_000_000,
    "day": 86_400_000_000,
    "week": 604_800_000_000,
}
_SHORT = {
    "us": "microsecond", "µs": "microsecond", "ms": "millisecond", "s": "second", "sec": "second", "secs": "second",
    "m": "minute", "min": "minute", "mins": "minute", "h": "hour", "hr": "hour", "hrs": "hour", "d": "day", "w": "week",
}  # fmt: skip
_NO_FIXED_LENGTH = {"month", "months", "mon", "year", "years", "y"}
_BYTES = {
    "": 1, "b": 1, "byte": 1, "bytes": 1,
    "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
    "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40,
}  # fmt: skip
_TERM = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-zµ]+)\s*,?")
_SIZE = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*")
_LONGEST_MICROS = 1 << 62


def duration_micros(value: Duration, *, what: str = "duration") -> int:
    """A duration in whole microseconds.

    Raises BuildError when the text is not a duration, is negative, or uses months or years, which have no fixed length.

    >>> duration_micros("10 minutes")
    600000000
    >>> duration_micros("1 hour 30 min") == duration_micros(5400) == duration_micros("1.5h")
    True
    """
    if isinstance(value, bool) or not isinstance(value, str | timedelta | int | float):
        raise _not_a_duration(value, what)
    if isinstance(value, str):
        micros = _text_micros(value, what)
    elif isinstance(value, timedelta):
        micros = value // timedelta(microseconds=1)
    elif math.isfinite(value):
        micros = int(Decimal(str(value)) * 1_000_000)
    else:
        raise _not_a_duration(value, what)
    if not 0 <= micros <= _LONGEST_MICROS:
        raise _not_a_duration(value, what)
    return micros


def duration_text(micros: int) -> str:
    """The shortest words for a duration.

    >>> duration_text(5_400_000_000), duration_text(604_800_000_000)
    ('90 minutes', '7 days')
    """
    for unit in ("day", "hour", "minute", "second", "millisecond", "microsecond"):
        count, rest = divmod(micros, _MICROS[unit])
        if rest == 0 and count:
            return f"{count} {unit}" + ("" if count == 1 else "s")
    return "0 seconds"


def size_bytes(value: str | int, *, what: str = "size") -> int:
    """A size in bytes. KiB, MiB, GiB are powers of 1,024; KB, MB, GB of 1,000. Raises BuildError.

    >>> size_bytes("16 MiB"), size_bytes("2 GB"), size_bytes(100)
    (16777216, 2000000000, 100)
    """
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if match is None or match[2].lower() not in _BYTES:
        raise BuildError(f"{what} is not a size.", found=repr(value), expected='such as "16 MiB", "2 GB" or bytes')
    return int(Decimal(match[1]) * _BYTES[match[2].lower()])


def share(value: str | float, *, what: str = "share") -> float:
    """A share between 0 and 1, written as a number or in percent. Raises BuildError.

    >>> share("1%"), share(0.25)
    (0.01, 0.25)
    """
    number = -1.0
    if isinstance(value, str):
        match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*(%?)\s*", value)
        if match is not None:
            number = float(Decimal(match[1]) / (100 if match[2] else 1))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        number = float(value)
    if not 0.0 <= number <= 1.0:
        raise BuildError(f"{what} is not a share.", found=repr(value), expected='such as "1%" or 0.01, at most 100%')
    return number


def _text_micros(text: str, what: str) -> int:
    total, end = Decimal(0), 0
    while end < len(text.rstrip()):
        term = _TERM.match(text, end)
        if term is None:
            raise _not_a_duration(text, what)
        word = term[2].lower()
        if word in _NO_FIXED_LENGTH:
            raise BuildError(f"{what} uses {word}, which has no fixed length.", found=repr(text), expected="days")
        unit = _SHORT.get(word, word.removesuffix("s"))
        if unit not in _MICROS:
            raise _not_a_duration(text, what)
        total += Decimal(term[1]) * _MICROS[unit]
        end = term.end()
    if end == 0:
        raise _not_a_duration(text, what)
    return int(total)


def _not_a_duration(value: object, what: str) -> BuildError:
    return BuildError(
        f"{what} is not a duration.", found=repr(value), expected='such as "10 minutes", a timedelta or seconds'
    )
