"""Drafts of nodes, before they have their names; and the naming and ordering that makes a plan's nodes of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from onefold.errors import BuildError, NameTaken
from onefold.plan import Node

__all__ = ["Draft", "check_name", "names_of", "nodes_of"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_LONGEST_NAME = 120


@dataclass(frozen=True, eq=False)
class Draft:
    """A node to be.

    Args:
        kind: what it is, for people and for automatic names: `where`, `dedup`, ….
        name: the name it must have; None: any free name made of its kind (stateless steps only).
        parents: the drafts it reads.
        make: gives the node from its name and those of its inputs.
    """

    kind: str
    name: str | None
    parents: tuple[Draft, ...]
    make: Callable[[str, tuple[str, ...]], Node]


def check_name(name: str, what: str) -> str:
    """The name itself if it may identify state and tokens. Raises BuildError."""
    if not isinstance(name, str) or not _NAME.fullmatch(name) or len(name) > _LONGEST_NAME:
        raise BuildError(
            f"{what} cannot have this name.",
            found=repr(name),
            expected=f"letters, digits, - _ and ., not starting with _, - or ., at most {_LONGEST_NAME} characters",
        )
    return name


def names_of(targets: Iterable[Draft]) -> dict[Draft, str]:
    """Names for all drafts that the targets need, in topological order. Raises NameTaken.

    They depend on the targets and their order only, not on steps that nothing reads.
    """
    drafts = _ordered(targets)
    taken: dict[str, Draft] = {}
    for draft in drafts:
        if draft.name is not None:
            if draft.name in taken:
                raise NameTaken(
                    f"Two steps have the name {draft.name!r}.", found=f"{taken[draft.name].kind} and {draft.kind}"
                )
            taken[draft.name] = draft
    names: dict[Draft, str] = {}
    for draft in drafts:
        name, count = draft.name, 1
        while name is None:
            candidate = draft.kind if count == 1 else f"{draft.kind}-{count}"
            name, count = (None if candidate in taken else candidate), count + 1
        taken[name] = draft
        names[draft] = name
    return names


def nodes_of(names: dict[Draft, str]) -> tuple[Node, ...]:
    """The nodes of named drafts, in the same order."""
    return tuple(draft.make(name, tuple(names[parent] for parent in draft.parents)) for draft, name in names.items())


def _ordered(targets: Iterable[Draft]) -> Sequence[Draft]:
    found: dict[Draft, None] = {}
    waiting: list[tuple[Draft, bool]] = [(target, False) for target in reversed(list(targets))]
    while waiting:
        draft, parents_are_in = waiting.pop()
        if parents_are_in:
            found.setdefault(draft)
        elif draft not in found:
            waiting.append((draft, True))
            waiting.extend((parent, False) for parent in reversed(draft.parents))
    return list(found)
