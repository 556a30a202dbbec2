"""A schedule of the model written as a trace: the same JSON lines that recorded runs of the engine consist of."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

from spec.journal import Label
from spec.model import Setting, World, seal_of
from spec.world import first_world, moves

__all__ = ["GUARANTEES", "follow", "written"]

Line = dict[str, Any]

GUARANTEES = {"exactly": "exactly-once", "least": "at-least-once", "most": "at-most-once"}


def written(setting: Setting, schedule: Iterable[Label]) -> list[str]:
    """The lines of a schedule without journal or sink faults. What has no line (a late effect) is left out."""
    scenario = setting.scenario
    sinks = {_name(sink): GUARANTEES[guarantee] for sink, guarantee in enumerate(scenario.guarantees)}
    lines: list[Line] = [{"do": "begin", "sinks": sinks, "together": scenario.together}]
    for label, before, after in follow(setting, schedule):
        write = _WRITERS.get(str(label[0]))
        if write is not None:
            lines += write(label, before, after)
    return [json.dumps(line) for line in lines]


def follow(setting: Setting, schedule: Iterable[Label]) -> Iterable[tuple[Label, World, World]]:
    """The worlds along a schedule. Raises ValueError where a step is not possible."""
    world = first_world(setting)
    for wanted in schedule:
        for label, after in moves(setting, world):
            if label == wanted:
                yield label, world, after
                world = after
                break
        else:
            raise ValueError(f"not possible here: {wanted}")


def _name(sink: Any) -> str:
    return f"sink{sink}"


def _token(seal_id: Any) -> list[Any] | None:
    return [seal_of(seal_id).epoch, f"seal{seal_id}"] if seal_id else None


def _append(before: World, p: int, kind: str, **fields: Any) -> list[Line]:
    proc = before.procs[p]
    known = proc.log if proc.pc != "new" else before.disks[proc.disk].log
    return [{"do": "append", "kind": kind, "number": len(known) + 1, **fields}]


def _seal_fields(seal_id: int) -> dict[str, Any]:
    seal = seal_of(seal_id)
    rows = {_name(sink): 1 for sink in range(8) if seal.rows >> sink & 1}
    previous = f"seal{seal.pred}" if seal.pred > 0 else "journal"
    return {"epoch": seal.epoch, "seal": f"seal{seal_id}", "previous": previous, "rows": rows}


def _start(label: Label, before: World, _: World) -> list[Line]:
    p = int(str(label[1]))
    sinks = [_name(sink) for sink in range(8) if before.procs[p].members >> sink & 1]
    return _append(before, p, "start", sinks=sinks)


def _seal(label: Any, before: World, _: World) -> list[Line]:
    return _append(before, label[1], "seal", **_seal_fields(label[2]))


def _failed_seal(label: Any, before: World, _: World) -> list[Line]:
    return _append(before, label[1], "seal", **_seal_fields(label[2]), result="failed")


def _settle(label: Any, before: World, _: World) -> list[Line]:
    return _append(before, label[1], "settle", epoch=label[2])


def _attempt(label: Any, before: World, _: World) -> list[Line]:
    return _append(before, label[1], "attempt", sink=_name(label[2]), first=label[3], last=label[4])


def _outcome(label: Any, before: World, after: World) -> list[Line]:
    log = after.disks[before.procs[label[1]].disk].log
    lost = log[-1][3]
    return _append(before, label[1], "outcome", sink=_name(label[2]), last=label[3], rows_given_up=lost)


def _open(label: Any, *_: World) -> list[Line]:
    return [{"do": "open", "sink": _name(label[2]), "token": _token(label[3])}]


def _commit(label: Any, *_: World) -> list[Line]:
    _, _, sink, first, last, expected, new, result = label
    if result not in ("ok", "refused", "unknown"):
        return []  # the process stopped before it asked the sink
    move = {"expected": _token(expected), "new": _token(new)}
    return [{"do": "commit", "sink": _name(sink), "first": first, "last": last, **move, "result": result}]


def _prepare(label: Any, before: World, after: World) -> list[Line]:
    proc = before.procs[label[1]]
    result = "ok" if after.procs[label[1]].pc == "run" else "failed"
    result = "unknown" if label[0] == "prepare unknown" else result
    fields = _seal_fields(proc.hand)
    return [{"do": "prepare", "sink": _name(label[2]), **fields, "result": result}]


def _aborts(label: Any, before: World, after: World) -> list[Line]:
    sink = label[2]
    gone = [handle for handle in before.sinks[sink].handles if handle not in after.sinks[sink].handles]
    aborts = []
    for handle in gone:
        epoch, seal = seal_of(handle.seal).epoch, f"seal{handle.seal}"
        aborts.append({"do": "abort", "sink": _name(sink), "incarnation": handle.inc, "epoch": epoch, "seal": seal})
    return aborts


_WRITERS: dict[str, Callable[[Any, World, World], list[Line]]] = {
    "start": _start,
    "seal": _seal,
    "seal fails": _failed_seal,
    "settle": _settle,
    "attempt": _attempt,
    "outcome": _outcome,
    "open": _open,
    "commit": _commit,
    "prepare": _prepare,
    "prepare fails": _prepare,
    "prepare unknown": _prepare,
    "abort": _aborts,
    "abort orphans": _aborts,
    "drain": lambda *_: [{"do": "drained"}],
    "restart": lambda *_: [{"do": "kill"}],
}
