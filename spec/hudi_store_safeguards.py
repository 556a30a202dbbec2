"""The safeguards of commits to a Hudi table on an object store, one switch each."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from spec.safeguards import Mutant

__all__ = ["STORE_MUTANTS", "StoreSafeguards", "store_without"]


@dataclass(frozen=True)
class StoreSafeguards:
    """All on is the protocol. The comment says what the mutant does instead."""

    fence_at_open: bool = True  # open reads the object and does not put it anew
    list_before_fence: bool = True  # listed after the fence; the object is looked at once more before rolling back
    list_after_read: bool = True  # listed before the object is read
    decided_kept: bool = True  # what is decided is rolled back with the rest of the list
    forward_at_open: bool = True  # open leaves what is decided as it is
    forward_at_write: bool = True  # write leaves what is decided as it is
    loaded_after_forward: bool = (
        True  # write loads the table before it completes what is decided, and goes on with that
    )
    number_compared: bool = True  # what is decided is completed although a restore removed the commit before it
    undoing_seen: bool = True  # what is decided is completed although a restore has begun to remove it
    compare_at_write: bool = True  # write does not compare the token
    compare_at_commit: bool = True  # commit does not compare the token
    pending_at_commit: bool = True  # commit does not ask whether its instant is still there
    commit_on_etag: bool = True  # commit puts the object whatever it is
    etag_of_write: bool = True  # commit puts the object on an ETag that it reads itself
    read_back: bool = True  # a refused put was never carried out
    instant_compared: bool = True  # a refused put was carried out only if the object is, to the letter, what was put
    timeline_read_back: bool = True  # a refused put was carried out only if the object still names our instant
    completion_decided: bool = True  # who completes an instant chooses its time of completion, a part of its name
    names_unique: bool = True  # two may begin an instant of one name


STORE_MUTANTS: dict[str, Mutant] = {
    "fence_at_open": Mutant("zombie"),
    "list_before_fence": Mutant("zombie"),
    "list_after_read": Mutant("shared"),
    "decided_kept": Mutant("zombie"),
    "forward_at_open": Mutant("zombie"),
    "forward_at_write": Mutant("shared"),
    "loaded_after_forward": Mutant("shared"),
    "number_compared": Mutant("restored"),
    "undoing_seen": Mutant("restored"),
    "compare_at_write": Mutant(
        "zombie", ("compare_at_commit",), "What write does not see, commit does, before anything is decided.",
    ),
    "compare_at_commit": Mutant(
        "zombie", ("compare_at_write",),
        "All that was decided before the ETag was read is completed when write compares. A token that moves later "
        "moves with the object, and the put is refused.",
    ),
    "pending_at_commit": Mutant(
        "zombie", ("etag_of_write",),
        "Who rolls back an instant of others has put the object after that instant was begun: the put is refused. It "
        "only saves a request, and may see what others rolled back who know nothing of the object.",
    ),
    "commit_on_etag": Mutant("zombie"),
    "etag_of_write": Mutant("zombie"),
    "read_back": Mutant("late"),
    "instant_compared": Mutant("late"),
    "timeline_read_back": Mutant("shared"),
    "completion_decided": Mutant("zombie"),
    "names_unique": Mutant("zombie"),
}  # fmt: skip
"""One for every safeguard; a test searches each."""


def store_without(*names: str) -> StoreSafeguards:
    """The protocol without these safeguards. Raises KeyError for a name that does not exist."""
    known = {field.name for field in fields(StoreSafeguards)}
    for name in names:
        if name not in known:
            raise KeyError(f"no safeguard {name!r}; there are: {', '.join(sorted(known))}")
    return replace(StoreSafeguards(), **dict.fromkeys(names, False))
