"""What may go wrong in a simulated schedule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from onefold.errors import (
    DiskFailed,
    Fenced,
    OnefoldError,
    SinkForked,
    SinkRestored,
    SinkUnavailable,
    StateUnknown,
    TokenRefused,
)

__all__ = ["PACED", "PROFILES", "Profile"]


@dataclass(frozen=True)
class Profile:
    """What may go wrong in a schedule. Kills, restarts, lost and late answers, sinks that are down: always."""

    name: str
    commit: Literal["separately", "together"] = "separately"
    zombies: bool = False
    changes: bool = False
    poison: bool = False
    restores_sinks: bool = False
    restores_journal: bool = False
    copies_journal: bool = False
    paces: bool = False

    @property
    def is_forked(self) -> bool:
        """Whether there may be two histories."""
        return self.restores_journal or self.copies_journal

    def expected(self) -> tuple[type[OnefoldError], ...]:
        """What may stop an instance here; anything else is a broken promise."""
        found: tuple[type[OnefoldError], ...] = (DiskFailed, SinkUnavailable)
        if self.zombies or self.is_forked:
            found += (Fenced, TokenRefused)
        if self.restores_sinks:
            found += (TokenRefused, SinkRestored, SinkForked, StateUnknown)
        if self.is_forked:
            found += (SinkForked, SinkRestored, StateUnknown)
        return found


PROFILES = (
    Profile("crashes"),
    Profile("crashes, refused rows", poison=True),
    Profile("zombies", zombies=True),
    Profile("zombies, changing sinks", zombies=True, changes=True),
    Profile("restored sinks", restores_sinks=True),
    Profile("restored sinks, zombies", restores_sinks=True, zombies=True),
    Profile("restored journal", restores_journal=True),
    Profile("copied journal", copies_journal=True),
    Profile("together", commit="together"),
    Profile("together, zombies", commit="together", zombies=True),
    Profile("together, restored sinks", commit="together", restores_sinks=True),
    Profile("together, restored journal", commit="together", restores_journal=True),
    Profile("together, copied journal", commit="together", copies_journal=True),
)

PACED = (
    Profile("paced", paces=True),
    Profile("paced, zombies", paces=True, zombies=True),
    Profile("paced, restored sinks", paces=True, restores_sinks=True),
)
"""Apart, so that seeds keep their meaning."""
