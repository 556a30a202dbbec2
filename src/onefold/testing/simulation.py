"""Seeded schedules for the pure core: the real EpochCore among crashes, zombies, lost answers, copies and restores.

    outcome = simulate(random.Random(seed))     # raises PromiseBroken when a promise does not hold

One schedule is rough for a while and then calm: no more faults, a drain is asked, and everything must end as promised.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from onefold.errors import (
    SinkChanged,
    SinkForked,
    SinkRestored,
    SinkUnavailable,
    StateUnknown,
    TokenRefused,
)
from onefold.steps import DeliveryDue, DrainAsked, FenceDue, SettleDue, StopAsked
from onefold.testing.simulation_instance import Instance
from onefold.testing.simulation_profiles import PACED, PROFILES, Profile
from onefold.testing.simulation_records import Surroundings
from onefold.testing.simulation_world import Chance, Judge, PromiseBroken, SimulatedJournal, SimulatedSink
from onefold.types import Guarantee, TokenMove

__all__ = ["PACED", "PROFILES", "Outcome", "Profile", "PromiseBroken", "simulate"]

CALM_STEPS = 1500
"""Steps in which a calm run must have drained."""

MOST_STARTS = 100
"""Rows that a copy has prepared hold the token until our incarnations have passed its own."""

T = TypeVar("T")
_LAWS = (Guarantee.EXACTLY_ONCE, Guarantee.EXACTLY_ONCE, Guarantee.AT_LEAST_ONCE, Guarantee.AT_MOST_ONCE)


@dataclass
class Outcome:
    """How a schedule went. ends: how each journal's last process ended; stops: what stopped processes before."""

    profile: str
    steps: int = 0
    ends: list[str] = field(default_factory=list)
    stops: Counter[str] = field(default_factory=Counter)


def simulate(
    chance: Chance, *, note: Callable[[str], None] | None = None, profiles: Sequence[Profile] = PROFILES
) -> Outcome:
    """Run one schedule. note: told of every event and step, for a trace. Raises PromiseBroken."""
    schedule = _Schedule(chance, profiles, note)
    schedule.run()
    return schedule.outcome


class _Schedule:
    def __init__(self, chance: Chance, profiles: Sequence[Profile], note: Callable[[str], None] | None) -> None:
        self.chance = chance.random
        self.note = note or _ignore
        self.profile = self._pick(profiles)
        self.outcome = Outcome(self.profile.name)
        self.zombies: list[Instance] = []
        self.journals = [SimulatedJournal("J", "home")]
        self.running: list[Instance | None] = [None]
        self.backup = self.journals[0].copy("backup")
        self.starts = 0
        self.asked: set[Instance] = set()
        self.always, self.constant = set[str](), set[str]()
        together = self.profile.commit == "together"
        locks = together and self.chance() < 0.5
        only_exact = together or self.profile.is_forked
        sinks: dict[str, SimulatedSink] = {}
        laws: dict[str, Guarantee] = {}
        for at, name in enumerate("abcd"[: 1 + self._below(3)]):
            laws[name] = _LAWS[0] if only_exact else self._pick(_LAWS)
            may_stage = laws[name] is Guarantee.EXACTLY_ONCE and not self.profile.changes
            stages = together or (may_stage and self.chance() < 0.3)
            sinks[name] = SimulatedSink(name, at, stages=stages, locks=locks)
        for sink in sinks.values() if locks else ():
            sink.beside = [other for other in sinks.values() if other is not sink]
        inputs = 3 + self._below(10)
        if self.profile.poison:
            self._pick(list(sinks.values())).poison = self._below(inputs)
        judge = Judge(inputs, is_forked=self.profile.is_forked)
        limit = self._pick((1, 25, 1000))
        self.around = Surroundings(chance, judge, self.profile.commit, sinks, laws, inputs, limit, note=note)
        self.around.is_paced = self.profile.paces
        self.always |= set(sinks)
        self.constant |= set(sinks)

    # ------------------------------------------------------------------------------------------------------ chance

    def _below(self, count: int) -> int:
        return int(self.chance() * count)

    def _pick(self, items: Sequence[T]) -> T:
        return items[int(self.chance() * len(items))]

    # --------------------------------------------------------------------------------------------------------- run

    def run(self) -> None:
        """Rough, then calm."""
        self.note(f"{self.profile}")
        self.outcome.steps = rough = 20 + self._below(100)
        for _ in range(rough):
            self._step()
        self.note("calm from here")
        self._calm()

    def _step(self) -> None:
        place = self._below(len(self.journals))
        if self.chance() < 0.07:
            self._fault(place)
            return
        instance = self.running[place]
        if self.zombies and self.chance() < 0.4:
            instance = self._pick(self.zombies)
        if instance is None or instance.is_over:
            self._after(place)
            return
        self._move(instance)
        self._look(instance)

    def _move(self, instance: Instance) -> None:
        """One thing happens in an instance."""
        luck = self.chance()
        if instance not in self.asked and luck < 0.25 and instance.core.can_offer:
            instance.offer(self._below(4))
        elif luck < 0.3:
            instance.tell(FenceDue())
        elif luck < 0.36:
            instance.tell(SettleDue())
        elif luck < 0.37 and instance not in self.asked:
            self.asked.add(instance)
            instance.tell(DrainAsked() if self.chance() < 0.5 else StopAsked())
        elif self.profile.paces and luck < 0.45:
            instance.tell(DeliveryDue(self._pick(list(self.around.sinks))))
        elif choices := instance.choices():
            do, what = self._pick(choices)
            do(what)

    def _look(self, instance: Instance) -> None:
        error = instance.halted
        if error is None:
            return
        self.outcome.stops[type(error).__name__] += 1
        is_known = isinstance(error, self.profile.expected())
        if not is_known and not (instance.is_zombie and isinstance(error, SinkForked)):
            raise PromiseBroken(f"{instance.name} was stopped by {type(error).__name__}: {error}") from error

    def _after(self, place: int) -> None:
        """A process has ended, or none has begun: what is left of it, and the next one."""
        instance = self.running[place]
        if instance is not None:
            self._end(instance)
        self.running[place] = self._start(place)

    def _end(self, instance: Instance) -> None:
        if self.chance() < 0.3:
            instance.kill()
        while instance.is_over and (choices := instance.choices()):
            do, what = self._pick(choices)
            do(what)

    def _start(self, place: int) -> Instance:
        self.starts += 1
        before = dict(self.around.guarantees)
        if self.profile.changes and self.chance() < 0.4:
            self._change()
        name = f"{'ABCDEFGH'[place]}{self.starts}"
        self.note(f"{name} starts with {self.around.guarantees}")
        try:
            return Instance(self.around, self.journals[place], name)
        except SinkChanged as error:
            self.outcome.stops[type(error).__name__] += 1
            self.around.guarantees = before
            return Instance(self.around, self.journals[place], name)

    def _change(self) -> None:
        """Another version of the flow: a sink more, a sink less, another guarantee."""
        laws = dict(self.around.guarantees)
        luck = self.chance()
        if luck < 0.4 and len(self.around.sinks) < 4:
            name = "abcd"[len(self.around.sinks)]
            self.around.sinks[name] = SimulatedSink(name, len(self.around.sinks))
            laws[name] = self._pick(_LAWS)
        elif luck < 0.7 and laws:
            gone = self._pick(sorted(laws))
            del laws[gone]
            self.always.discard(gone)
            self.constant.discard(gone)
        else:
            name = self._pick(sorted(self.around.sinks))
            laws[name] = self._pick(_LAWS)
            self.constant.discard(name)
        self.around.guarantees = laws

    # ------------------------------------------------------------------------------------------------------ faults

    def _fault(self, place: int) -> None:
        sink = self._pick(list(self.around.sinks.values()))
        turns_back = self.profile.is_forked or self.profile.restores_sinks
        fault = self._pick(("kill", "kill", "down", "land", *["zombie"] * 2, *["turn back"] * 4 * turns_back))
        if fault == "down":
            sink.is_down = not sink.is_down
        elif fault == "land" and sink.floating:
            sink.land(sink.floating.pop(self._below(len(sink.floating))), self.around.judge)
        elif fault == "turn back":
            self._turn_back(place, sink)
        elif fault == "zombie" and self.profile.zombies:
            self._make_zombie(place)
        elif fault == "kill" and (instance := self.running[place]) is not None:
            self._kill(instance)
            self.running[place] = None

    def _make_zombie(self, place: int) -> None:
        """The running process is overtaken by another, or one that was is killed."""
        instance = self.running[place]
        if len(self.zombies) == 2 or instance is None:
            if self.zombies:
                self._kill(self.zombies.pop(0))
            return
        self.note(f"{instance.name} becomes a zombie")
        instance.is_zombie = True
        self.zombies.append(instance)
        self.running[place] = None

    def _kill(self, instance: Instance) -> None:
        self.note(f"{instance.name} is killed")
        instance.kill()

    def _turn_back(self, place: int, sink: SimulatedSink) -> None:
        """Backups are made, and things are restored from them or copied."""
        if self.profile.restores_sinks and self.around.guarantees[sink.name] is Guarantee.EXACTLY_ONCE:
            self._turn_back_sink(sink)
        if self.profile.restores_journal:
            if self.chance() < 0.5 or not self.backup.records:
                self.backup = self.journals[0].copy("backup")
            else:
                self._restore_journal()
        if self.profile.copies_journal and len(self.journals) < 2 and self.journals[place].records:
            self.note("the journal is copied")
            self.journals.append(self.journals[place].copy("elsewhere"))
            self.running.append(None)

    def _turn_back_sink(self, sink: SimulatedSink) -> None:
        if not sink.backups or self.chance() < 0.5:
            sink.backups.append((sink.token, list(sink.rows), dict(sink.handles)))
            return
        token, rows, handles = self._pick(sink.backups)
        self.note(f"sink {sink.name} is restored to {token}")
        self.around.judge.was_restored.add(sink.name)
        sink.token, sink.rows, sink.handles = token, list(rows), dict(handles)

    def _restore_journal(self) -> None:
        self.note(f"the journal is restored to record {self.backup.last_number()}")
        instance, self.running[0] = self.running[0], None
        place = self._pick(("home", "restored"))
        if instance is not None and (place == "home" or self.chance() < 0.5):
            self._kill(instance)
        elif instance is not None:
            instance.is_zombie = True
            self.zombies.append(instance)
        self.journals[0] = self.backup.copy(place)

    # -------------------------------------------------------------------------------------------------------- calm

    def _calm(self) -> None:
        self.around.roughness = 0.0
        for sink in self.around.sinks.values():
            sink.is_down = False
        for zombie in self.zombies:
            self._kill(zombie)
        self.profile_changes_end()
        for place in range(len(self.journals)):
            self.outcome.ends.append(self._settle_down(place))
        if "drained" not in self.outcome.ends and not (self.profile.is_forked or self.profile.restores_sinks):
            raise PromiseBroken(f"ended as {self.outcome.ends}")

    def profile_changes_end(self) -> None:
        """The flow stays as it is."""
        self.profile = Profile(**{**vars(self.profile), "changes": False})

    def _settle_down(self, place: int) -> str:
        """The process that runs may be stopped by what has gone before; a fresh one by a fork only."""
        former = self.running[place]
        if former is not None:
            if not former.is_over and self.chance() < 0.5:
                self._drain(former)
            self._kill(former)
        instance = self._start(place)
        self._drain(instance)
        for _ in range(MOST_STARTS):
            if not (self.profile.is_forked and isinstance(instance.halted, SinkUnavailable)):
                break
            instance = self._start(place)
            self._drain(instance)
        if instance.drained is not None:
            self._check_end(instance)
            return "drained"
        error = type(instance.halted)
        is_known = error in (SinkForked, SinkRestored, StateUnknown, TokenRefused)
        if not (is_known and (self.profile.is_forked or self.profile.restores_sinks)):
            raise PromiseBroken(f"{instance.name}, in calm, was stopped by {instance.halted}")
        return error.__name__

    def _drain(self, instance: Instance) -> None:
        for _ in range(CALM_STEPS):
            if instance.is_over:
                break
            self.outcome.steps += 1
            if instance not in self.asked and instance.position >= self.around.inputs:
                self.asked.add(instance)
                instance.tell(DrainAsked())
            elif instance not in self.asked and instance.core.can_offer and self.chance() < 0.5:
                instance.offer(1 + self._below(3))
            elif choices := instance.choices():
                do, what = self._pick(choices)
                do(what)
        else:
            raise PromiseBroken(f"{instance.name} has not drained in {CALM_STEPS} calm steps")
        self._look(instance)

    def _check_end(self, instance: Instance) -> None:
        behind = instance.drained.behind if instance.drained else {}
        head = instance.core.chain.head
        if set(behind) - instance.stopped or (instance.core.settled != head and not behind):
            raise PromiseBroken(f"drained, but behind are {behind}, settled {instance.core.settled} of {head}")
        for rule in instance.rules:
            sink = self.around.sinks[rule.name]
            if sink.handles and rule.name not in behind and not self.profile.is_forked:
                raise PromiseBroken(f"{rule.name}: prepared rows are left: {sink.handles}")
            if rule.guarantee is Guarantee.EXACTLY_ONCE and rule.name not in behind and head >= rule.joined:
                self._check_sink(instance, sink)
        if not self.profile.is_forked:
            whole = [sink for sink in self.around.sinks.values() if sink.name not in behind]
            self.around.judge.ended(whole, instance.given_up, is_member=self.always.__contains__)

    def _check_sink(self, instance: Instance, sink: SimulatedSink) -> None:
        newest = instance.core.chain[instance.core.chain.head].token()
        if sink.token != newest:
            raise PromiseBroken(f"{sink.name}: drained at {newest}, holds {sink.token}")
        due = self.around.judge.rows_between(sink.name, TokenMove(None, newest))
        if sink.name in self.constant and sink.rows != due:
            raise PromiseBroken(f"{sink.name}: holds {sink.rows}, its history has {due}")


def _ignore(_: str) -> None:
    """No trace."""
