"""Limits made small in the children, so that paths of large epochs are taken by small ones."""

from __future__ import annotations

from onefold import spool
from onefold.connectors.files import sink


def nothing_inline() -> None:
    """Every payload and every delta is a file of the spool; data sets stage natively."""
    spool.INLINE_BYTES = 64
    sink.NATIVE_BYTES = 1000
