"""Looking at bytes, against NumPy's answers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onefold.kernel.scan import all_among, count_of, is_in, places_of

TEXTS = st.one_of(st.binary(max_size=40), st.binary(max_size=3).map(lambda piece: (piece or b"x") * 400))


@given(TEXTS, st.integers(0, 255), st.integers(0, 7))
def test_bytes_are_found_where_they_are(text: bytes, byte: int, offset: int) -> None:
    octets = np.frombuffer(text, np.uint8)[offset:]
    expected = np.flatnonzero(octets == byte)
    assert places_of(octets, byte).tolist() == expected.tolist()
    assert count_of(octets, byte) == len(expected)
    assert is_in(octets, byte) == bool(len(expected))


@given(TEXTS, st.sets(st.integers(0, 255)))
def test_every_byte_is_looked_up(text: bytes, allowed: set[int]) -> None:
    table = np.zeros(256, np.uint8)
    table[list(allowed)] = 1
    assert all_among(np.frombuffer(text, np.uint8), table) == (set(text) <= allowed)


@pytest.mark.parametrize("size", [239, 240, 241, 480, 1000])
def test_matches_beyond_one_block_of_counting(size: int) -> None:
    octets = np.full(size, 7, np.uint8)
    assert count_of(octets, 7) == size
    assert places_of(octets, 7).tolist() == list(range(size))


def test_a_table_has_a_place_for_every_byte() -> None:
    with pytest.raises(ValueError, match="256"):
        all_among(np.zeros(1, np.uint8), np.zeros(255, np.uint8))
