"""Memory for blocks of input, used again once nobody refers to it: fresh pages cost more than the copy into them."""

from __future__ import annotations

import threading
import weakref

import numpy as np
import numpy.typing as npt
import pyarrow as pa

__all__ = ["BlockPool"]

KEPT_BLOCKS = 6
"""Blocks that wait to be used again, at most."""


class BlockPool:
    """Blocks of one size. Any thread."""

    def __init__(self, size_bytes: int) -> None:
        self._size = size_bytes
        self._free: list[npt.NDArray[np.uint8]] = []
        self._lock = threading.Lock()

    def take(self) -> pa.Buffer:
        """A writable block of any content. It comes back by itself when the last array that refers to it is gone."""
        with self._lock:
            memory = self._free.pop() if self._free else np.empty(self._size, np.uint8)
        view = memory[:]
        weakref.finalize(view, self._give_back, memory).atexit = False
        return pa.py_buffer(view)

    def _give_back(self, memory: npt.NDArray[np.uint8]) -> None:
        with self._lock:
            if len(self._free) < KEPT_BLOCKS:
                self._free.append(memory)
