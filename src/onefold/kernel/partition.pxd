# cython: cdivision=True
"""What a partition of a key index looks like in memory, and how a key is found in it (see index.pyx)."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

cdef enum:
    PARTITIONS = 1024
    PARTITION_SHIFT = 54        # 64 - log2(PARTITIONS)
    CHUNK_BITS = 9
    CHUNK = 512                 # entries
    FIRST_CHUNK = 8             # entries; a small index stays small
    ID_BITS = 24
    EMPTY = 0
    REMOVED = 1
    FIRST_ID = 2                # slots hold entry number + FIRST_ID
    MOST_ENTRIES = (1 << 24) - 4    # of one partition

cdef struct Entry:
    uint64_t low
    uint64_t high
    int64_t value

cdef struct Partition:
    uint32_t *slots
    Entry **chunks
    double target               # exact capacity of the staggered sequence; `capacity` is it rounded
    uint32_t capacity
    uint32_t room               # slots that may still be taken before a rebuild
    uint32_t length
    uint32_t allotted           # entries

cdef struct Former:
    Entry entry
    uint32_t number

cdef struct Saved:
    uint32_t length             # of the partition when it was frozen
    uint32_t count
    uint32_t capacity
    bint is_done
    uint8_t *marks              # one bit an entry: saved already
    Former *entries

cdef struct View:
    bint is_closed
    uint64_t bytes
    Saved saved[PARTITIONS]



cdef inline Entry *entry_at(const Partition *part, uint32_t number) noexcept nogil:
    return part.chunks[number >> CHUNK_BITS] + (number & (CHUNK - 1))


cdef inline uint32_t home_of(const Partition *part, uint64_t low) noexcept nogil:
    return <uint32_t> (((low & <uint64_t> 0xffffffff) * part.capacity) >> 32)


cdef inline uint32_t slot_of(const Partition *part, const Entry *entry, uint32_t number) noexcept nogil:
    """The slot of an entry that is known to be there."""
    cdef uint32_t at = home_of(part, entry.low)
    cdef uint32_t wanted = <uint32_t> ((entry.high & 0xff) << ID_BITS) | (number + FIRST_ID)
    while part.slots[at] != wanted:
        at = at + 1 if at + 1 < part.capacity else 0
    return at


cdef inline int64_t next_match(const Partition *part, uint64_t low, uint64_t high, int64_t at) noexcept nogil:
    """The first slot from `at` on (-1: from home) that holds this hash, or -1."""
    cdef uint32_t slot, tag = <uint32_t> (high & 0xff)
    cdef uint32_t place
    cdef Entry *entry
    if part.capacity == 0:
        return -1
    place = home_of(part, low) if at < 0 else <uint32_t> at
    while True:
        slot = part.slots[place]
        if slot == EMPTY:
            return -1
        if slot >> ID_BITS == tag and slot != REMOVED:
            entry = entry_at(part, (slot & 0xffffff) - FIRST_ID)
            if entry.low == low and entry.high == high:
                return place
        place = place + 1 if place + 1 < part.capacity else 0
