/* What the bridge uses of librdkafka's public C interface (stable since 1.6; headers under offset validation: 2.1).
 * Declared here so that building needs nothing but a compiler; the library itself is found when it is loaded. */
#ifndef ONEFOLD_LIBRDKAFKA_H
#define ONEFOLD_LIBRDKAFKA_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

typedef struct rd_kafka_s rd_kafka_t;
typedef struct rd_kafka_conf_s rd_kafka_conf_t;
typedef struct rd_kafka_topic_s rd_kafka_topic_t;
typedef struct rd_kafka_topic_conf_s rd_kafka_topic_conf_t;
typedef struct rd_kafka_queue_s rd_kafka_queue_t;
typedef struct rd_kafka_op_s rd_kafka_event_t;
typedef struct rd_kafka_error_s rd_kafka_error_t;
typedef struct rd_kafka_headers_s rd_kafka_headers_t;
typedef struct rd_kafka_consumer_group_metadata_s rd_kafka_consumer_group_metadata_t;

typedef struct rd_kafka_message_s {
    int err;
    rd_kafka_topic_t *rkt;
    int32_t partition;
    void *payload;
    size_t len;
    void *key;
    size_t key_len;
    int64_t offset;
    void *_private;
} rd_kafka_message_t;

typedef struct rd_kafka_topic_partition_s {
    char *topic;
    int32_t partition;
    int64_t offset;
    void *metadata;
    size_t metadata_size;
    void *opaque;
    int err;
    void *_private;
} rd_kafka_topic_partition_t;

typedef struct rd_kafka_topic_partition_list_s {
    int cnt;
    int size;
    rd_kafka_topic_partition_t *elems;
} rd_kafka_topic_partition_list_t;

enum { OF_PRODUCER = 0, OF_CONSUMER = 1 };
enum { OF_EVENT_DR = 0x1, OF_EVENT_LOG = 0x4, OF_EVENT_ERROR = 0x8, OF_EVENT_STATS = 0x40 };
enum { OF_PARTITION_EOF = -191, OF_QUEUE_FULL = -184 };

int rd_kafka_version(void);
const char *rd_kafka_err2name(int err);
const char *rd_kafka_err2str(int err);

rd_kafka_conf_t *rd_kafka_conf_new(void);
void rd_kafka_conf_destroy(rd_kafka_conf_t *conf);
int rd_kafka_conf_set(rd_kafka_conf_t *conf, const char *name, const char *value, char *errstr, size_t size);
void rd_kafka_conf_set_events(rd_kafka_conf_t *conf, int events);
void rd_kafka_conf_set_opaque(rd_kafka_conf_t *conf, void *opaque);
void rd_kafka_conf_enable_sasl_queue(rd_kafka_conf_t *conf, int is_enabled);
void rd_kafka_conf_set_oauthbearer_token_refresh_cb(
    rd_kafka_conf_t *conf, void (*refresh)(rd_kafka_t *rk, const char *config, void *opaque));
rd_kafka_error_t *rd_kafka_sasl_background_callbacks_enable(rd_kafka_t *rk);
int rd_kafka_oauthbearer_set_token(
    rd_kafka_t *rk, const char *token, int64_t over_at_ms, const char *principal, const char **extensions,
    size_t extension_count, char *errstr, size_t size);
int rd_kafka_oauthbearer_set_token_failure(rd_kafka_t *rk, const char *errstr);
rd_kafka_t *rd_kafka_new(int type, rd_kafka_conf_t *conf, char *errstr, size_t size);
void rd_kafka_destroy_flags(rd_kafka_t *rk, int flags);
int rd_kafka_fatal_error(rd_kafka_t *rk, char *errstr, size_t size);
int rd_kafka_set_log_queue(rd_kafka_t *rk, rd_kafka_queue_t *queue);

rd_kafka_queue_t *rd_kafka_queue_get_main(rd_kafka_t *rk);
rd_kafka_queue_t *rd_kafka_queue_get_partition(rd_kafka_t *rk, const char *topic, int32_t partition);
void rd_kafka_queue_forward(rd_kafka_queue_t *queue, rd_kafka_queue_t *target);
rd_kafka_queue_t *rd_kafka_queue_new(rd_kafka_t *rk);
void rd_kafka_queue_destroy(rd_kafka_queue_t *queue);
void rd_kafka_queue_io_event_enable(rd_kafka_queue_t *queue, int fd, const void *payload, size_t size);
rd_kafka_event_t *rd_kafka_queue_poll(rd_kafka_queue_t *queue, int timeout_ms);

int rd_kafka_event_type(const rd_kafka_event_t *event);
void rd_kafka_event_destroy(rd_kafka_event_t *event);
int rd_kafka_event_error(rd_kafka_event_t *event);
const char *rd_kafka_event_error_string(rd_kafka_event_t *event);
int rd_kafka_event_error_is_fatal(rd_kafka_event_t *event);
const char *rd_kafka_event_stats(rd_kafka_event_t *event);
int rd_kafka_event_log(rd_kafka_event_t *event, const char **facility, const char **text, int *level);
const rd_kafka_message_t *rd_kafka_event_message_next(rd_kafka_event_t *event);

ssize_t rd_kafka_consume_batch_queue(
    rd_kafka_queue_t *queue, int timeout_ms, rd_kafka_message_t **messages, size_t size);
void rd_kafka_message_destroy(rd_kafka_message_t *message);
int64_t rd_kafka_message_timestamp(const rd_kafka_message_t *message, int *kind);
int32_t rd_kafka_message_leader_epoch(const rd_kafka_message_t *message);
const char *rd_kafka_message_errstr(const rd_kafka_message_t *message);
int rd_kafka_message_headers(const rd_kafka_message_t *message, rd_kafka_headers_t **headers);
int rd_kafka_header_get_all(
    const rd_kafka_headers_t *headers, size_t number, const char **name, const void **value, size_t *size);

rd_kafka_topic_partition_list_t *rd_kafka_topic_partition_list_new(int size);
void rd_kafka_topic_partition_list_destroy(rd_kafka_topic_partition_list_t *list);
rd_kafka_topic_partition_t *rd_kafka_topic_partition_list_add(
    rd_kafka_topic_partition_list_t *list, const char *topic, int32_t partition);
void rd_kafka_topic_partition_set_leader_epoch(rd_kafka_topic_partition_t *partition, int32_t leader_epoch);
rd_kafka_error_t *rd_kafka_incremental_assign(rd_kafka_t *rk, const rd_kafka_topic_partition_list_t *partitions);
rd_kafka_error_t *rd_kafka_incremental_unassign(rd_kafka_t *rk, const rd_kafka_topic_partition_list_t *partitions);
rd_kafka_error_t *rd_kafka_seek_partitions(
    rd_kafka_t *rk, rd_kafka_topic_partition_list_t *partitions, int timeout_ms);
int rd_kafka_get_watermark_offsets(
    rd_kafka_t *rk, const char *topic, int32_t partition, int64_t *low, int64_t *high);
int rd_kafka_committed(rd_kafka_t *rk, rd_kafka_topic_partition_list_t *partitions, int timeout_ms);
int rd_kafka_commit_queue(
    rd_kafka_t *rk, const rd_kafka_topic_partition_list_t *offsets, rd_kafka_queue_t *answers,
    void (*callback)(rd_kafka_t *rk, int err, rd_kafka_topic_partition_list_t *offsets, void *opaque), void *opaque);

rd_kafka_topic_t *rd_kafka_topic_new(rd_kafka_t *rk, const char *topic, rd_kafka_topic_conf_t *conf);
void rd_kafka_topic_destroy(rd_kafka_topic_t *topic);
int rd_kafka_produce_batch(
    rd_kafka_topic_t *topic, int32_t partition, int flags, rd_kafka_message_t *messages, int size);
/* A message in named parts: for those that have headers. */
enum { OF_PART_TOPIC = 2, OF_PART_VALUE = 4, OF_PART_KEY = 5, OF_PART_HEADERS = 10 };
typedef struct rd_kafka_vu_s {
    int vtype;
    union {
        rd_kafka_topic_t *rkt;
        struct {
            void *ptr;
            size_t size;
        } mem;
        rd_kafka_headers_t *headers;
        char _pad[64];
    } u;
} rd_kafka_vu_t;
rd_kafka_error_t *rd_kafka_produceva(rd_kafka_t *rk, const rd_kafka_vu_t *parts, size_t count);
rd_kafka_headers_t *rd_kafka_headers_new(size_t count);
void rd_kafka_headers_destroy(rd_kafka_headers_t *headers);
int rd_kafka_header_add(
    rd_kafka_headers_t *headers, const char *name, ssize_t name_size, const void *value, ssize_t value_size);
int rd_kafka_outq_len(rd_kafka_t *rk);
int rd_kafka_purge(rd_kafka_t *rk, int flags);

rd_kafka_error_t *rd_kafka_init_transactions(rd_kafka_t *rk, int timeout_ms);
rd_kafka_error_t *rd_kafka_begin_transaction(rd_kafka_t *rk);
rd_kafka_error_t *rd_kafka_send_offsets_to_transaction(
    rd_kafka_t *rk, const rd_kafka_topic_partition_list_t *offsets,
    const rd_kafka_consumer_group_metadata_t *group, int timeout_ms);
rd_kafka_error_t *rd_kafka_commit_transaction(rd_kafka_t *rk, int timeout_ms);
rd_kafka_error_t *rd_kafka_abort_transaction(rd_kafka_t *rk, int timeout_ms);
rd_kafka_consumer_group_metadata_t *rd_kafka_consumer_group_metadata_new(const char *group);
void rd_kafka_consumer_group_metadata_destroy(rd_kafka_consumer_group_metadata_t *group);

int rd_kafka_error_code(const rd_kafka_error_t *error);
const char *rd_kafka_error_string(const rd_kafka_error_t *error);
int rd_kafka_error_is_fatal(const rd_kafka_error_t *error);
int rd_kafka_error_is_retriable(const rd_kafka_error_t *error);
int rd_kafka_error_txn_requires_abort(const rd_kafka_error_t *error);
void rd_kafka_error_destroy(rd_kafka_error_t *error);

#endif
