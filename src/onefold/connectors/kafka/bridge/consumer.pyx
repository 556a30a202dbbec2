# cython: boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Reads partitions into Arrow columns, without an object for each message."""

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from onefold.connectors.kafka.bridge.client cimport Client, fault_of, raise_if, text_of
from onefold.connectors.kafka.bridge.librdkafka cimport *

import time

import numpy as np
import pyarrow as pa

from onefold.connectors.kafka.bridge.client import KafkaFault

cdef enum:
    HELD_MESSAGES = 8192
    SEEK_SECONDS = 10
    WRONG_STATE = -172

SEEK_PAUSE_SECONDS = 0.005


@cython.no_gc_clear
cdef class Consumer(Client):
    """Reads partitions that are given to it; belongs to no group's membership."""

    cdef rd_kafka_queue_t *_answers
    cdef Py_ssize_t _unanswered

    def __cinit__(self):
        self._answers = NULL
        self._unanswered = 0

    def __init__(self, settings, token=None):
        self._connect(OF_CONSUMER, settings, 0, token)
        self._answers = rd_kafka_queue_new(self._rk)

    def attach(self, str topic, int32_t partition, int64_t offset, int32_t leader_epoch, int wake):
        """Fetch a partition from an offset on into a queue of its own. leader_epoch: -1 when unknown; else librdkafka
        validates that the log was not truncated below the offset (KIP-320). wake: a file descriptor that gets a byte
        when the queue gets its first message. Raises KafkaFault.

        An assigned position is validated only if this handle has never heard of the topic before; one that is sought
        always is, and nothing is taken before (rd_kafka_toppar_fetch_start and rd_kafka_toppar_seek)."""
        cdef rd_kafka_topic_partition_list_t *parts
        cdef rd_kafka_topic_partition_t *part
        cdef rd_kafka_error_t *error
        name = topic.encode()
        cdef Partition queue = Partition.__new__(Partition)
        queue._open(self, name, partition, wake)
        parts = rd_kafka_topic_partition_list_new(1)
        part = rd_kafka_topic_partition_list_add(parts, name, partition)
        part.offset = offset
        if leader_epoch >= 0:
            rd_kafka_topic_partition_set_leader_epoch(part, leader_epoch)
        try:
            with nogil:
                error = rd_kafka_incremental_assign(self._rk, parts)
            raise_if(error)
            if leader_epoch >= 0:
                self._seek(queue, parts)
        finally:
            rd_kafka_topic_partition_list_destroy(parts)
        return queue

    cdef _seek(self, Partition queue, rd_kafka_topic_partition_list_t *parts):
        """It takes a moment until a partition that was assigned may be sought in."""
        cdef rd_kafka_error_t *error
        cdef int fault
        over_at = time.monotonic() + SEEK_SECONDS
        while True:
            with nogil:
                error = rd_kafka_seek_partitions(self._rk, parts, SEEK_SECONDS * 1000)
            fault = rd_kafka_error_code(error) if error != NULL else parts.elems[0].err
            if error != NULL:
                rd_kafka_error_destroy(error)
            if not fault:
                return
            if fault != WRONG_STATE or time.monotonic() > over_at:
                queue.detach()
                raise fault_of(fault)
            time.sleep(SEEK_PAUSE_SECONDS)

    def commit(self, offsets):
        """Tell the group's coordinator where we are, without waiting. offsets: (topic, partition, offset)."""
        cdef rd_kafka_topic_partition_list_t *parts = rd_kafka_topic_partition_list_new(len(offsets))
        cdef int error
        for topic, partition, offset in offsets:
            rd_kafka_topic_partition_list_add(parts, topic.encode(), partition).offset = offset
        with nogil:
            error = rd_kafka_commit_queue(self._rk, parts, self._answers, NULL, NULL)
            rd_kafka_topic_partition_list_destroy(parts)
        if not error:
            self._unanswered += 1
        self.flush(0)

    def flush(self, int timeout_ms):
        """Wait at most so long for an answer to each commit. What is closed before it is not told."""
        cdef rd_kafka_event_t *event
        over_at = time.monotonic() + timeout_ms / 1000
        while self._unanswered and self._answers != NULL:
            with nogil:
                event = rd_kafka_queue_poll(self._answers, timeout_ms)
            if event == NULL:
                break
            rd_kafka_event_destroy(event)
            self._unanswered -= 1
            timeout_ms = max(0, int((over_at - time.monotonic()) * 1000))

    def committed(self, str topic, int32_t partition, int timeout_ms):
        """The group's (offset, metadata bytes) of a partition; the offset is negative when there is none.

        Under read_committed the answer waits for a transaction that is not decided yet. Raises KafkaFault."""
        cdef rd_kafka_topic_partition_list_t *parts = rd_kafka_topic_partition_list_new(1)
        cdef rd_kafka_topic_partition_t *part = rd_kafka_topic_partition_list_add(parts, topic.encode(), partition)
        cdef int error
        try:
            with nogil:
                error = rd_kafka_committed(self._rk, parts, timeout_ms)
            part = &parts.elems[0]
            if error or part.err:
                raise fault_of(error or part.err)
            return part.offset, (<const char *>part.metadata)[:part.metadata_size] if part.metadata != NULL else b""
        finally:
            rd_kafka_topic_partition_list_destroy(parts)

    cdef _destroy(self):
        if self._answers != NULL:
            rd_kafka_queue_destroy(self._answers)
            self._answers = NULL
        Client._destroy(self)


@cython.no_gc_clear
cdef class Partition:
    """The queue of one partition that a consumer fetches."""

    cdef Consumer _consumer
    cdef rd_kafka_queue_t *_queue
    cdef rd_kafka_message_t **_held
    cdef Py_ssize_t _first, _count
    cdef bytes _topic
    cdef int32_t _partition

    cdef _open(self, Consumer consumer, bytes topic, int32_t partition, int wake):
        self._consumer, self._topic, self._partition = consumer, topic, partition
        self._queue = rd_kafka_queue_get_partition(consumer._rk, topic, partition)
        if self._queue == NULL:
            raise KafkaFault(-190, "_UNKNOWN_PARTITION", "the partition is not known")
        rd_kafka_queue_forward(self._queue, NULL)
        rd_kafka_queue_io_event_enable(self._queue, wake, <const void *>b"w", 1)
        self._held = <rd_kafka_message_t **>malloc(HELD_MESSAGES * sizeof(rd_kafka_message_t *))
        if self._held == NULL:
            raise MemoryError

    def take(self, Py_ssize_t rows, int64_t size_bytes, bint with_headers):
        """Messages that are here now: (columns or None, end offset or None, KafkaFault or None).

        At least one message if there is any, and no more than fit. columns: value, key (large_binary, null for none),
        offset, timestamp (ms; -1 unknown), headers (list of (name, value) a row, or None), the last leader epoch.
        The end offset: everything before it was seen, and nothing was there. A fault ends what is given before it."""
        cdef Py_ssize_t last
        cdef int64_t size = 0
        cdef ssize_t got
        cdef rd_kafka_message_t *message
        if self._first == self._count:
            self._first = self._count = 0
            with nogil:
                got = rd_kafka_consume_batch_queue(self._queue, 0, self._held, HELD_MESSAGES)
            self._count = self._without_passed_ends(max(got, 0))
        last = self._first
        while last < self._count and last - self._first < rows and (size < size_bytes or last == self._first):
            message = self._held[last]
            if message.err:
                break
            size += message.len + message.key_len
            last += 1
        columns = self._gathered(last, with_headers) if last > self._first else None
        if self._first < self._count and self._held[self._first].err:
            end, fault = self._ended()
            return columns, end, fault
        return columns, None, None

    cdef Py_ssize_t _without_passed_ends(self, Py_ssize_t got) noexcept:
        """Drop the ends that were ends no more when the next message came: one stands after every small fetch."""
        cdef Py_ssize_t place, kept = 0
        for place in range(got):
            if self._held[place].err == OF_PARTITION_EOF and place + 1 < got:
                rd_kafka_message_destroy(self._held[place])
            else:
                self._held[kept] = self._held[place]
                kept += 1
        return kept

    cdef _ended(self):
        cdef rd_kafka_message_t *message = self._held[self._first]
        self._first += 1
        cdef int64_t offset = message.offset
        cdef int code = message.err
        fault = None
        if code != OF_PARTITION_EOF:
            fault = fault_of(code)
            fault.text = text_of(rd_kafka_message_errstr(message))
        rd_kafka_message_destroy(message)
        return (offset, None) if fault is None else (None, fault)

    cdef _gathered(self, Py_ssize_t last, bint with_headers):
        cdef Py_ssize_t first = self._first, count = last - first, number
        cdef rd_kafka_message_t **held = self._held
        cdef int kind
        offsets, times = np.empty(count, np.int64), np.empty(count, np.int64)
        cdef int64_t[::1] offset_of = offsets, time_of = times
        cdef int32_t leader_epoch = rd_kafka_message_leader_epoch(held[last - 1])
        with nogil:
            for number in range(count):
                offset_of[number] = held[first + number].offset
                time_of[number] = rd_kafka_message_timestamp(held[first + number], &kind)
        values = _column(held + first, count, False)
        keys = _column(held + first, count, True)
        headers = [_headers(held[first + number]) for number in range(count)] if with_headers else None
        with nogil:
            for number in range(count):
                rd_kafka_message_destroy(held[first + number])
        self._first = last
        return values, keys, offsets, times, headers, leader_epoch

    def end(self):
        """The cached (low, high) offsets, -1001 where unknown; high is the last stable offset under read_committed."""
        cdef int64_t low = -1001, high = -1001
        rd_kafka_get_watermark_offsets(self._consumer._rk, self._topic, self._partition, &low, &high)
        return low, high

    def detach(self):
        """Stop fetching it. May be called twice."""
        cdef rd_kafka_topic_partition_list_t *parts
        cdef rd_kafka_error_t *error
        self._drop()
        if self._consumer is not None and self._consumer._rk != NULL:
            parts = rd_kafka_topic_partition_list_new(1)
            rd_kafka_topic_partition_list_add(parts, self._topic, self._partition)
            with nogil:
                error = rd_kafka_incremental_unassign(self._consumer._rk, parts)
                rd_kafka_topic_partition_list_destroy(parts)
            if error != NULL:
                rd_kafka_error_destroy(error)
        self._consumer = None

    cdef _drop(self):
        while self._first < self._count:
            rd_kafka_message_destroy(self._held[self._first])
            self._first += 1
        if self._queue != NULL:
            rd_kafka_queue_destroy(self._queue)
            self._queue = NULL

    def __dealloc__(self):
        self._drop()
        free(self._held)


cdef _column(rd_kafka_message_t **messages, Py_ssize_t count, bint is_key):
    """Payloads or keys as one large_binary array."""
    cdef int64_t total = 0, nulls = 0
    cdef Py_ssize_t number
    cdef rd_kafka_message_t *message
    bounds = np.empty(count + 1, np.int64)
    cdef int64_t[::1] bound = bounds
    cdef const void *source
    with nogil:
        for number in range(count):
            message = messages[number]
            bound[number] = total
            source = message.key if is_key else message.payload
            nulls += source == NULL
            total += message.key_len if is_key else message.len
        bound[count] = total
    content = np.empty(total, np.uint8)
    cdef uint8_t[::1] body = content
    cdef uint8_t *target = &body[0] if total else NULL
    with nogil:
        for number in range(count):
            message = messages[number]
            source = message.key if is_key else message.payload
            if source != NULL and bound[number + 1] > bound[number]:
                memcpy(target + bound[number], source, bound[number + 1] - bound[number])
    validity = _validity(messages, count, is_key) if nulls else None
    buffers = [validity, pa.py_buffer(bounds), pa.py_buffer(content)]
    return pa.LargeBinaryArray.from_buffers(pa.large_binary(), count, buffers, nulls)


cdef _validity(rd_kafka_message_t **messages, Py_ssize_t count, bint is_key):
    bits = np.zeros((count + 7) // 8, np.uint8)
    cdef uint8_t[::1] bit = bits
    cdef Py_ssize_t number
    for number in range(count):
        if (messages[number].key if is_key else messages[number].payload) != NULL:
            bit[number >> 3] |= 1 << (number & 7)
    return pa.py_buffer(bits)


cdef _headers(rd_kafka_message_t *message):
    cdef rd_kafka_headers_t *headers = NULL
    cdef const char *name
    cdef const void *value
    cdef size_t size
    cdef size_t number = 0
    found = []
    if rd_kafka_message_headers(message, &headers):
        return found
    while not rd_kafka_header_get_all(headers, number, &name, &value, &size):
        body = None if value == NULL else PyBytes_FromStringAndSize(<const char *>value, size)
        found.append((text_of(name), body))
        number += 1
    return found
