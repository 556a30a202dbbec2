"""A schedule in words, one line a step."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from spec.journal import Label
from spec.model import seal_of

__all__ = ["KINDS", "narrate"]


def narrate(schedule: Iterable[Label]) -> list[str]:
    """Each step as a line of text."""
    return [_line(label) for label in schedule]


def _line(label: Label) -> str:
    kind, *rest = label
    return _TEXTS[str(kind)](*rest)


def _token(seal_id: Any) -> str:
    return f"(epoch {seal_of(seal_id).epoch}, seal #{seal_id})" if seal_id else "none"


def _seal(seal_id: Any) -> str:
    seal = seal_of(seal_id)
    sinks = [str(sink) for sink in range(8) if seal.rows >> sink & 1]
    rows = f"rows for sink {' and '.join(sinks)}" if sinks else "no rows"
    return f"epoch {seal.epoch} as seal #{seal_id}: events {seal.first} to {seal.stop - 1}, {rows}"


def _commit(*parts: Any) -> str:
    p, sink, first, last, expected, new, result = parts
    epochs = f"epoch {first}" if first == last else f"epochs {first} to {last}"
    move = f", token {_token(expected)} -> {_token(new)}" if expected or new else ""
    return f"process {p} commits {epochs} to sink {sink}{move}: {result}"


_TEXTS: dict[str, Callable[..., str]] = {
    "start": lambda p: f"process {p} appends its start record",
    "read": lambda p: f"process {p} reads the journal",
    "open": lambda p, sink, token: f"process {p} opens sink {sink}, token {_token(token)}",
    "seal": lambda p, seal_id: f"process {p} seals {_seal(seal_id)}",
    "seal fails": lambda p, seal_id, how: f"process {p} is told that sealing failed; {_seal(seal_id)}; {how}",
    "commit": _commit,
    "token": lambda p, sink: f"process {p} moves the token of sink {sink}",
    "attempt": lambda p, sink, first, last: f"process {p} records the attempt of epochs {first} to {last}, sink {sink}",
    "outcome": lambda p, sink, last, how: f"process {p} records the outcome through epoch {last}, sink {sink}: {how}",
    "settle": lambda p, epoch: f"process {p} settles through epoch {epoch}",
    "free": lambda p: f"process {p} frees what is settled",
    "drain": lambda p: f"process {p} ends cleanly",
    "compute": lambda p, seal_id: f"process {p} computes {_seal(seal_id)}",
    "prepare": lambda p, sink: f"process {p} prepares at sink {sink}",
    "prepare fails": lambda p, sink: f"process {p} cannot prepare at sink {sink}",
    "prepare unknown": lambda p, sink: f"process {p} gets no answer to its prepare at sink {sink}",
    "abort": lambda p, sink: f"process {p} aborts its own handle at sink {sink}",
    "abort orphans": lambda p, sink: f"process {p} lists the handles of sink {sink}, aborts those of the dead",
    "stop": lambda p: f"process {p} stops",
    "lands": lambda _, request: f"a late {request.kind} takes effect, or is refused, at sink {request.sink}",
    "restart": lambda p, disk, _: f"process {p} is started on journal {disk}; those before it are dead, or go on",
    "restore journal": lambda disk, length: f"journal {disk} goes back to its first {length} records",
    "copy journal": lambda disk, copy: f"journal {disk} is copied to another machine, as journal {copy}",
    "empty journal": lambda disk: f"a second journal, {disk}, is begun",
    "restore sink": lambda sink, token: f"sink {sink} goes back to token {_token(token)}",
}

KINDS = frozenset(_TEXTS)
"""Every kind of step there is."""
