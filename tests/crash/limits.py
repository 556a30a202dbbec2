"""Limits made small in the children, so that paths of large epochs are taken by small ones."""

from __future__ import annotations

import resource

from onefold import spool
from onefold.connectors.files import sink


def nothing_inline() -> None:
    """Every payload and every delta is a file of the spool; data sets stage natively."""
    spool.INLINE_BYTES = 64
    sink.NATIVE_BYTES = 1000


def files_of_64_kib() -> None:
    """No file grows beyond this: writes fail for real."""
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 10, most))
