"""What the exit code says. The same for every verb; docs/reference/cli.md is written from here."""

from __future__ import annotations

from enum import IntEnum

from onefold.errors import (
    Fenced,
    FlowNotFound,
    GuaranteeRefused,
    InvariantBroken,
    JournalLocked,
    StateError,
    Unexpected,
)

__all__ = ["MEANINGS", "Exit", "exit_of"]


class Exit(IntEnum):
    """Codes by name."""

    OK = 0
    FAILED = 1
    USAGE = 2
    REFUSED = 3
    LOCKED = 4
    BEHIND = 5
    STATE = 6
    BUG = 7


MEANINGS = {
    Exit.OK: "done; also after a clean stop by Ctrl-C or SIGTERM",
    Exit.FAILED: "an error of the flow, its sources, its sinks or the disk; the message says which",
    Exit.USAGE: "the command line is wrong, or names no flow",
    Exit.REFUSED: "a sink cannot keep the guarantee that the flow asks for; nothing was run",
    Exit.LOCKED: "another process runs this flow, or has taken it over",
    Exit.BEHIND: "ended, but a sink has not taken everything; run again, nothing is lost",
    Exit.STATE: "the state folder or a sink's token does not fit; a person must decide",
    Exit.BUG: "a bug: a check of onefold failed, or an exception that nobody expected; nothing more was written",
}
"""130 and 143 are a second Ctrl-C or SIGTERM: ended at once."""


def exit_of(error: BaseException) -> Exit:
    """The exit code for an error."""
    for kinds, code in (
        ((FlowNotFound,), Exit.USAGE),
        ((GuaranteeRefused,), Exit.REFUSED),
        ((JournalLocked, Fenced), Exit.LOCKED),
        ((StateError,), Exit.STATE),
        ((InvariantBroken, Unexpected), Exit.BUG),
    ):
        if isinstance(error, kinds):
            return code
    return Exit.FAILED
