"""Looking after what the sinks of a flow write to, beside a run or without one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from onefold.engines.embedded.examination import demand_settings, who_works
from onefold.engines.embedded.outputs import binding_of
from onefold.plan import Output, Plan
from onefold.protocols import Maintain, Maintained

__all__ = ["maintain", "maintained_outputs"]


def maintained_outputs(plan: Plan) -> tuple[Output, ...]:
    """The sinks that can be asked."""
    return tuple(output for output in plan.outputs if isinstance(output.sink, Maintain))


def maintain(
    plan: Plan, folder: Path, *, is_dry: bool, wanted: Callable[[Output], bool] = lambda _: True
) -> Iterator[tuple[str, Maintained]]:
    """(sink, what was done), of one sink after the other. is_dry: only what would be done.

    If killed inside: whatever was done stays done, the rest can be asked for again. Raises SinkUnavailable,
    SinkRefused, SettingMissing.
    """
    demand_settings(plan)
    who = who_works(plan, folder)
    for output in maintained_outputs(plan):
        if wanted(output) and isinstance(output.sink, Maintain):
            binding = binding_of(output, plan, spool=None, **who)
            for done in output.sink.maintain(binding, is_dry=is_dry):
                yield output.name, done
