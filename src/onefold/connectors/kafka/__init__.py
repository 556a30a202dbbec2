"""Apache Kafka: topics in and out."""

from onefold.connectors.kafka.endpoint import kafka

__all__ = ["kafka"]
