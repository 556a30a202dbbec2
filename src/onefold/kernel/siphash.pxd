# cython: cdivision=True
"""SipHash-2-4 with 128 bits of output (Aumasson and Bernstein, INDOCRYPT 2012, and the authors' 128-bit variant)."""

from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy


cdef inline uint64_t rotate(uint64_t x, int b) noexcept nogil:
    return (x << b) | (x >> (64 - b))


cdef inline void sip_round(uint64_t *v) noexcept nogil:
    v[0] += v[1]; v[2] += v[3]
    v[1] = rotate(v[1], 13) ^ v[0]
    v[3] = rotate(v[3], 16) ^ v[2]
    v[0] = rotate(v[0], 32)
    v[2] += v[1]; v[0] += v[3]
    v[1] = rotate(v[1], 17) ^ v[2]
    v[3] = rotate(v[3], 21) ^ v[0]
    v[2] = rotate(v[2], 32)


cdef inline void siphash_2_4_128(const uint8_t *bytes, size_t length, uint64_t k0, uint64_t k1, uint64_t *out) noexcept nogil:
    cdef uint64_t v[4]
    cdef uint64_t word
    cdef size_t i = 0
    cdef int r
    v[0] = k0 ^ <uint64_t> 0x736f6d6570736575
    v[1] = k1 ^ <uint64_t> 0x646f72616e646f6d ^ 0xee
    v[2] = k0 ^ <uint64_t> 0x6c7967656e657261
    v[3] = k1 ^ <uint64_t> 0x7465646279746573
    while i + 8 <= length:
        memcpy(&word, bytes + i, 8)
        v[3] ^= word
        sip_round(v); sip_round(v)
        v[0] ^= word
        i += 8
    word = <uint64_t> (length & 0xff) << 56
    for r in range(<int> (length - i)):
        word |= <uint64_t> bytes[i + r] << (8 * r)
    v[3] ^= word
    sip_round(v); sip_round(v)
    v[0] ^= word
    v[2] ^= 0xee
    sip_round(v); sip_round(v); sip_round(v); sip_round(v)
    out[0] = v[0] ^ v[1] ^ v[2] ^ v[3]
    v[1] ^= 0xdd
    sip_round(v); sip_round(v); sip_round(v); sip_round(v)
    out[1] = v[0] ^ v[1] ^ v[2] ^ v[3]
