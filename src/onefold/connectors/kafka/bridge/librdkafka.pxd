# librdkafka's names, as librdkafka.h beside this file declares them.

from libc.stdint cimport int32_t, int64_t

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
    rd_kafka_queue_t *rd_kafka_queue_new(rd_kafka_t *rk)
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
    rd_kafka_error_t *rd_kafka_seek_partitions(
        rd_kafka_t *rk, rd_kafka_topic_partition_list_t *partitions, int timeout_ms)
    int rd_kafka_get_watermark_offsets(
        rd_kafka_t *rk, const char *topic, int32_t partition, int64_t *low, int64_t *high)
    int rd_kafka_committed(rd_kafka_t *rk, rd_kafka_topic_partition_list_t *partitions, int timeout_ms)
    int rd_kafka_commit_queue(
        rd_kafka_t *rk, const rd_kafka_topic_partition_list_t *offsets, rd_kafka_queue_t *answers,
        void (*callback)(rd_kafka_t *rk, int err, rd_kafka_topic_partition_list_t *offsets, void *opaque) noexcept nogil,
        void *opaque)
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
