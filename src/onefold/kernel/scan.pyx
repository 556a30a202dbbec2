# cython: boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Looking at bytes, at memory speed: what NumPy answers only by way of an array of truth values as large as the input.

Nothing here holds Python's lock while it looks.
"""

from libc.stdint cimport int64_t, uint8_t
from libc.string cimport memchr

import numpy as np


cdef enum:
    BLOCK = 240  # matches that are counted in one byte, which compilers turn into the widest instructions there are


cdef int64_t _count(const uint8_t *here, int64_t size, uint8_t byte) noexcept nogil:
    cdef int64_t count = 0, place
    cdef uint8_t in_block
    while size >= BLOCK:
        in_block = 0
        for place in range(BLOCK):
            in_block += here[place] == byte
        count += in_block
        here += BLOCK
        size -= BLOCK
    for place in range(size):
        count += here[place] == byte
    return count


cdef void _places(const uint8_t *first, int64_t size, uint8_t byte, int64_t *places, int64_t count) noexcept nogil:
    cdef const uint8_t *here = first
    cdef int64_t number
    for number in range(count):
        here = <const uint8_t *>memchr(here, byte, first + size - here)
        places[number] = here - first
        here += 1


cdef bint _all_among(const uint8_t *here, int64_t size, const uint8_t *allowed) noexcept nogil:
    cdef uint8_t are_among = 1
    cdef int64_t place
    for place in range(size):
        are_among &= allowed[here[place]]
    return are_among


def count_of(const uint8_t[::1] octets, uint8_t byte):
    """How often the byte occurs."""
    cdef int64_t count = 0
    if octets.shape[0]:
        with nogil:
            count = _count(&octets[0], octets.shape[0], byte)
    return count


def is_in(const uint8_t[::1] octets, uint8_t byte):
    """Whether the byte occurs."""
    cdef bint is_found = False
    if octets.shape[0]:
        with nogil:
            is_found = memchr(&octets[0], byte, octets.shape[0]) != NULL
    return is_found


def places_of(const uint8_t[::1] octets, uint8_t byte):
    """Where the byte occurs, ascending, as int64."""
    cdef int64_t count = count_of(octets, byte)
    found = np.empty(count, np.int64)
    cdef int64_t[::1] places = found
    if count:
        with nogil:
            _places(&octets[0], octets.shape[0], byte, &places[0], count)
    return found


def all_among(const uint8_t[::1] octets, const uint8_t[::1] allowed):
    """Whether allowed[byte] is 1 for every byte. allowed: 256 of them, each 0 or 1."""
    cdef bint are_among = True
    if allowed.shape[0] != 256:
        raise ValueError("a table for bytes has 256 places")
    if octets.shape[0]:
        with nogil:
            are_among = _all_among(&octets[0], octets.shape[0], &allowed[0])
    return are_among
