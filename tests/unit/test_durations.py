"""Durations, sizes and shares as people write them."""

from __future__ import annotations

from datetime import timedelta

import pytest

from onefold.durations import duration_micros, duration_text, share, size_bytes
from onefold.errors import BuildError


@pytest.mark.parametrize(
    ("written", "micros"),
    [
        ("10 minutes", 600_000_000),
        ("1 hour, 30 min", 5_400_000_000),
        ("500ms", 500_000),
        ("1.5 h", 5_400_000_000),
        (" 7 days ", 604_800_000_000),
        ("0 seconds", 0),
        ("3us", 3),
        (timedelta(days=1, microseconds=1), 86_400_000_001),
        (2, 2_000_000),
        (0.1, 100_000),
        (1.000001, 1_000_001),
    ],
)
def test_durations_are_exact_microseconds(written: object, micros: int) -> None:
    assert duration_micros(written) == micros  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "written",
    ["", " ", "ten minutes", "10", "-1 s", -1, "1 month", "2 years", "1 hour x", float("nan"), float("inf"), True, None,
     timedelta(seconds=-1), "9999999999 weeks"],
)  # fmt: skip
def test_what_is_no_fixed_length_of_time_is_refused(written: object) -> None:
    with pytest.raises(BuildError) as caught:
        duration_micros(written, what="lateness")  # type: ignore[arg-type]
    assert "lateness" in str(caught.value)


def test_a_duration_reads_back_as_the_same_one() -> None:
    for micros in (0, 1, 999, 60_000_000, 5_400_000_000, 86_400_000_000, 90_061_000_001):
        assert duration_micros(duration_text(micros)) == micros


@pytest.mark.parametrize(
    ("written", "size"), [("16 MiB", 16 << 20), ("1kb", 1000), ("1.5 GiB", 3 << 29), ("12", 12), (0, 0), ("5 B", 5)]
)
def test_sizes_are_bytes(written: str | int, size: int) -> None:
    assert size_bytes(written) == size


@pytest.mark.parametrize("written", ["", "MiB", "1 XB", -1, True, 1.5, None])
def test_what_is_no_size_is_refused(written: object) -> None:
    with pytest.raises(BuildError):
        size_bytes(written)  # type: ignore[arg-type]


@pytest.mark.parametrize(("written", "number"), [("1%", 0.01), ("0.5%", 0.005), (1, 1.0), ("100%", 1.0), ("0.2", 0.2)])
def test_shares_lie_between_nothing_and_all(written: str | float, number: float) -> None:
    assert share(written) == number


@pytest.mark.parametrize("written", ["101%", -0.1, 1.5, "half", None, True])
def test_what_is_no_share_is_refused(written: object) -> None:
    with pytest.raises(BuildError):
        share(written)  # type: ignore[arg-type]
