"""Rows in this process's memory: a source to feed and a table to look at, for tests and trials.

What a name holds outlives the flow that wrote it, not the process: a "restart" in one process finds the same rows and
tokens.
"""

from onefold.connectors.memory.endpoint import MemoryEndpoint, memory
from onefold.connectors.memory.sink import MemorySink
from onefold.connectors.memory.source import MemorySource
from onefold.connectors.memory.store import Fault

__all__ = ["Fault", "MemoryEndpoint", "MemorySink", "MemorySource", "memory"]
