# cython: boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""librdkafka and Arrow: messages in and out by the batch, without an object for each.

A handle belongs to the bridge alone. Import `onefold.connectors.kafka.library` first: it loads the shared library
whose names this module refers to. Every call that may wait lets other threads run.
Source: librdkafka's INTRODUCTION.md and the comments of its public header.
"""

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy

import numpy as np
import pyarrow as pa

cdef extern from "librdkafka.h" nogil:
    ctypedef struct rd_kafka_t:
        pass
    ctypedef struct rd_kafka_conf_t:
        pass
    ctypedef struct rd_kafka_topic_t:
        pass
    ctypedef struct rd_kafka_topic_conf_t:
        pass
    ctypedef struct rd_kafka_queue_t:
        pass
    ctypedef struct rd_kafka_event_t:
        pass
    ctypedef struct rd_kafka_error_t:
        pass
    ctypedef struct rd_kafka_headers_t:
        pass
    ctypedef struct rd_kafka_consumer_group_metadata_t:
        pass
    ctypedef struct rd_kafka_message_t:
        int err
        rd_kafka_topic_t *rkt
        int32_t partition
        void *payload
        size_t len
        void *key
        size_t key_len
        int64_t offset
        void *_private
    ctypedef struct rd_kafka_topic_partition_t:
        int64_t offset
        void *metadata
        size_t metadata_size
        int err
    ctypedef struct rd_kafka_topic_partition_list_t:
        int cnt
        rd_kafka_topic_partition_t *elems

    int OF_PRODUCER, OF_CONSUMER
    int OF_EVENT_DR, OF_EVENT_LOG, OF_EVENT_ERROR, OF_EVENT_STATS
    int OF_PARTITION_EOF, OF_QUEUE_FULL

    int rd_kafka_version()
    const char *rd_kafka_err2name(int err)
    const char *rd_kafka_err2str(int err)
    rd_kafka_conf_t *rd_kafka_conf_new()
    void rd_kafka_conf_destroy(rd_kafka_conf_t *conf)
    int rd_kafka_conf_set(rd_kafka_conf_t *conf, const char *name, const char *value, char *errstr, size_t size)
    void rd_kafka_conf_set_events(rd_kafka_conf_t *conf, int events)
    void rd_kafka_conf_set_opaque(rd_kafka_conf_t *conf, void *opaque)
    void rd_kafka_conf_enable_sasl_queue(rd_kafka_conf_t *conf, int is_enabled)
    void rd_kafka_conf_set_oauthbearer_token_refresh_cb(
        rd_kafka_conf_t *conf, void (*refresh)(rd_kafka_t *rk, const char *config, void *opaque) noexcept nogil)
    rd_kafka_error_t *rd_kafka_sasl_background_callbacks_enable(rd_kafka_t *rk)
    int rd_kafka_oauthbearer_set_token(
        rd_kafka_t *rk, const char *token, int64_t over_at_ms, const char *principal, const char **extensions,
        size_t extension_count, char *errstr, size_t size)
    int rd_kafka_oauthbearer_set_token_failure(rd_kafka_t *rk, const char *errstr)
    rd_kafka_t *rd_kafka_new(int type, rd_kafka_conf_t *conf, char *errstr, size_t size)
    void rd_kafka_destroy_flags(rd_kafka_t *rk, int flags)
    int rd_kafka_fatal_error(rd_kafka_t *rk, char *errstr, size_t size)
    int rd_kafka_set_log_queue(rd_kafka_t *rk, rd_kafka_queue_t *queue)
    rd_kafka_queue_t *rd_kafka_queue_get_main(rd_kafka_t *rk)
    rd_kafka_queue_t *rd_kafka_queue_get_partition(rd_kafka_t *rk, const char *topic, int32_t partition)
    void rd_kafka_queue_forward(rd_kafka_queue_t *queue, rd_kafka_queue_t *target)
    void rd_kafka_queue_destroy(rd_kafka_queue_t *queue)
    void rd_kafka_queue_io_event_enable(rd_kafka_queue_t *queue, int fd, const void *payload, size_t size)
    rd_kafka_event_t *rd_kafka_queue_poll(rd_kafka_queue_t *queue, int timeout_ms)
    int rd_kafka_event_type(const rd_kafka_event_t *event)
    void rd_kafka_event_destroy(rd_kafka_event_t *event)
    int rd_kafka_event_error(rd_kafka_event_t *event)
    const char *rd_kafka_event_error_string(rd_kafka_event_t *event)
    int rd_kafka_event_error_is_fatal(rd_kafka_event_t *event)
    const char *rd_kafka_event_stats(rd_kafka_event_t *event)
    int rd_kafka_event_log(rd_kafka_event_t *event, const char **facility, const char **text, int *level)
    const rd_kafka_message_t *rd_kafka_event_message_next(rd_kafka_event_t *event)
    ssize_t rd_kafka_consume_batch_queue(
        rd_kafka_queue_t *queue, int timeout_ms, rd_kafka_message_t **messages, size_t size)
    void rd_kafka_message_destroy(rd_kafka_message_t *message)
    int64_t rd_kafka_message_timestamp(const rd_kafka_message_t *message, int *kind)
    int32_t rd_kafka_message_leader_epoch(const rd_kafka_message_t *message)
    const char *rd_kafka_message_errstr(const rd_kafka_message_t *message)
    int rd_kafka_message_headers(const rd_kafka_message_t *message, rd_kafka_headers_t **headers)
    int rd_kafka_header_get_all(
        const rd_kafka_headers_t *headers, size_t number, const char **name, const void **value, size_t *size)
    rd_kafka_topic_partition_list_t *rd_kafka_topic_partition_list_new(int size)
    void rd_kafka_topic_partition_list_destroy(rd_kafka_topic_partition_list_t *list)
    rd_kafka_topic_partition_t *rd_kafka_topic_partition_list_add(
        rd_kafka_topic_partition_list_t *list, const char *topic, int32_t partition)
    void rd_kafka_topic_partition_set_leader_epoch(rd_kafka_topic_partition_t *partition, int32_t leader_epoch)
    rd_kafka_error_t *rd_kafka_incremental_assign(rd_kafka_t *rk, const rd_kafka_topic_partition_list_t *partitions)
    rd_kafka_error_t *rd_kafka_incremental_unassign(
        rd_kafka_t *rk, const rd_kafka_topic_partition_list_t *partitions)
    int rd_kafka_get_watermark_offsets(
        rd_kafka_t *rk, const char *topic, int32_t partition, int64_t *low, int64_t *high)
    int rd_kafka_committed(rd_kafka_t *rk, rd_kafka_topic_partition_list_t *partitions, int timeout_ms)
    int rd_kafka_commit(rd_kafka_t *rk, const rd_kafka_topic_partition_list_t *offsets, int is_async)
    rd_kafka_topic_t *rd_kafka_topic_new(rd_kafka_t *rk, const char *topic, rd_kafka_topic_conf_t *conf)
    void rd_kafka_topic_destroy(rd_kafka_topic_t *topic)
    int rd_kafka_produce_batch(
        rd_kafka_topic_t *topic, int32_t partition, int flags, rd_kafka_message_t *messages, int size)
    int OF_PART_TOPIC, OF_PART_VALUE, OF_PART_KEY, OF_PART_HEADERS
    ctypedef struct of_mem "struct {void *ptr; size_t size;}":
        void *ptr
        size_t size
    ctypedef union of_part:
        rd_kafka_topic_t *rkt
        of_mem mem
        rd_kafka_headers_t *headers
    ctypedef struct rd_kafka_vu_t:
        int vtype
        of_part u
    rd_kafka_error_t *rd_kafka_produceva(rd_kafka_t *rk, const rd_kafka_vu_t *parts, size_t count)
    rd_kafka_headers_t *rd_kafka_headers_new(size_t count)
    void rd_kafka_headers_destroy(rd_kafka_headers_t *headers)
    int rd_kafka_header_add(
        rd_kafka_headers_t *headers, const char *name, ssize_t name_size, const void *value, ssize_t value_size)
    int rd_kafka_outq_len(rd_kafka_t *rk)
    int rd_kafka_purge(rd_kafka_t *rk, int flags)
    rd_kafka_error_t *rd_kafka_init_transactions(rd_kafka_t *rk, int timeout_ms)
    rd_kafka_error_t *rd_kafka_begin_transaction(rd_kafka_t *rk)
    rd_kafka_error_t *rd_kafka_send_offsets_to_transaction(
        rd_kafka_t *rk, const rd_kafka_topic_partition_list_t *offsets,
        const rd_kafka_consumer_group_metadata_t *group, int timeout_ms)
    rd_kafka_error_t *rd_kafka_commit_transaction(rd_kafka_t *rk, int timeout_ms)
    rd_kafka_error_t *rd_kafka_abort_transaction(rd_kafka_t *rk, int timeout_ms)
    rd_kafka_consumer_group_metadata_t *rd_kafka_consumer_group_metadata_new(const char *group)
    void rd_kafka_consumer_group_metadata_destroy(rd_kafka_consumer_group_metadata_t *group)
    int rd_kafka_error_code(const rd_kafka_error_t *error)
    const char *rd_kafka_error_string(const rd_kafka_error_t *error)
    int rd_kafka_error_is_fatal(const rd_kafka_error_t *error)
    int rd_kafka_error_is_retriable(const rd_kafka_error_t *error)
    int rd_kafka_error_txn_requires_abort(const rd_kafka_error_t *error)
    void rd_kafka_error_destroy(rd_kafka_error_t *error)

cdef enum:
    TEXT_BYTES = 512
    NO_CONSUMER_CLOSE = 0x8
    ANY_PARTITION = -1
    PURGE_ALL = 0x3
    HELD_MESSAGES = 8192
    PRODUCED_AT_ONCE = 16384


class KafkaFault(Exception):
    """What librdkafka answered instead of success.

    code: its number, negative inside the client. name: its name without RD_KAFKA_RESP_ERR_. is_fatal: the handle is
    of no use any more; needs_abort: the transaction must be aborted; is_retriable: the same call may be repeated.
    """

    def __init__(self, code, name, text, is_fatal=False, is_retriable=False, needs_abort=False):
        super().__init__(f"{name}: {text}")
        self.code = code
        self.name = name
        self.text = text
        self.is_fatal = is_fatal
        self.is_retriable = is_retriable
        self.needs_abort = needs_abort


cdef _text(const char *text):
    return "" if text == NULL else (<bytes>text).decode("utf-8", "replace")


cdef _fault_of(int code):
    return KafkaFault(code, _text(rd_kafka_err2name(code)), _text(rd_kafka_err2str(code)))


cdef _raise_if(rd_kafka_error_t *error):
    if error == NULL:
        return
    code = rd_kafka_error_code(error)
    fault = KafkaFault(
        code,
        _text(rd_kafka_err2name(code)),
        _text(rd_kafka_error_string(error)),
        bool(rd_kafka_error_is_fatal(error)),
        bool(rd_kafka_error_is_retriable(error)),
        bool(rd_kafka_error_txn_requires_abort(error)),
    )
    rd_kafka_error_destroy(error)
    raise fault


def version():
    """The library's version as a number: 0x020100ff is 2.1.0."""
    return rd_kafka_version()


cdef void _refresh(rd_kafka_t *rk, const char *config, void *opaque) noexcept with gil:
    """librdkafka asks for a token, on a thread of its own, so that it gets one whatever else waits."""
    cdef char errstr[TEXT_BYTES]
    cdef int64_t over_at_ms
    errstr[0] = 0
    try:
        token, over_at = (<object>opaque)()
        text, over_at_ms = token.encode(), <int64_t>(over_at * 1000)
        if not rd_kafka_oauthbearer_set_token(rk, text, over_at_ms, b"", NULL, 0, errstr, TEXT_BYTES):
            return
        why = _text(errstr)
    except BaseException as error:  # it has no caller: the client tells it as an error of authentication
        why = f"{type(error).__name__}: {error}"
    rd_kafka_oauthbearer_set_token_failure(rk, why.encode())


cdef class Client:
    """A handle. settings: names and texts as librdkafka knows them. token: gives an access token and when it is over
    (seconds since 1970), called by other threads. Raises KafkaFault for a setting that it refuses."""

    cdef object _token
    cdef rd_kafka_t *_rk
    cdef rd_kafka_queue_t *_main

    def __cinit__(self):
        self._rk = NULL
        self._main = NULL

    cdef _connect(self, int kind, settings, int events, token):
        cdef char errstr[TEXT_BYTES]
        cdef rd_kafka_conf_t *conf = rd_kafka_conf_new()
        for name, value in {**settings, "log.queue": "true"}.items():
            if rd_kafka_conf_set(conf, name.encode(), value.encode(), errstr, TEXT_BYTES):
                rd_kafka_conf_destroy(conf)
                raise KafkaFault(-186, "_INVALID_ARG", _text(errstr))
        rd_kafka_conf_set_events(conf, events | OF_EVENT_LOG | OF_EVENT_ERROR | OF_EVENT_STATS)
        if token is not None:
            self._token = token
            rd_kafka_conf_set_opaque(conf, <void *>token)
            rd_kafka_conf_enable_sasl_queue(conf, 1)
            rd_kafka_conf_set_oauthbearer_token_refresh_cb(conf, _refresh)
        self._rk = rd_kafka_new(kind, conf, errstr, TEXT_BYTES)
        if self._rk == NULL:
            rd_kafka_conf_destroy(conf)
            raise KafkaFault(-186, "_INVALID_ARG", _text(errstr))
        rd_kafka_set_log_queue(self._rk, NULL)
        if token is not None:
            _raise_if(rd_kafka_sasl_background_callbacks_enable(self._rk))
        self._main = rd_kafka_queue_get_main(self._rk)

    def poll(self, int timeout_ms):
        """What happened, as tuples: ("error", KafkaFault), ("log", level, facility, text), ("stats", JSON text),
        ("delivered", messages, first KafkaFault or None, messages that failed). Waits for the first at most so long."""
        cdef rd_kafka_event_t *event
        cdef rd_kafka_queue_t *queue = self._main
        found = []
        while queue != NULL:
            with nogil:
                event = rd_kafka_queue_poll(queue, timeout_ms)
            if event == NULL:
                break
            try:
                told = self._told(event)
            finally:
                rd_kafka_event_destroy(event)
            if told is not None:
                found.append(told)
            timeout_ms = 0
        return found

    cdef _told(self, rd_kafka_event_t *event):
        cdef int kind = rd_kafka_event_type(event)
        cdef const char *facility
        cdef const char *text
        cdef int level
        cdef const rd_kafka_message_t *message
        cdef int64_t delivered = 0, failed = 0
        cdef int first = 0
        if kind == OF_EVENT_DR:
            while True:
                message = rd_kafka_event_message_next(event)
                if message == NULL:
                    break
                if message.err:
                    failed += 1
                    first = first or message.err
                else:
                    delivered += 1
            return ("delivered", delivered, _fault_of(first) if first else None, failed)
        if kind == OF_EVENT_ERROR:
            fault = _fault_of(rd_kafka_event_error(event))
            fault.text = _text(rd_kafka_event_error_string(event))
            fault.is_fatal = bool(rd_kafka_event_error_is_fatal(event))
            return ("error", fault)
        if kind == OF_EVENT_STATS:
            return ("stats", _text(rd_kafka_event_stats(event)))
        if kind == OF_EVENT_LOG and not rd_kafka_event_log(event, &facility, &text, &level):
            return ("log", level, _text(facility), _text(text))
        return None

    def fatal_error(self):
        """The KafkaFault that ended this handle, or None."""
        cdef char errstr[TEXT_BYTES]
        cdef int code = 0
        if self._rk != NULL:
            code = rd_kafka_fatal_error(self._rk, errstr, TEXT_BYTES)
        return KafkaFault(code, _text(rd_kafka_err2name(code)), _text(errstr), True) if code else None

    def close(self):
        """Let go, without a word to the cluster. May be called twice."""
        self._destroy()

    cdef _destroy(self):
        cdef rd_kafka_t *rk = self._rk
        if self._main != NULL:
            rd_kafka_queue_destroy(self._main)
            self._main = NULL
        self._rk = NULL
        if rk != NULL:
            with nogil:
                rd_kafka_purge(rk, PURGE_ALL)
                rd_kafka_destroy_flags(rk, NO_CONSUMER_CLOSE)

    def __dealloc__(self):
        self._destroy()


@cython.no_gc_clear
cdef class Consumer(Client):
    """Reads partitions that are given to it; belongs to no group's membership."""

    def __init__(self, settings, token=None):
        self._connect(OF_CONSUMER, settings, 0, token)

    def attach(self, str topic, int32_t partition, int64_t offset, int32_t leader_epoch, int wake):
        """Fetch a partition from an offset on into a queue of its own. leader_epoch: -1 when unknown; else librdkafka
        validates that the log was not truncated below the offset (KIP-320). wake: a file descriptor that gets a byte
        when the queue gets its first message. Raises KafkaFault."""
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
        with nogil:
            error = rd_kafka_incremental_assign(self._rk, parts)
            rd_kafka_topic_partition_list_destroy(parts)
        _raise_if(error)
        return queue

    def commit(self, offsets):
        """Tell the group's coordinator where we are, without waiting. offsets: (topic, partition, offset)."""
        cdef rd_kafka_topic_partition_list_t *parts = rd_kafka_topic_partition_list_new(len(offsets))
        for topic, partition, offset in offsets:
            rd_kafka_topic_partition_list_add(parts, topic.encode(), partition).offset = offset
        with nogil:
            rd_kafka_commit(self._rk, parts, 1)
            rd_kafka_topic_partition_list_destroy(parts)

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
                raise _fault_of(error or part.err)
            return part.offset, (<const char *>part.metadata)[:part.metadata_size] if part.metadata != NULL else b""
        finally:
            rd_kafka_topic_partition_list_destroy(parts)


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
            fault = _fault_of(code)
            fault.text = _text(rd_kafka_message_errstr(message))
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
        found.append((_text(name), body))
        number += 1
    return found


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
            raise _fault_of(fault)
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
                    raise _fault_of(code)
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
        _raise_if(error)

    def begin_transaction(self):
        """The next messages belong to a transaction."""
        _raise_if(rd_kafka_begin_transaction(self._rk))

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
        _raise_if(error)

    def commit_transaction(self, int timeout_ms):
        """Commit; poll until nothing is outstanding before. Raises KafkaFault: the outcome may be unknown."""
        cdef rd_kafka_error_t *error
        with nogil:
            error = rd_kafka_commit_transaction(self._rk, timeout_ms)
        _raise_if(error)

    def abort_transaction(self, int timeout_ms):
        """Purge, then abort."""
        cdef rd_kafka_error_t *error
        with nogil:
            error = rd_kafka_abort_transaction(self._rk, timeout_ms)
        _raise_if(error)

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
