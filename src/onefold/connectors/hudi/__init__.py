"""Apache Hudi: tables as transactional sinks, and as sources by incremental queries."""

from onefold.connectors.hudi.endpoint import Hudi, hudi
from onefold.connectors.hudi.sink import HudiSink

__all__ = ["Hudi", "HudiSink", "hudi"]
