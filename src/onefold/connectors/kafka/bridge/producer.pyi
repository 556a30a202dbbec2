from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from onefold.connectors.kafka.bridge.client import Client

class Producer(Client):
    def __init__(self, settings: Mapping[str, str], token: Callable[[], tuple[str, float]] | None = None) -> None: ...
    def produce(
        self,
        topic: str,
        values: pa.LargeBinaryArray,
        keys: pa.LargeBinaryArray | None,
        partitions: npt.NDArray[np.int32] | None = None,
        *,
        first: int = 0,
    ) -> int: ...
    def produce_with_headers(
        self,
        topic: str,
        values: pa.LargeBinaryArray,
        keys: pa.LargeBinaryArray | None,
        headers: Sequence[Sequence[tuple[bytes, bytes | None]]],
        *,
        first: int = 0,
    ) -> int: ...
    def outstanding(self) -> int: ...
    def release(self) -> None: ...
    def init_transactions(self, timeout_ms: int) -> None: ...
    def begin_transaction(self) -> None: ...
    def send_offsets(self, group: str, offsets: Sequence[tuple[str, int, int, bytes]], timeout_ms: int) -> None: ...
    def commit_transaction(self, timeout_ms: int) -> None: ...
    def abort_transaction(self, timeout_ms: int) -> None: ...
