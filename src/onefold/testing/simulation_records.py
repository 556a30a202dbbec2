"""What simulated processes share, and the real journal records that they write and read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Literal

from onefold.course import SinkRule
from onefold.engines.embedded.opening import History
from onefold.records import Seal, SinkEntry, Start
from onefold.steps import AppendSeal
from onefold.testing.simulation_world import Chance, Judge, SimulatedSink
from onefold.types import EpochNumber, Guarantee, Receipt, SealId

__all__ = ["ROW_BYTES", "Draft", "Surroundings", "rule_of", "seal_record", "start_record"]

ROW_BYTES = 10


@dataclass
class Surroundings:
    """What outlives every process, and how rough it is there (0: nothing fails)."""

    chance: Chance
    judge: Judge
    commit: Literal["separately", "together"]
    sinks: dict[str, SimulatedSink]
    guarantees: dict[str, Guarantee]
    inputs: int
    deliver_bytes: int
    roughness: float = 1.0
    epochs: int = 0
    is_paced: bool = False
    note: Callable[[str], None] | None = None
    rows: dict[tuple[str, str], tuple[int, ...]] = field(default_factory=dict)

    def outputs(self) -> Mapping[str, Any]:
        """As much of the plan's outputs as identity.sink_entries reads."""
        return {
            name: SimpleNamespace(guarantee=guarantee, binding_shape=lambda name=name: {"target": name})
            for name, guarantee in self.guarantees.items()
        }


@dataclass
class Draft:
    """The open epoch: what it reads up to, and its positions by sink."""

    seal: SealId
    end: int
    rows: dict[str, tuple[int, ...]]


def start_record(entries: Mapping[str, SinkEntry], place: Mapping[str, Any]) -> Start:
    """As opening a flow writes it. place: where the journal is at home."""
    return Start(process={}, location=place, plan={}, sinks=entries, state_key="", version="")


def rule_of(name: str, around: Surroundings, entry: SinkEntry, history: History) -> SinkRule:
    """As opening a flow gives it to the core."""
    through = max(entry.through, history.through.get(name, EpochNumber(0)))
    attempt = history.attempts.get(name)
    return SinkRule(name, around.guarantees[name], entry.joined, entry.base, through, attempt, is_paced=around.is_paced)


def seal_record(step: AppendSeal, draft: Draft, staged: set[str]) -> Seal:
    """As the conductor writes it; the rows themselves are in Surroundings.rows. staged: sinks that hold them."""
    receipts = {
        sink: (
            Receipt(step.epoch, "native" if sink in staged else "spool", len(positions), len(positions) * ROW_BYTES),
        )
        for sink, positions in draft.rows.items()
    }
    ends = {"r": {"0": draft.end}}
    return Seal(step.epoch, step.seal, step.previous, ends, receipts, (), {}, {}, {}, 0.0)
