from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Hashes: TypeAlias = npt.NDArray[np.uint64]

def hash_rows(columns: pa.RecordBatch | pa.Table | Sequence[pa.Array | pa.ChunkedArray], key: bytes) -> Hashes: ...
def digest(hashes: Hashes) -> int: ...
def siphash128(message: bytes, key: bytes) -> bytes: ...
