from onefold.connectors.kafka.bridge.librdkafka cimport (
    rd_kafka_error_t,
    rd_kafka_event_t,
    rd_kafka_queue_t,
    rd_kafka_t,
)

cdef enum:
    TEXT_BYTES = 512

cdef text_of(const char *text)
cdef fault_of(int code)
cdef raise_if(rd_kafka_error_t *error)

cdef class Client:
    cdef object _token
    cdef rd_kafka_t *_rk
    cdef rd_kafka_queue_t *_main

    cdef _connect(self, int kind, settings, int events, token)
    cdef _told(self, rd_kafka_event_t *event)
    cdef _destroy(self)
