"""Names that a database must take as they are: signs with a meaning in SQL or to a client, keywords, every length."""

from __future__ import annotations

import random

ALPHABET = "aA\"'`\\;-- /*%()$1€ß漢\n\t\u202e{}?:@_s"

KEYWORDS = (
    "select", "table", "user", "order", "group", "desc", "null", "end", "primary", "key", "excluded", "fresh", "target",
    "source", "true", "default", "values", "current_user", "_op", "USER", "Select", "%s", "50%", "%d", "%(a)s", "%%",
)  # fmt: skip


def hostile(luck: random.Random, *, most_bytes: int, alphabet: str = ALPHABET) -> str:
    """A name of at most so many bytes: one in four a keyword, one in four as long as it may be, or nearly."""
    kind = luck.randrange(4)
    if kind == 0:
        return luck.choice(KEYWORDS)
    room = luck.randrange(1, 24) if kind < 3 else most_bytes - luck.randrange(3)
    name = ""
    while True:
        longer = name + luck.choice(alphabet)
        if len(longer.encode()) > room:
            return name or "a"
        name = longer
