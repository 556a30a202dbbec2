"""What must hold in every state, and what a last calm process must reach from every state."""

from __future__ import annotations

from functools import cache
from itertools import pairwise

from spec.journal import LEFT_UNDECIDED, LEFT_UNDRAINED, Label, excuse
from spec.model import Budget, Disk, Lane, Proc, Setting, SinkState, View, World, chain_to, read_log, seal_of
from spec.world import own_moves

__all__ = ["Recovery", "violation"]

_CALM = 99  # the maker number of the calm process
_MOST_STEPS = 300


def violation(setting: Setting, world: World) -> str:
    """What is wrong with this state by itself; empty: nothing."""
    for sink, state in enumerate(world.sinks):
        guarantee = setting.scenario.guarantees[sink]
        if guarantee == "exactly":
            wrong = _exact_violation(setting, state, sink)
            if wrong:
                return wrong
        else:
            most = max((state.table.count(x) for x in state.table), default=0)
            excused = world.allowed[sink] if guarantee == "least" else 0
            if most > 1 + excused:
                return f"sink {sink} shows rows twice that no unknown outcome excuses"
    if not setting.safe.redo_what_was_sealed and _are_two_versions(world):
        return "two sinks show two versions of one epoch"
    if not _is_one_line(world.drained):
        return "two histories both ended cleanly"
    return _journal_violation(setting, world)


def _exact_violation(setting: Setting, state: SinkState, sink: int) -> str:
    """The rows are exactly those of the epochs up to the token, in order."""
    shown = tuple(abs(x) for x in state.table)  # a mutant's second version of an epoch is judged between sinks
    if setting.safe.token_with_rows and setting.safe.token_in_handle:
        if shown != _rows_to(state.token, sink):
            return f"sink {sink} shows other rows than those sealed up to its token"
    elif len(set(shown)) < len(shown):
        return f"sink {sink} shows rows twice"
    return ""


def _are_two_versions(world: World) -> bool:
    shown = {x for state in world.sinks for x in state.table}
    return any(-x in shown for x in shown)


@cache
def _rows_to(token: int, sink: int) -> tuple[int, ...]:
    return tuple(x for x in chain_to(token) if seal_of(x).rows >> sink & 1)


@cache
def _is_one_line(heads: tuple[int, ...]) -> bool:
    chains = sorted((chain_to(head) for head in heads), key=len)
    return all(longer[: len(shorter)] == shorter for shorter, longer in pairwise(chains))


def is_forked(setting: Setting, world: World) -> bool:
    """Whether a journal was restored, copied or begun anew."""
    was, left = setting.scenario.budget, world.budget
    return (was.journal_restores, was.copies, was.fresh) != (left.journal_restores, left.copies, left.fresh)


def _journal_violation(setting: Setting, world: World) -> str:
    if setting.scenario.together:
        wrong = _atomic_violation(world)
        if wrong:
            return wrong
    if is_forked(setting, world):
        return ""
    disk = world.disks[0]
    view = read_log(disk.log, disk.journal)
    if view.broken:
        return f"the journal is broken: {view.broken}"
    if setting.scenario.budget.sink_restores != world.budget.sink_restores:
        return ""
    settled = frozenset(view.chain[: view.settled])
    return _unsettled(setting, world, view, settled)


def _atomic_violation(world: World) -> str:
    """What one sink shows of an epoch, every other one shows or can still show."""
    if not _is_one_line(tuple(sorted({state.token for state in world.sinks}))):
        return "two sinks show two decisions of one epoch"
    for shown in world.sinks:
        rows = seal_of(shown.token).rows
        for other, state in enumerate(world.sinks):
            is_held = any(handle.seal == shown.token for handle in state.handles)
            if rows >> other & 1 and not is_held and shown.token not in chain_to(state.token):
                return f"an epoch is shown by one sink and can never be shown by sink {other}"
    return ""


def _unsettled(setting: Setting, world: World, view: View, settled: frozenset[int]) -> str:
    for sink, state in enumerate(world.sinks):
        missing = sum(seal_of(x).rows >> sink & 1 for x in settled.difference(abs(y) for y in state.table))
        known = view.lost[sink] if setting.scenario.guarantees[sink] == "most" else 0
        if missing > known:
            return f"settled although sink {sink} lacks rows"
    return ""


class Recovery:
    """From any state, with everything killed: one process without faults must finish, or stop for a stated reason."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting._replace(scenario=setting.scenario._replace(frees=False))
        self._known: dict[object, str] = {}
        self.path: list[Label] = []

    def violation(self, world: World) -> str:
        """What a calm recovery on the first journal gets wrong; empty: nothing. `path` then holds its steps."""
        world = excuse(self._setting, world, 0)
        key = (world.disks[0], world.sinks, world.budget[2:6], world.allowed)
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = self._recover(world)
        return found

    def _recover(self, world: World) -> str:
        """With the version of the last start; or, where a sink may not leave yet, with a former one that has it."""
        started = [record[1] for record in world.disks[0].log if record[0] == "start"]
        choices = self._setting.scenario.choices
        alone = world
        for members in dict.fromkeys([*started[:-2:-1], *choices]):
            alone = self._run_calmly(world, members)
            if alone.procs[0].why not in (LEFT_UNDECIDED, LEFT_UNDRAINED):
                break
        return self._judge(world, alone)

    def _run_calmly(self, world: World, members: int) -> World:
        setting = self._setting
        proc = Proc(0, _CALM, members, lanes=(Lane("closed", 0, 0, 0),) * len(setting.scenario.guarantees))
        alone = world._replace(disks=world.disks[:1], procs=(proc,), net=(), budget=Budget(), drained=())
        self.path = []
        for _ in range(_MOST_STEPS):
            if alone.procs[0].pc in ("fatal", "drained"):
                break
            step = next(own_moves(setting, alone, 0), None)
            if step is None:
                break
            self.path.append(step[0])
            alone = step[1]
        return alone

    def _judge(self, world: World, alone: World) -> str:
        proc = alone.procs[0]
        if proc.pc == "fatal":
            return "" if self._is_reason(world, proc.why) else f"a calm recovery stops: {proc.why}"
        if proc.pc != "drained":
            return "a calm recovery never ends"
        wrong = violation(self._setting, alone)
        if wrong:
            return wrong
        disk = alone.disks[0]
        view = read_log(disk.log, disk.journal)
        for sink, state in enumerate(alone.sinks):
            missing = [x for x in view.chain if seal_of(x).rows >> sink & 1 and not {x, -x}.intersection(state.table)]
            known = view.lost[sink] if self._setting.scenario.guarantees[sink] == "most" else 0
            if len(missing) > known:
                return f"a calm recovery ends cleanly, but rows of sink {sink} are lost"
        return self._left_behind(world, alone)

    def _left_behind(self, world: World, alone: World) -> str:
        if not self._setting.scenario.together or is_forked(self._setting, world):
            return ""
        if any(state.handles for state in alone.sinks):
            return "a prepared handle is left behind after a clean end"
        return ""

    def _is_reason(self, world: World, why: str) -> bool:
        if is_forked(self._setting, world):
            return True
        was_restored = self._setting.scenario.budget.sink_restores != world.budget.sink_restores
        if why == "headers gone" and _has_returned(world.disks[0]):  # it left before its token had reached the end
            return True
        return was_restored and why in ("rows gone", "headers gone")


def _has_returned(disk: Disk) -> bool:
    """Whether a sink has left the flow and come back."""
    seen = members = 0
    for record in disk.log:
        if record[0] == "start":
            if record[1] & ~members & seen:
                return True
            seen, members = seen | record[1], record[1]
    return False
