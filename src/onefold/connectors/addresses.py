"""Addresses of tables: a path, file://…, or scheme://… for an object store."""

from __future__ import annotations

import re
from urllib.parse import unquote

__all__ = ["plain_path", "scheme_of"]

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


def scheme_of(uri: str) -> str | None:
    """What an object store is named by, in small letters; None: the table is on this machine.

    >>> scheme_of("S3://bucket/lake"), scheme_of("file:///lake"), scheme_of("lake")
    ('s3', None, None)
    """
    match = _SCHEME.match(uri)
    scheme = match[1].lower() if match else None
    return None if scheme == "file" else scheme


def plain_path(text: str) -> str:
    """A path from a file:// address; another text as it is.

    >>> plain_path("file:///a%20b"), plain_path("a%20b")
    ('/a b', 'a%20b')
    """
    return unquote(text[len("file://") :]) if text.lower().startswith("file://") else text
