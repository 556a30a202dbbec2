# cython: boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Writes Arrow columns as messages, in transactions if told so, without an object for each message."""

cimport cython
from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy

from onefold.connectors.kafka.bridge.client cimport Client, fault_of, raise_if
from onefold.connectors.kafka.bridge.librdkafka cimport *

import numpy as np
import pyarrow as pa

from onefold.connectors.kafka.bridge.client import KafkaFault

cdef enum:
    ANY_PARTITION = -1
    PRODUCED_AT_ONCE = 16384


@cython.no_gc_clear
cdef class Producer(Client):
    """Writes batches; with a transactional.id among its settings, in transactions.

    Buffers of a batch belong to the producer until `outstanding` is 0 or the producer is closed: it keeps them.
    """

    cdef object _lent

    def __init__(self, settings, token=None):
        self._lent = []
        self._connect(OF_PRODUCER, settings, OF_EVENT_DR, token)

    def produce(self, str topic, values, keys, partitions=None, *, int64_t first=0):
        """Put messages into the queue from row `first` on; returns how many rows of the batch are in it now.

        values, keys: large_binary arrays of equal length, null for none; keys may be None. partitions: int32 numpy
        array, or None to have the partitioner choose. Fewer than all when the queue is full: poll, then call again with
        that row. Raises KafkaFault for one that cannot be sent at all: those before it are in the queue."""
        cdef int64_t count = len(values), row = first, number, size
        cdef rd_kafka_message_t *batch
        cdef rd_kafka_topic_t *handle
        cdef int sent
        cdef int fault = 0
        cdef _Cells value_of = _Cells(values), key_of = _Cells(keys)
        cdef const int32_t[::1] partition_of = partitions
        name = topic.encode()
        self._lent.append((values, keys))
        handle = rd_kafka_topic_new(self._rk, name, NULL)
        if handle == NULL:
            raise KafkaFault(-188, "_UNKNOWN_TOPIC", "the topic cannot be used")
        batch = <rd_kafka_message_t *>calloc(PRODUCED_AT_ONCE, sizeof(rd_kafka_message_t))
        if batch == NULL:
            rd_kafka_topic_destroy(handle)
            raise MemoryError
        with nogil:
            while row < count and not fault:
                size = min(count - row, <int64_t>PRODUCED_AT_ONCE)
                for number in range(size):
                    batch[number].err = 0
                    batch[number].payload = value_of.cell(row + number, &batch[number].len)
                    batch[number].key = key_of.cell(row + number, &batch[number].key_len)
                    batch[number].partition = ANY_PARTITION
                    batch[number]._private = NULL
                if partition_of is None:
                    sent = rd_kafka_produce_batch(handle, ANY_PARTITION, 0, batch, <int>size)
                else:
                    for number in range(size):
                        batch[number].partition = partition_of[row + number]
                    sent = rd_kafka_produce_batch(handle, ANY_PARTITION, 0x8, batch, <int>size)
                for number in range(size):
                    if batch[number].err:
                        fault = batch[number].err
                        break
                    row += 1
            rd_kafka_topic_destroy(handle)
            free(batch)
        if fault and fault != OF_QUEUE_FULL:
            raise fault_of(fault)
        return row

    def produce_with_headers(self, str topic, values, keys, headers, *, int64_t first=0):
        """The same, one by one, with headers: a sequence of (name, value) a row, in bytes; a value may be None."""
        cdef int64_t count = len(values), row = first
        cdef rd_kafka_vu_t parts[4]
        cdef rd_kafka_headers_t *own
        cdef rd_kafka_error_t *error
        cdef rd_kafka_topic_t *handle
        cdef char *start
        cdef int code = 0
        cdef _Cells value_of = _Cells(values), key_of = _Cells(keys)
        name = topic.encode()
        self._lent.append((values, keys))
        handle = rd_kafka_topic_new(self._rk, name, NULL)
        if handle == NULL:
            raise KafkaFault(-188, "_UNKNOWN_TOPIC", "the topic cannot be used")
        try:
            while row < count:
                own = rd_kafka_headers_new(len(headers[row]))
                for label, value in headers[row]:
                    start = NULL if value is None else <char *>value
                    rd_kafka_header_add(own, label, len(label), start, 0 if value is None else len(value))
                parts[0].vtype, parts[1].vtype = OF_PART_TOPIC, OF_PART_VALUE
                parts[2].vtype, parts[3].vtype = OF_PART_KEY, OF_PART_HEADERS
                parts[0].u.rkt = handle
                parts[1].u.mem.ptr = value_of.cell(row, &parts[1].u.mem.size)
                parts[2].u.mem.ptr = key_of.cell(row, &parts[2].u.mem.size)
                parts[3].u.headers = own
                error = rd_kafka_produceva(self._rk, parts, 4)
                if error != NULL:  # then the headers are still ours
                    code = rd_kafka_error_code(error)
                    rd_kafka_error_destroy(error)
                    rd_kafka_headers_destroy(own)
                    if code == OF_QUEUE_FULL:
                        return row
                    raise fault_of(code)
                row += 1
        finally:
            rd_kafka_topic_destroy(handle)
        return row

    def outstanding(self):
        """Messages in the queue or on their way."""
        return rd_kafka_outq_len(self._rk) if self._rk != NULL else 0

    def release(self):
        """Let go of the buffers of batches that were delivered. Nothing may be outstanding."""
        if not self.outstanding():
            self._lent.clear()

    def init_transactions(self, int timeout_ms):
        """Fence every producer of this transactional.id, and settle what the last one left open."""
        cdef rd_kafka_error_t *error
        with nogil:
            error = rd_kafka_init_transactions(self._rk, timeout_ms)
        raise_if(error)

    def begin_transaction(self):
        """The next messages belong to a transaction."""
        raise_if(rd_kafka_begin_transaction(self._rk))

    def send_offsets(self, str group, offsets, int timeout_ms):
        """Commit offsets of a group inside the transaction. offsets: (topic, partition, offset, metadata bytes)."""
        cdef rd_kafka_topic_partition_list_t *parts = rd_kafka_topic_partition_list_new(len(offsets))
        cdef rd_kafka_topic_partition_t *part
        cdef rd_kafka_consumer_group_metadata_t *about = rd_kafka_consumer_group_metadata_new(group.encode())
        cdef rd_kafka_error_t *error
        for topic, partition, offset, metadata in offsets:
            part = rd_kafka_topic_partition_list_add(parts, topic.encode(), partition)
            part.offset = offset
            part.metadata = malloc(max(len(metadata), 1))  # freed with the list
            memcpy(part.metadata, <const char *>metadata, len(metadata))
            part.metadata_size = len(metadata)
        with nogil:
            error = rd_kafka_send_offsets_to_transaction(self._rk, parts, about, timeout_ms)
            rd_kafka_topic_partition_list_destroy(parts)
            rd_kafka_consumer_group_metadata_destroy(about)
        raise_if(error)

    def commit_transaction(self, int timeout_ms):
        """Commit; poll until nothing is outstanding before. Raises KafkaFault: the outcome may be unknown."""
        cdef rd_kafka_error_t *error
        with nogil:
            error = rd_kafka_commit_transaction(self._rk, timeout_ms)
        raise_if(error)

    def abort_transaction(self, int timeout_ms):
        """Purge, then abort."""
        cdef rd_kafka_error_t *error
        with nogil:
            error = rd_kafka_abort_transaction(self._rk, timeout_ms)
        raise_if(error)

    def close(self):
        """Forget what is not sent, and let go. May be called twice."""
        self._destroy()
        self._lent.clear()

    def __dealloc__(self):
        self._destroy()  # before the buffers that it was lent


cdef class _Cells:
    """The cells of a large_binary array, by row; of None, no bytes."""

    cdef object _kept
    cdef const int64_t[::1] _bounds
    cdef const uint8_t[::1] _content
    cdef const uint8_t[::1] _validity
    cdef int64_t _offset
    cdef bint _is_there, _has_nulls, _has_content

    def __init__(self, array):
        self._is_there = array is not None
        if array is None:
            return
        if array.type != pa.large_binary():
            raise TypeError(f"large_binary was expected, not {array.type}")
        validity, bounds, content = array.buffers()
        self._kept, self._offset = array, array.offset
        self._has_nulls = array.null_count > 0
        if self._has_nulls:
            self._validity = np.frombuffer(validity, np.uint8)
        self._is_there = len(array) > 0
        if self._is_there:
            self._bounds = np.frombuffer(bounds, np.int64)
        self._has_content = content is not None and content.size > 0
        if self._has_content:
            self._content = np.frombuffer(content, np.uint8)

    cdef void *cell(self, int64_t row, size_t *size) noexcept nogil:
        cdef int64_t place = row + self._offset
        size[0] = 0
        if not self._is_there or (self._has_nulls and not (self._validity[place >> 3] >> (place & 7)) & 1):
            return NULL
        size[0] = self._bounds[place + 1] - self._bounds[place]
        if not self._has_content:
            return <void *>b""
        return <void *>(&self._content[0] + self._bounds[place])
