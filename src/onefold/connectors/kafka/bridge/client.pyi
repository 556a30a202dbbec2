from typing import Any

class KafkaFault(Exception):
    code: int
    name: str
    text: str
    is_fatal: bool
    is_retriable: bool
    needs_abort: bool

def version() -> int: ...

class Client:
    def poll(self, timeout_ms: int) -> list[tuple[Any, ...]]: ...
    def fatal_error(self) -> KafkaFault | None: ...
    def close(self) -> None: ...
