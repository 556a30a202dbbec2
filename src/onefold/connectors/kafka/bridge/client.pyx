# cython: boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""What consumers and producers have in common: the handle, what it tells, and its faults.

Every call that may wait lets other threads run. Source: librdkafka's INTRODUCTION.md and the comments of its public
header.
"""

cimport cython
from libc.stdint cimport int64_t

from onefold.connectors.kafka.bridge.librdkafka cimport *

cdef enum:
    NO_CONSUMER_CLOSE = 0x8
    PURGE_ALL = 0x3


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


cdef text_of(const char *text):
    return "" if text == NULL else (<bytes>text).decode("utf-8", "replace")


cdef fault_of(int code):
    return KafkaFault(code, text_of(rd_kafka_err2name(code)), text_of(rd_kafka_err2str(code)))


cdef raise_if(rd_kafka_error_t *error):
    if error == NULL:
        return
    code = rd_kafka_error_code(error)
    fault = KafkaFault(
        code,
        text_of(rd_kafka_err2name(code)),
        text_of(rd_kafka_error_string(error)),
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
        why = text_of(errstr)
    except BaseException as error:  # it has no caller: the client tells it as an error of authentication
        why = f"{type(error).__name__}: {error}"
    rd_kafka_oauthbearer_set_token_failure(rk, why.encode())


cdef class Client:
    """A handle. settings: names and texts as librdkafka knows them. token: gives an access token and when it is over
    (seconds since 1970), called by other threads. Raises KafkaFault for a setting that it refuses."""

    def __cinit__(self):
        self._rk = NULL
        self._main = NULL

    cdef _connect(self, int kind, settings, int events, token):
        cdef char errstr[TEXT_BYTES]
        cdef rd_kafka_conf_t *conf = rd_kafka_conf_new()
        for name, value in {**settings, "log.queue": "true"}.items():
            if rd_kafka_conf_set(conf, name.encode(), value.encode(), errstr, TEXT_BYTES):
                rd_kafka_conf_destroy(conf)
                raise KafkaFault(-186, "_INVALID_ARG", text_of(errstr))
        rd_kafka_conf_set_events(conf, events | OF_EVENT_LOG | OF_EVENT_ERROR | OF_EVENT_STATS)
        if token is not None:
            self._token = token
            rd_kafka_conf_set_opaque(conf, <void *>token)
            rd_kafka_conf_enable_sasl_queue(conf, 1)
            rd_kafka_conf_set_oauthbearer_token_refresh_cb(conf, _refresh)
        self._rk = rd_kafka_new(kind, conf, errstr, TEXT_BYTES)
        if self._rk == NULL:
            rd_kafka_conf_destroy(conf)
            raise KafkaFault(-186, "_INVALID_ARG", text_of(errstr))
        rd_kafka_set_log_queue(self._rk, NULL)
        if token is not None:
            raise_if(rd_kafka_sasl_background_callbacks_enable(self._rk))
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
            return ("delivered", delivered, fault_of(first) if first else None, failed)
        if kind == OF_EVENT_ERROR:
            fault = fault_of(rd_kafka_event_error(event))
            fault.text = text_of(rd_kafka_event_error_string(event))
            fault.is_fatal = bool(rd_kafka_event_error_is_fatal(event))
            return ("error", fault)
        if kind == OF_EVENT_STATS:
            return ("stats", text_of(rd_kafka_event_stats(event)))
        if kind == OF_EVENT_LOG and not rd_kafka_event_log(event, &facility, &text, &level):
            return ("log", level, text_of(facility), text_of(text))
        return None

    def fatal_error(self):
        """The KafkaFault that ended this handle, or None."""
        cdef char errstr[TEXT_BYTES]
        cdef int code = 0
        if self._rk != NULL:
            code = rd_kafka_fatal_error(self._rk, errstr, TEXT_BYTES)
        return KafkaFault(code, text_of(rd_kafka_err2name(code)), text_of(errstr), True) if code else None

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
