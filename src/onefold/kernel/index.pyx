# cython: boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""An index from 128-bit key hashes to int64 values, worked on in whole batches, that grows without pauses.

Layout. The top bits of a hash choose one of 1024 partitions. A partition keeps its entries (hash and value, 24 bytes)
dense, in chunks of 512 that never move, and an open-addressing table of 4-byte slots: 8 bits of the hash as a tag,
24 bits of entry number. A probe touches an entry only when the tag agrees. Removing an entry moves the partition's
last one into its place, so entries stay dense.

Growth. Only slot tables are rebuilt, one partition at a time, by a factor of 1.35 from capacities that are staggered
between the partitions; so at any time only a small share of them is near its limit, the memory a key needs hardly
varies with the number of keys, and the longest rebuild is a thousandth of the table.

Freezing. A frozen view records each partition's length. Whoever changes an entry below that length first copies the
old one into the view's list, unless it was copied before. So freezing costs nothing per entry, changing a frozen entry
costs 32 bytes once, and the reader of the view overlays the list on what is there.

Threads. Every batch and every block of a frozen view is taken under one lock; the GIL is released inside.
"""

cimport cython
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memset

import threading

import numpy as np

from onefold.kernel.partition cimport (
    CHUNK, CHUNK_BITS, EMPTY, FIRST_CHUNK, FIRST_ID, ID_BITS, MOST_ENTRIES, PARTITION_SHIFT, PARTITIONS, REMOVED, Entry,
    Former, Partition, Saved, View, entry_at, home_of, next_match, slot_of,
)

cdef extern from *:
    """
    #define of_prefetch(address) __builtin_prefetch((const void *)(address), 1, 3)
    """
    void of_prefetch(const void *address) noexcept nogil

cdef enum:
    BLOCK = 64                  # keys whose memory is fetched together
    MOST_VIEWS = 8
    READ_ENTRIES = 65536        # about as many to a block of a frozen view

cdef double GROWTH = 1.35
cdef double FULLEST = 0.875

cdef struct Task:
    const uint64_t *keys
    const int64_t *values
    int64_t *out
    uint8_t *mask
    int count
    uint64_t horizon
    int64_t least

cdef class KeyIndex

ctypedef bint (*Verb)(KeyIndex, const Task *) noexcept nogil


cdef class KeyIndex:
    """128-bit hash -> int64. Hashes are numpy arrays (n, 2) of uint64, uniformly distributed (SipHash gives them)."""

    cdef Partition *_partitions
    cdef View *_views[MOST_VIEWS]
    cdef int _view_count
    cdef uint64_t _count
    cdef uint64_t _bytes
    cdef uint32_t _sweep_partition
    cdef uint32_t _sweep_number
    cdef bint _is_sweeping
    cdef object _lock

    def __cinit__(self):
        cdef int p
        self._lock = threading.Lock()
        self._partitions = <Partition *> calloc(PARTITIONS, sizeof(Partition))
        if self._partitions == NULL:
            raise MemoryError
        for p in range(PARTITIONS):
            self._partitions[p].target = 8 * GROWTH ** (<double> p / PARTITIONS)

    def __dealloc__(self):
        cdef int p, v
        cdef uint32_t c
        cdef Partition *part
        if self._partitions != NULL:
            for p in range(PARTITIONS):
                part = &self._partitions[p]
                for c in range((part.allotted + CHUNK - 1) >> CHUNK_BITS):
                    free(part.chunks[c])
                free(part.chunks)
                free(part.slots)
            free(self._partitions)
        for v in range(self._view_count):
            _free_view(self._views[v])

    def __len__(self):
        return self._count

    @property
    def size_bytes(self):
        """Memory held, frozen views included."""
        cdef uint64_t total = self._bytes + PARTITIONS * sizeof(Partition)
        cdef int v
        for v in range(self._view_count):
            total += sizeof(View) + self._views[v].bytes
        return total

    def find(self, const uint64_t[:, ::1] hashes):
        """Returns (values int64, found bool); the value of an absent key is 0."""
        return self._batch(_find, hashes, None, 0, 0)

    def put(self, const uint64_t[:, ::1] hashes, const int64_t[::1] values):
        """Insert or replace, in row order. Returns (former values, found bool): found is False where inserted."""
        return self._batch(_put, hashes, values, 0, 0)

    def remove(self, const uint64_t[:, ::1] hashes):
        """Remove one entry of each hash, in row order. Returns (removed values, found bool)."""
        return self._batch(_remove, hashes, None, 0, 0)

    def first_seen(self, const uint64_t[:, ::1] hashes, const int64_t[::1] values, uint64_t horizon, int64_t least):
        """Insert, in row order, each (hash, value) that no entry of the same hash lies near to.

        An entry is near when |entry's value - value| <= horizon and the entry's value >= least. Several entries of one
        hash may live side by side.
        Returns: bool mask, True where inserted.
        """
        return self._batch(_first_seen, hashes, values, horizon, least)[1]

    def remove_below(self, int64_t least, uint64_t limit_entries):
        """Look at the next `limit_entries` entries and remove those whose value is below `least`.

        Returns: (number removed, whether this call came to the end of a sweep); the next call begins the next sweep.
        """
        cdef uint64_t removed = 0
        cdef bint is_ended
        self._lock.acquire()
        try:
            self._drop_closed_views()
            with nogil:
                is_ended = self._sweep(least, limit_entries, &removed)
        finally:
            self._lock.release()
        return removed, bool(is_ended)

    def reserve(self, uint64_t keys):
        """Prepare the slot tables for so many keys, to load faster."""
        cdef int p
        cdef bint is_done = True
        cdef double needed = <double> keys / PARTITIONS
        self._lock.acquire()
        try:
            needed = (needed + 4 * needed ** 0.5) / FULLEST
            for p in range(PARTITIONS):
                if self._partitions[p].capacity < needed:
                    while self._partitions[p].target < needed:
                        self._partitions[p].target *= GROWTH
                    is_done = is_done and self._rebuild(&self._partitions[p])
        finally:
            self._lock.release()
        if not is_done:
            raise MemoryError

    def freeze(self):
        """A view of all entries as they are now, however the index goes on changing. Read it once, or close it."""
        cdef View *view
        cdef int p
        self._lock.acquire()
        try:
            self._drop_closed_views()
            if self._view_count == MOST_VIEWS:
                raise RuntimeError(f"{MOST_VIEWS} frozen views are open already; read or close them first")
            view = <View *> calloc(1, sizeof(View))
            if view == NULL:
                raise MemoryError
            for p in range(PARTITIONS):
                view.saved[p].length = self._partitions[p].length
                view.saved[p].is_done = self._partitions[p].length == 0
            self._views[self._view_count] = view
            self._view_count += 1
            frozen = Frozen.__new__(Frozen)
            (<Frozen> frozen)._index = self
            (<Frozen> frozen)._view = view
            (<Frozen> frozen)._count = self._count
            return frozen
        finally:
            self._lock.release()

    cdef _batch(self, Verb verb, const uint64_t[:, ::1] hashes, const int64_t[::1] values, uint64_t horizon,
                int64_t least):
        """Run one verb over a batch: fetch the slots of a block of keys, then their entries, then do the block."""
        cdef Py_ssize_t n = hashes.shape[0], start = 0
        cdef int64_t[::1] out
        cdef uint8_t[::1] mask
        cdef const uint64_t *keys
        cdef const int64_t *given = NULL
        cdef Task task
        cdef bint is_done = True, has_numbers = verb != _first_seen
        if hashes.shape[1] != 2:
            raise ValueError("hashes must have two columns")
        if values is not None and values.shape[0] != n:
            raise ValueError("hashes and values must have the same length")
        numbers = np.empty(n if has_numbers else 0, dtype=np.int64)
        flags = np.empty(n, dtype=np.bool_)
        if n == 0:
            return numbers, flags
        out = numbers
        mask = flags.view(np.uint8)
        keys = &hashes[0, 0]
        if values is not None:
            given = &values[0]
        task.horizon = horizon
        task.least = least
        self._lock.acquire()
        try:
            self._drop_closed_views()
            with nogil:
                while start < n and is_done:
                    task.keys = keys + 2 * start
                    task.values = given + start if given != NULL else NULL
                    task.out = &out[start] if has_numbers else NULL
                    task.mask = &mask[start]
                    task.count = <int> (n - start if n - start < BLOCK else BLOCK)
                    self._fetch(&task)
                    is_done = verb(self, &task)
                    start += BLOCK
        finally:
            self._lock.release()
        if not is_done:
            raise MemoryError("no memory for the key index, or more than 2^24 entries in a partition")
        return numbers, flags

    cdef void _fetch(self, const Task *task) noexcept nogil:
        cdef Partition *part
        cdef uint32_t at[BLOCK]
        cdef uint32_t slot, tag, tries
        cdef int i
        for i in range(task.count):
            part = &self._partitions[task.keys[2 * i] >> PARTITION_SHIFT]
            at[i] = home_of(part, task.keys[2 * i])
            of_prefetch(part.slots + at[i])
        for i in range(task.count):
            part = &self._partitions[task.keys[2 * i] >> PARTITION_SHIFT]
            if part.capacity == 0:
                continue
            tag = <uint32_t> (task.keys[2 * i + 1] & 0xff)
            for tries in range(8):
                slot = part.slots[at[i]]
                if slot == EMPTY:
                    break
                if slot >> ID_BITS == tag and slot != REMOVED:
                    of_prefetch(entry_at(part, (slot & 0xffffff) - FIRST_ID))
                    break
                at[i] = at[i] + 1 if at[i] + 1 < part.capacity else 0

    cdef bint _rebuild(self, Partition *part) noexcept nogil:
        """A fresh slot table of the capacity `target` asks for. False: no memory, nothing changed."""
        cdef uint32_t capacity = <uint32_t> part.target
        cdef uint32_t *slots = <uint32_t *> calloc(capacity, sizeof(uint32_t))
        cdef uint32_t number, at
        cdef Entry *entry
        if slots == NULL:
            return False
        self._bytes += <uint64_t> capacity * sizeof(uint32_t)
        self._bytes -= <uint64_t> part.capacity * sizeof(uint32_t)
        free(part.slots)
        part.slots = slots
        part.capacity = capacity
        for number in range(part.length):
            entry = entry_at(part, number)
            at = home_of(part, entry.low)
            while slots[at] != EMPTY:
                at = at + 1 if at + 1 < capacity else 0
            slots[at] = <uint32_t> ((entry.high & 0xff) << ID_BITS) | (number + FIRST_ID)
        part.room = <uint32_t> (FULLEST * capacity) - part.length
        return True

    cdef bint _make_room(self, Partition *part) noexcept nogil:
        """Called when no slot may be taken any more: by entries, or by the marks of removed ones."""
        if part.slots != NULL and part.length >= 0.7 * part.capacity:
            part.target *= GROWTH
        else:
            while part.target > 8 * GROWTH and part.length < 0.3 * part.target:
                part.target /= GROWTH
        return self._rebuild(part)

    cdef bint _make_chunk(self, Partition *part) noexcept nogil:
        """Room for more entries; only the first chunk ever moves, while it is small."""
        cdef uint32_t chunk = part.length >> CHUNK_BITS
        cdef uint32_t size = CHUNK
        cdef Entry *entries
        cdef Entry **chunks
        if part.length >= MOST_ENTRIES:
            return False
        if part.allotted < CHUNK:
            size = FIRST_CHUNK if part.allotted == 0 else 2 * part.allotted
        if part.allotted == 0 or part.allotted >= CHUNK:
            chunks = <Entry **> realloc(part.chunks, (chunk + 1) * sizeof(Entry *))
            if chunks == NULL:
                return False
            part.chunks = chunks
            chunks[chunk] = NULL
        entries = <Entry *> realloc(part.chunks[chunk], size * sizeof(Entry))
        if entries == NULL:
            return False
        part.chunks[chunk] = entries
        self._bytes += (size - (part.allotted if part.allotted < CHUNK else 0)) * sizeof(Entry)
        part.allotted = size if part.allotted < CHUNK else part.allotted + CHUNK
        return True

    cdef bint _append(self, Partition *part, uint64_t low, uint64_t high, int64_t value) noexcept nogil:
        """A new entry. False: no memory, nothing changed."""
        cdef uint32_t at
        cdef Entry *entry
        if part.room == 0 and not self._make_room(part):
            return False
        if part.length == part.allotted and not self._make_chunk(part):
            return False
        at = home_of(part, low)
        while part.slots[at] > REMOVED:
            at = at + 1 if at + 1 < part.capacity else 0
        if part.slots[at] == EMPTY:
            part.room -= 1
        part.slots[at] = <uint32_t> ((high & 0xff) << ID_BITS) | (part.length + FIRST_ID)
        entry = entry_at(part, part.length)
        entry.low = low
        entry.high = high
        entry.value = value
        part.length += 1
        self._count += 1
        return True

    cdef bint _take_out(self, Partition *part, uint32_t at) noexcept nogil:
        """Remove the entry of the slot `at`. False: no memory to save it for a view, nothing changed."""
        cdef uint32_t number = (part.slots[at] & 0xffffff) - FIRST_ID
        cdef uint32_t last = part.length - 1
        cdef uint32_t other
        cdef uint32_t following = at + 1 if at + 1 < part.capacity else 0
        cdef Entry *moved
        if self._view_count and not (self._save(part, number) and self._save(part, last)):
            return False
        if number != last:
            moved = entry_at(part, last)
            other = slot_of(part, moved, last)
            part.slots[other] = <uint32_t> ((moved.high & 0xff) << ID_BITS) | (number + FIRST_ID)
            entry_at(part, number)[0] = moved[0]
        if part.slots[following] == EMPTY:
            part.slots[at] = EMPTY
            part.room += 1
        else:
            part.slots[at] = REMOVED
        part.length = last
        self._count -= 1
        if part.allotted > CHUNK and part.allotted - last > CHUNK + CHUNK // 2:
            part.allotted -= CHUNK
            free(part.chunks[part.allotted >> CHUNK_BITS])
            self._bytes -= CHUNK * sizeof(Entry)
        return True

    cdef bint _save(self, Partition *part, uint32_t number) noexcept nogil:
        """Copy an entry for every frozen view that still needs it, before it changes."""
        cdef int v
        cdef Saved *saved
        cdef Former *entries
        cdef uint32_t capacity
        for v in range(self._view_count):
            saved = &self._views[v].saved[part - self._partitions]
            if saved.is_done or self._views[v].is_closed or number >= saved.length:
                continue
            if saved.marks == NULL:
                saved.marks = <uint8_t *> calloc((saved.length + 7) >> 3, 1)
                if saved.marks == NULL:
                    return False
                self._views[v].bytes += (saved.length + 7) >> 3
            if (saved.marks[number >> 3] >> (number & 7)) & 1:
                continue
            if saved.count == saved.capacity:
                capacity = 16 if saved.capacity == 0 else min(2 * saved.capacity, saved.length)
                entries = <Former *> realloc(saved.entries, capacity * sizeof(Former))
                if entries == NULL:
                    return False
                self._views[v].bytes += (capacity - saved.capacity) * sizeof(Former)
                saved.entries = entries
                saved.capacity = capacity
            saved.marks[number >> 3] |= 1 << (number & 7)
            saved.entries[saved.count].entry = entry_at(part, number)[0]
            saved.entries[saved.count].number = number
            saved.count += 1
        return True

    cdef bint _sweep(self, int64_t least, uint64_t limit, uint64_t *removed) noexcept nogil:
        """From each partition's last entry to its first, so that removing moves only entries already looked at."""
        cdef Partition *part
        cdef Entry *entry
        while True:
            part = &self._partitions[self._sweep_partition]
            if not self._is_sweeping:
                self._sweep_number = part.length
                self._is_sweeping = True
            self._sweep_number = min(self._sweep_number, part.length)
            while self._sweep_number > 0:
                if limit == 0:
                    return False
                limit -= 1
                entry = entry_at(part, self._sweep_number - 1)
                if entry.value < least:
                    if not self._take_out(part, slot_of(part, entry, self._sweep_number - 1)):
                        return False
                    removed[0] += 1
                self._sweep_number -= 1
            self._is_sweeping = False
            self._sweep_partition = (self._sweep_partition + 1) % PARTITIONS
            if self._sweep_partition == 0:
                return True

    cdef void _drop_closed_views(self) noexcept:
        cdef int v = 0
        while v < self._view_count:
            if self._views[v].is_closed:
                _free_view(self._views[v])
                self._view_count -= 1
                self._views[v] = self._views[self._view_count]
            else:
                v += 1


@cython.no_gc_clear  # the garbage collector must not drop the index, which owns the view, before this is let go of
cdef class Frozen:
    """All entries of a KeyIndex at the moment of `freeze`. May be read from another thread."""

    cdef KeyIndex _index
    cdef View *_view
    cdef uint64_t _count

    def __len__(self):
        return self._count

    def __dealloc__(self):
        if self._view != NULL:
            self._view.is_closed = True

    def close(self):
        """Let go of it; the index need not keep changed entries any more. May be called twice."""
        if self._view != NULL:
            self._view.is_closed = True
            self._view = NULL

    def chunks(self):
        """Iterate over blocks (hashes (n, 2) uint64, values int64), once; closes at the end."""
        cdef int p = 0, end
        cdef uint64_t rows
        while self._view != NULL and p < PARTITIONS:
            end, rows = p, 0
            while end < PARTITIONS and (rows == 0 or rows + self._view.saved[end].length <= READ_ENTRIES):
                rows += self._view.saved[end].length
                end += 1
            if rows:
                yield self._read(p, end, rows)
            p = end
        self.close()

    cdef _read(self, int start, int end, uint64_t rows):
        hashes = np.empty((rows, 2), dtype=np.uint64)
        values = np.empty(rows, dtype=np.int64)
        cdef uint64_t[:, ::1] keys = hashes
        cdef int64_t[::1] numbers = values
        cdef uint64_t row = 0
        cdef int p
        self._index._lock.acquire()
        try:
            if self._view == NULL:
                raise ValueError("the frozen view was closed while it was read")
            with nogil:
                for p in range(start, end):
                    if self._view.saved[p].length:
                        _copy_frozen(&self._index._partitions[p], &self._view.saved[p], &keys[row, 0], &numbers[row])
                    row += self._view.saved[p].length
        finally:
            self._index._lock.release()
        return hashes, values


cdef void _copy_frozen(const Partition *part, Saved *saved, uint64_t *keys, int64_t *values) noexcept nogil:
    """Copy one partition as it was, and let go of what was saved of it."""
    cdef uint32_t number, i
    cdef Entry *entry
    for number in range(min(saved.length, part.length)):
        entry = entry_at(part, number)
        keys[2 * number] = entry.low
        keys[2 * number + 1] = entry.high
        values[number] = entry.value
    for i in range(saved.count):
        number = saved.entries[i].number
        keys[2 * number] = saved.entries[i].entry.low
        keys[2 * number + 1] = saved.entries[i].entry.high
        values[number] = saved.entries[i].entry.value
    saved.is_done = True
    free(saved.marks)
    free(saved.entries)
    saved.marks = NULL
    saved.entries = NULL
    saved.count = 0


cdef void _free_view(View *view) noexcept:
    cdef int p
    for p in range(PARTITIONS):
        free(view.saved[p].marks)
        free(view.saved[p].entries)
    free(view)


# ---------------------------------------------------------------------------------------------------- verbs on blocks


cdef bint _find(KeyIndex index, const Task *task) noexcept nogil:
    cdef Partition *part
    cdef int64_t at
    cdef int i
    for i in range(task.count):
        part = &index._partitions[task.keys[2 * i] >> PARTITION_SHIFT]
        at = next_match(part, task.keys[2 * i], task.keys[2 * i + 1], -1)
        task.mask[i] = at >= 0
        task.out[i] = entry_at(part, (part.slots[at] & 0xffffff) - FIRST_ID).value if at >= 0 else 0
    return True


cdef bint _put(KeyIndex index, const Task *task) noexcept nogil:
    cdef Partition *part
    cdef int64_t at
    cdef uint32_t number
    cdef int i
    for i in range(task.count):
        part = &index._partitions[task.keys[2 * i] >> PARTITION_SHIFT]
        at = next_match(part, task.keys[2 * i], task.keys[2 * i + 1], -1)
        task.mask[i] = at >= 0
        task.out[i] = 0
        if at >= 0:
            number = (part.slots[at] & 0xffffff) - FIRST_ID
            if index._view_count and not index._save(part, number):
                return False
            task.out[i] = entry_at(part, number).value
            entry_at(part, number).value = task.values[i]
        elif not index._append(part, task.keys[2 * i], task.keys[2 * i + 1], task.values[i]):
            return False
    return True


cdef bint _remove(KeyIndex index, const Task *task) noexcept nogil:
    cdef Partition *part
    cdef int64_t at
    cdef int i
    for i in range(task.count):
        part = &index._partitions[task.keys[2 * i] >> PARTITION_SHIFT]
        at = next_match(part, task.keys[2 * i], task.keys[2 * i + 1], -1)
        task.mask[i] = at >= 0
        task.out[i] = 0
        if at >= 0:
            task.out[i] = entry_at(part, (part.slots[at] & 0xffffff) - FIRST_ID).value
            if not index._take_out(part, <uint32_t> at):
                return False
    return True


cdef inline bint _is_near(int64_t stored, int64_t value, uint64_t horizon) noexcept nogil:
    """Whether |stored - value| <= horizon; the distance of any two int64 fits uint64."""
    if stored >= value:
        return <uint64_t> stored - <uint64_t> value <= horizon
    return <uint64_t> value - <uint64_t> stored <= horizon


cdef bint _first_seen(KeyIndex index, const Task *task) noexcept nogil:
    cdef Partition *part
    cdef int64_t at, stored
    cdef bint is_new
    cdef int i
    for i in range(task.count):
        part = &index._partitions[task.keys[2 * i] >> PARTITION_SHIFT]
        is_new = True
        at = next_match(part, task.keys[2 * i], task.keys[2 * i + 1], -1)
        while at >= 0:
            stored = entry_at(part, (part.slots[at] & 0xffffff) - FIRST_ID).value
            if stored >= task.least and _is_near(stored, task.values[i], task.horizon):
                is_new = False
                break
            at = at + 1 if at + 1 < part.capacity else 0
            at = next_match(part, task.keys[2 * i], task.keys[2 * i + 1], at)
        task.mask[i] = is_new
        if is_new and not index._append(part, task.keys[2 * i], task.keys[2 * i + 1], task.values[i]):
            return False
    return True
