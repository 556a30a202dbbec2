"""What the parts declare about themselves, judged: the guarantee each sink really gets, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from onefold.errors import GuaranteeRefused
from onefold.plan import Output, Plan, ReadNode, WhereNode
from onefold.types import CommitClass, Guarantee

__all__ = ["Explanation", "Kept", "Verdict", "explain", "guarantee_of", "refuse_unkept"]


class Kept(NamedTuple):
    """The guarantee that can be kept, and the reason in a sentence."""

    guarantee: Guarantee
    reason: str


@dataclass(frozen=True)
class Verdict:
    """One sink: what was asked, what is kept and why, and what must be true for it."""

    sink: str
    label: str
    asked: Guarantee
    kept: Guarantee
    reason: str
    conditions: tuple[str, ...]

    @property
    def is_kept(self) -> bool:
        """Whether the flow gets what it asks for."""
        return self.kept >= self.asked


@dataclass(frozen=True)
class Explanation:
    """The verdicts of a flow; `str()` and `as_json()` show them."""

    flow: str
    verdicts: tuple[Verdict, ...]

    def __str__(self) -> str:
        lines = [f"flow {self.flow}"]
        for verdict in self.verdicts:
            asked = "" if verdict.is_kept else f" (asked for: {verdict.asked})"
            lines.append(f"  {verdict.sink}: {verdict.kept}{asked}, {verdict.label}")
            lines.append(f"    because {verdict.reason}")
            lines += [f"    as long as {condition}" for condition in verdict.conditions]
        return "\n".join(lines)

    __repr__ = __str__

    def as_json(self) -> dict[str, Any]:
        """The same as a JSON object."""
        return {
            "flow": self.flow,
            "sinks": [
                {
                    "sink": one.sink,
                    "target": one.label,
                    "asked": str(one.asked),
                    "kept": str(one.kept),
                    "reason": one.reason,
                    "conditions": list(one.conditions),
                }
                for one in self.verdicts
            ],
        }


def guarantee_of(output: Output, reads: Sequence[ReadNode] = ()) -> Kept:
    """The strongest guarantee, up to the one asked for, that the sink and the sources it depends on can keep.

    reads: the sources of the output; none: the sink is judged alone.
    """
    for read in reads:
        if not read.source.promise.is_replayable:
            reason = f"the source {read.label} cannot be read again: a crash before the seal loses what was read"
            return Kept(Guarantee.AT_MOST_ONCE, reason)
    commit_class = output.sink.promise.commit_class
    if output.guarantee is Guarantee.AT_MOST_ONCE:
        return Kept(Guarantee.AT_MOST_ONCE, "it is asked for: an unknown outcome is given up, not repeated")
    if output.guarantee is Guarantee.AT_LEAST_ONCE:
        return Kept(Guarantee.AT_LEAST_ONCE, "it is asked for: an unknown outcome is repeated")
    return Kept(_strongest(commit_class), _REASONS[commit_class])


def explain(plan: Plan) -> Explanation:
    """A verdict for each sink of the plan."""
    verdicts = []
    for output in plan.outputs:
        reads = _reads_of(plan, output)
        kept, reason = guarantee_of(output, reads)
        keeps = _strongest(output.sink.promise.commit_class) is Guarantee.EXACTLY_ONCE
        has_token = keeps and output.guarantee is Guarantee.EXACTLY_ONCE
        conditions = [*([] if has_token else [_UNCOPIED]), *output.sink.promise.conditions]
        if plan.commit == "together":
            conditions += output.sink.promise.conditions_together
            reason += "; an epoch shows in all sinks or in none"
        reason += "".join(f"; rows without {text} are deleted from it" for text in _stays(plan, output))
        for read in reads:
            conditions += read.source.promise.conditions
        unique = tuple(dict.fromkeys(conditions))
        verdicts.append(Verdict(output.name, output.label, output.guarantee, kept, reason, unique))
    return Explanation(plan.flow, tuple(verdicts))


def refuse_unkept(plan: Plan) -> None:
    """Raise GuaranteeRefused for the first sink whose guarantee cannot be kept."""
    for verdict in explain(plan).verdicts:
        if not verdict.is_kept:
            raise GuaranteeRefused(
                f"The sink {verdict.label} cannot keep {verdict.asked}.",
                found=f"{verdict.kept}, because {verdict.reason}",
                expected=str(verdict.asked),
                next_step=f'Say guarantee="{verdict.kept}" for this sink, or choose another.',
                flow=plan.flow,
                sink=verdict.sink,
            )


_UNCOPIED = "the journal is neither copied nor restored from a backup: without a token nothing at the sink would tell"
_REASONS = {
    CommitClass.NONE: "the sink keeps no token: a delivery whose outcome is unknown is repeated and shows twice",
    CommitClass.IDEMPOTENT: "the sink keeps no token: repeating is harmless by key only while nothing else has written",
    CommitClass.TWO_PHASE: "the sink commits a prepared handle that holds rows and token",
    CommitClass.TRANSACTIONAL: "the sink moves its token in the transaction that writes the rows",
}


def _strongest(commit_class: CommitClass) -> Guarantee:
    return Guarantee.EXACTLY_ONCE if commit_class >= CommitClass.TWO_PHASE else Guarantee.AT_LEAST_ONCE


def _stays(plan: Plan, output: Output) -> list[str]:
    """The conditions that its rows must fulfil, of a copy that is made of changes."""
    names = _above(plan, output)
    return [node.stays for node in plan.nodes if isinstance(node, WhereNode) and node.stays and node.name in names]


def _reads_of(plan: Plan, output: Output) -> list[ReadNode]:
    names = _above(plan, output)
    return [read for read in plan.reads() if read.name in names]


def _above(plan: Plan, output: Output) -> set[str]:
    """The names of the nodes that an output depends on."""
    found: set[str] = set()
    waiting = [output.input]
    while waiting:
        name = waiting.pop()
        found.add(name)
        waiting.extend(plan.node(name).inputs)
    return found
