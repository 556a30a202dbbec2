"""Is a recorded run of the engine a path of the model? The run's own steps are taken in the model, one by one.

What a run does not show (whether an unanswered request took effect) is followed both ways: `check` keeps all worlds
that agree with the lines so far, and stops at the line that agrees with none of them. The format is in README.md.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

from spec import delivery, journal, together
from spec.model import Budget, Handle, Lane, Scenario, Seal, Setting, World, epoch_of, intern_seal, read_log, seal_of
from spec.safeguards import Safeguards
from spec.trace import GUARANTEES, written
from spec.world import first_world, land, start_process

__all__ = ["check", "written"]

Line = dict[str, Any]
_UNBOUNDED = 1 << 40


def check(lines: Iterable[str | Line]) -> str | None:
    """None when the model allows the run; else the first line that it does not allow, and why."""
    run = _answered([json.loads(line) if isinstance(line, str) else line for line in lines if line])
    replay = _Replay([line for _, line in run])
    try:
        for index, (number, line) in enumerate(run):
            why = replay.take(index, line)
            if why:
                return f"line {number}, {json.dumps(line)}: {why}"
    finally:
        read_log.cache_clear()  # long logs are keys of its cache
    return None


def _answered(run: list[Line]) -> list[tuple[int, Line]]:
    """Numbered lines without those that are only "asked": without an answer they end their process, outcome unknown."""
    found: list[tuple[int, Line]] = []
    waiting: dict[str, tuple[int, Line]] = {}
    for number, line in enumerate(run, 1):
        if line["do"] == "kill":
            found += sorted(waiting.values(), key=_is_append)
            waiting = {}
        name = json.dumps([line["do"], line.get("kind"), line.get("sink")])
        if line.get("result") == "asked":
            unknown = "failed" if line["do"] == "append" else "unknown"
            waiting[name] = (number, {**line, "result": unknown})
        else:
            waiting.pop(name, None)
            found.append((number, line))
    return [*found, *sorted(waiting.values(), key=_is_append)]


def _is_append(numbered: tuple[int, Line]) -> bool:
    """Of unanswered lines it comes last: one that fails stops the process; the others were under way beside it."""
    return bool(numbered[1]["do"] == "append")


class _Refused(Exception):
    """This world cannot take the line."""


def _demand(holds: object, why: str) -> None:
    if not holds:
        raise _Refused(why)


class _Replay:
    def __init__(self, run: list[Line]) -> None:
        self._run = run
        self._sinks, guarantees = _sinks_of(run)
        self._is_together = any(line.get("together") for line in run)
        scenario = Scenario(
            name="replay", about="", routes=((),), guarantees=tuple(guarantees),
            budget=Budget(starts=_UNBOUNDED, delays=_UNBOUNDED), together=self._is_together, zombies=False,
        )  # fmt: skip
        self._setting = Setting(scenario, Safeguards())
        self._names: dict[int, str] = {}
        self._worlds = {first_world(self._setting)._replace(procs=())}
        self._takes: dict[str, Callable[[World, int, Line], list[World]]] = {
            "append": self._append, "open": self._open, "commit": self._commit, "prepare": self._prepare,
            "abort": self._abort, "kill": self._kill, "drained": self._drained,
        }  # fmt: skip

    def take(self, index: int, line: Line) -> str:
        """Take a line in every world; why none could, or empty."""
        act = self._takes.get(line["do"])
        if act is None:
            return "" if line["do"] in ("begin", "halt") else "no such line"
        after: set[World] = set()
        reasons: list[str] = []
        for world in self._with_late_effects():
            try:
                after.update(self._lean(each) for each in act(world, index, line))
            except _Refused as refused:
                reasons.append(refused.args[0])
        if not after:
            return reasons[0]
        self._worlds = after
        return ""

    def _with_late_effects(self) -> set[World]:
        found, waiting = set(self._worlds), list(self._worlds)
        while waiting:
            world = waiting.pop()
            for number in range(len(world.net)):
                after = self._lean(land(self._setting, world, number))
                if after not in found:
                    found.add(after)
                    waiting.append(after)
        return found

    def _lean(self, world: World) -> World:
        """Tables are judged by the search, not here; a request that can never take effect any more is dropped."""
        sinks = tuple(state._replace(table=()) for state in world.sinks)
        net = tuple(r for r in world.net if self._is_exact(r.sink) and self._may_land(world, r))
        procs = tuple(proc._replace(why="killed") for proc in world.procs[:-1]) + world.procs[-1:]
        budget = Budget(starts=_UNBOUNDED, delays=_UNBOUNDED)
        return world._replace(
            sinks=sinks, net=net, procs=procs, budget=budget, allowed=(0,) * len(sinks), drained=()
        )  # fmt: skip

    def _may_land(self, world: World, request: Any) -> bool:
        state = world.sinks[request.sink]
        if request.kind == "commit handle":
            return any(h.seal == request.new for h in state.handles)
        return request.kind == "prepare" or bool(state.token == request.expected)

    def _is_exact(self, sink: int) -> bool:
        return journal.is_exact(self._setting, sink)

    # ------------------------------------------------------------------------------------------------- the journal

    def _running(self, world: World) -> int:
        _demand(world.procs, "no process has started")
        proc = world.procs[-1]
        _demand(not proc.why, f"the process had to stop: {proc.why}")
        return len(world.procs) - 1

    def _stopping(self, before: World, after: World, p: int, sink: int) -> World:
        """After a fatal answer the process asks for nothing more, but what other sinks were asked may be answered."""
        why = after.procs[p].why or before.procs[p].why
        if not why:
            return after
        proc = before.procs[p]._replace(why=why)
        lanes = (*proc.lanes[:sink], Lane("closed", 0, 0, 0), *proc.lanes[sink + 1 :])
        return journal.put_proc(after, p, proc._replace(lanes=lanes))

    def _append(self, world: World, index: int, line: Line) -> list[World]:
        expected = len(world.disks[0].log) + 1
        _demand(line.get("number", expected) == expected, f"the next number is {expected}")
        if line["kind"] == "start":
            return [self._start(world, line)]
        why = world.procs[-1].why if world.procs else ""
        if why and world.procs[-1].pc == "run":  # one append may have been under way when another answer was fatal
            world = journal.put_proc(world, len(world.procs) - 1, world.procs[-1]._replace(why=""))
            finished = self._append(world, index, line)
            return [journal.stop_fatally(each, len(each.procs) - 1, why) for each in finished]
        p = self._running(world)
        _demand(world.procs[p].pc == "run", "a start record comes first")
        records = {"seal": self._seal, "settle": self._settle, "attempt": self._attempt, "outcome": self._outcome}
        record = records.get(line["kind"])
        if record is None:  # of no meaning to the model, but it takes a number
            return [journal.append(self._setting, world, p, ("void",))]
        after = record(world, p, line)
        if line.get("result", "ok") == "ok":
            return after
        return [journal.stop_fatally(each, p, "an append failed") for each in (world, *after)]

    def _start(self, world: World, line: Line) -> World:
        names = line.get("sinks", list(self._sinks))
        members = sum(1 << self._sinks[name] for name in names)
        for proc in world.procs:
            _demand(proc.pc == "fatal", "the process before it has not ended")
        world = start_process(self._setting, world, 0, members)
        p = len(world.procs) - 1
        return journal.read_journal(self._setting, journal.append_start(self._setting, world, p), p)

    def _seal(self, world: World, p: int, line: Line) -> list[World]:
        view, proc = journal.view_of(world, p), world.procs[p]
        _demand(line["epoch"] == view.head + 1, f"the next epoch is {view.head + 1}")
        if view.head and "previous" in line:
            _demand(self._names.get(view.chain[-1]) == line["previous"], "it does not name its predecessor")
        if self._is_together:
            rows = self._mask(line)
            _demand(rows == 0 or proc.hand, "nothing is prepared")
            _demand(rows & ~proc.ready == 0, "not every sink has prepared")
        seal_id = self._seal_id(world, p, line)
        _demand(proc.hand in (0, seal_id), "another epoch is prepared")
        return [journal.seal_epoch(self._setting, world, p, seal_id)]

    def _mask(self, line: Line) -> int:
        rows = line.get("rows", {})
        return sum(1 << self._sinks[name] for name in rows)

    def _seal_id(self, world: World, p: int, line: Line) -> int:
        """The model's id for the line's; a random id belongs to one epoch of one process."""
        view = journal.view_of(world, p)
        before = view.chain[-1] if view.chain else -world.disks[0].journal
        at = seal_of(before).stop if view.chain else 0
        seal_id = intern_seal(Seal(before, p, view.head + 1, at, at + 1, self._mask(line)))
        known = self._names.setdefault(seal_id, line["seal"])
        others = [other for other, name in self._names.items() if name == line["seal"] and other != seal_id]
        _demand(known == line["seal"], "the epoch already has another seal id")
        _demand(all(_is_same_draw(seal_of(o), seal_of(seal_id)) for o in others), "the seal id was used before")
        return seal_id

    def _settle(self, world: World, p: int, line: Line) -> list[World]:
        through = journal.settle(self._setting, world, p)
        _demand(line["epoch"] <= through, f"not every sink is past epoch {through}")
        _demand(line["epoch"] > journal.view_of(world, p).settled, "that was settled before")
        return [journal.append(self._setting, world, p, ("settle", line["epoch"]))]

    def _attempt(self, world: World, p: int, line: Line) -> list[World]:
        sink, lane = self._lane(world, p, line)
        _demand(lane.state == "open", f"the sink is {lane.state}")
        world = self._skip_empty(world, p, sink, line)
        self._demand_range(world, p, sink, line)
        return [delivery.record_attempt(self._setting, world, p, sink, line["last"])]

    def _outcome(self, world: World, p: int, line: Line) -> list[World]:
        sink, lane = self._lane(world, p, line)
        _demand(lane.state in ("done", "lost"), "nothing was tried")
        _demand(line["last"] == lane.upto, f"epochs through {lane.upto} were tried")
        after = delivery.record_outcome(self._setting, world, p, sink)
        lost = after.disks[0].log[-1][3]
        _demand(bool(lost) == bool(line.get("rows_given_up", 0)), "what may be lost is not what was given up")
        return [after]

    def _kill(self, world: World, index: int, line: Line) -> list[World]:
        procs = tuple(proc._replace(pc="fatal", why="killed", log=(), lanes=()) for proc in world.procs)
        return [world._replace(procs=procs)]

    def _drained(self, world: World, index: int, line: Line) -> list[World]:
        p = self._running(world)
        view = journal.view_of(world, p)
        _demand(line.get("behind") or view.settled == view.head, f"settled is epoch {view.settled} of {view.head}")
        return [world]

    # -------------------------------------------------------------------------------------------------- the sinks

    def _lane(self, world: World, p: int, line: Line) -> tuple[int, Lane]:
        sink = self._sinks[line["sink"]]
        proc = world.procs[p]
        _demand(proc.pc != "fatal", f"the process had to stop: {proc.why}")
        _demand(proc.pc in ("run", "abort"), "a start record comes first")
        _demand(world.procs[p].members >> sink & 1, "the sink is not part of this version of the flow")
        return sink, world.procs[p].lanes[sink]

    def _is_token(self, seal_id: int, token: list[Any] | None) -> bool:
        if token is None or seal_id == 0:
            return token is None and seal_id == 0
        return [epoch_of(seal_id), self._names.get(seal_id)] == list(token)

    def _open(self, world: World, index: int, line: Line) -> list[World]:
        p = self._running(world)
        sink, lane = self._lane(world, p, line)
        if not self._is_exact(sink) and lane.state != "closed":
            return [world]  # opened again after a failure: without a token nothing is learnt
        if self._is_exact(sink):
            _demand(self._is_token(world.sinks[sink].token, line["token"]), "the sink cannot hold this token")
        return [self._stopping(world, delivery.open_sink(self._setting, world, p, sink), p, sink)]

    def _skip_empty(self, world: World, p: int, sink: int, line: Line) -> World:
        """Without a token, epochs without rows need no delivery: whether a range begins with them means nothing."""
        view, lane = journal.view_of(world, p), world.procs[p].lanes[sink]
        before = line["first"] - 1
        skipped = view.chain[min(lane.cursor, before) : max(lane.cursor, before)]
        if self._is_exact(sink) or lane.state != "open" or any(seal_of(x).rows >> sink & 1 for x in skipped):
            return world
        return delivery.put_lane(world, p, sink, lane._replace(cursor=before))

    def _demand_range(self, world: World, p: int, sink: int, line: Line) -> None:
        view, lane = journal.view_of(world, p), world.procs[p].lanes[sink]
        _demand(line["first"] == lane.cursor + 1, f"the sink is at epoch {lane.cursor}")
        _demand(line["first"] <= line["last"] <= view.head, f"only epochs through {view.head} are sealed")

    def _commit(self, world: World, index: int, line: Line) -> list[World]:
        _demand(world.procs, "no process has started")
        p = len(world.procs) - 1
        sink, lane = self._lane(world, p, line)
        is_tried = self._setting.scenario.guarantees[sink] == "most"
        _demand(lane.state == ("trying" if is_tried else "open"), f"the sink is {lane.state}")
        _demand(not is_tried or line["last"] == lane.upto, f"epochs through {lane.upto} are to be tried")
        world = self._skip_empty(world, p, sink, line)
        lane = world.procs[p].lanes[sink]
        self._demand_range(world, p, sink, line)
        new = journal.view_of(world, p).chain[line["last"] - 1]
        if self._is_exact(sink):
            _demand(self._is_token(lane.token, line["expected"]), "another token is expected")
            _demand(self._is_token(new, line["new"]), "that is not the seal of the last epoch")
        if line["result"] in ("unavailable", "rows refused"):
            lost = delivery.put_lane(world, p, sink, lane._replace(state="lost"))
            return [world, lost] if is_tried else [world]
        if self._is_together and seal_of(new).rows >> sink & 1:
            return self._commit_prepared(world, p, sink, line)
        is_answered = line["result"] != "unknown"
        after = delivery.commit(self._setting, world, p, sink, line["last"], is_answered=is_answered)
        if after is None:
            return []
        is_refused = after.procs[p].pc == "fatal"
        _demand(is_refused == (line["result"] == "refused"), "the sink's token says otherwise")
        return [self._stopping(world, after, p, sink)]

    def _commit_prepared(self, world: World, p: int, sink: int, line: Line) -> list[World]:
        new = journal.view_of(world, p).chain[line["last"] - 1]
        label, steps = line["result"], list(together.commit_moves(self._setting, world, p, sink, line["last"]))
        found = [after for step, after in steps if step[-1] == label]
        _demand(found, f"the handle of seal {self._names[new]} says otherwise")
        return [self._stopping(world, after, p, sink) for after in found]

    # -------------------------------------------------------------------------------------------- commit="together"

    def _prepare(self, world: World, index: int, line: Line) -> list[World]:
        if not self._is_together:
            return [world]  # rows go to the spool or are staged: nothing of it can be seen
        p = self._running(world)
        sink, lane = self._lane(world, p, line)
        if not world.procs[p].hand:
            world = self._begin_epoch(world, p, index, line)
        proc = world.procs[p]
        _demand(seal_of(proc.hand).epoch == line["epoch"], "another epoch is open")
        _demand(lane.state == "open", "the sink is not open")
        if line.get("result", "ok") == "ok":
            after = together.prepare(self._setting, world, p, sink)
            _demand(after.procs[p].pc == "run", "another handle or token is in the way")
            return [after]
        world = journal.put_proc(world, p, proc._replace(pc="abort"))
        handle = Handle(1, proc.inc, proc.hand, lane.token)
        staged = together.take_prepare(self._setting, world.sinks[sink], handle)
        is_unknown = line["result"] == "unknown" and staged is not None
        return [world, delivery.put_sink(world, sink, staged)] if is_unknown and staged else [world]

    def _begin_epoch(self, world: World, p: int, index: int, line: Line) -> World:
        proc, view = world.procs[p], journal.view_of(world, p)
        for sink in journal.members_of(self._setting, proc):
            _demand(proc.lanes[sink].state == "open", "not every sink is open")
            listed = together.abort_orphans(self._setting, world, p, sink)
            _demand(listed.sinks == world.sinks, "handles of dead incarnations are left")
            behind = view.chain[proc.lanes[sink].cursor :]
            _demand(not any(seal_of(x).rows >> sink & 1 for x in behind), "the epoch before is not committed")
        hand = self._seal_id(world, p, self._sealed_as(index, line))
        return journal.put_proc(world, p, proc._replace(hand=hand, ready=0))

    def _sealed_as(self, index: int, line: Line) -> Line:
        """The line that seals what is prepared here; where none follows, what was prepared of it."""
        rows: dict[str, int] = {}
        for later in self._run[index:]:
            if later["do"] == "kill" or later.get("kind") == "start":
                break
            if later.get("kind") == "seal" and later["epoch"] == line["epoch"]:
                return later
            if later["do"] == "prepare":
                rows.update(later.get("rows") or {later["sink"]: 1})
        return {"seal": line.get("seal", f"never sealed, line {index + 1}"), "rows": rows}

    def _abort(self, world: World, index: int, line: Line) -> list[World]:
        p = self._running(world)
        sink, _ = self._lane(world, p, line)
        proc, state, view = world.procs[p], world.sinks[sink], journal.view_of(world, p)
        kept = []
        for handle in state.handles:
            is_meant = seal_of(handle.seal).epoch == line.get(
                "epoch", seal_of(proc.hand).epoch
            ) and handle.inc == line.get("incarnation", proc.inc)
            if not is_meant:
                kept.append(handle)
                continue
            _demand(handle.seal not in view.chain, "that epoch was sealed")
            is_own = proc.pc == "abort" and handle.inc == proc.inc
            were_opened = all(proc.opened >> s & 1 for s in journal.members_of(self._setting, proc))
            _demand(is_own or were_opened, "not every sink was opened")
            _demand(is_own or handle.inc < proc.inc, "its incarnation is not dead")
        return [delivery.put_sink(world, sink, state._replace(handles=tuple(kept)))]


def _is_same_draw(one: Seal, other: Seal) -> bool:
    return (one.maker, one.epoch) == (other.maker, other.epoch)


def _sinks_of(run: list[Line]) -> tuple[dict[str, int], list[str]]:
    """Sinks by name, numbered in the order they appear, and their guarantees: as said, or as what they do shows."""
    said: dict[str, str] = {}
    for line in run:
        if line["do"] == "begin":
            short = {long: name for name, long in GUARANTEES.items()}
            said.update({name: short[guarantee] for name, guarantee in line["sinks"].items()})
        names = [line["sink"]] if "sink" in line else []
        if line.get("kind") in ("seal", "start"):
            names += [*line.get("rows", ()), *line.get("sinks", ())]
        for name in names:
            said.setdefault(name, "")
    for name in (name for name, guarantee in said.items() if not guarantee):
        kinds = {line.get("kind") for line in run if line.get("sink") == name}
        said[name] = "most" if "attempt" in kinds else "least" if "outcome" in kinds else "exactly"
    return {name: number for number, name in enumerate(said)}, list(said.values())
