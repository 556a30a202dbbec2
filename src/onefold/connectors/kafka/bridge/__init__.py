"""librdkafka and Arrow: messages in and out by the batch. A handle belongs to the bridge alone.

Import `onefold.connectors.kafka.library` first: it loads the shared library whose names the compiled modules refer to.
"""

from __future__ import annotations

from onefold.connectors.kafka.bridge.client import KafkaFault, version
from onefold.connectors.kafka.bridge.consumer import Consumer, Partition
from onefold.connectors.kafka.bridge.producer import Producer

__all__ = ["Consumer", "KafkaFault", "Partition", "Producer", "version"]
