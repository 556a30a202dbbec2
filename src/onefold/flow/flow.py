"""The flow: reads, streams and outputs, and the immutable plan made of them."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from onefold.durations import Duration
from onefold.errors import BuildError, GuaranteeRefused, NameTaken, NotSupported, TargetTaken
from onefold.flow import reading
from onefold.flow.changes import for_copies, tell_sources
from onefold.flow.graph import Draft, check_name, names_of, nodes_of
from onefold.flow.reading import ReadOptions
from onefold.flow.run_settings import run_settings
from onefold.flow.stream import Stream
from onefold.plan import OP_COLUMN, Output, Plan
from onefold.protocols import Format, SeesTargets, Sifting, Sink, describe
from onefold.settings import load_env_file
from onefold.types import CommitClass, Guarantee, Mode

if TYPE_CHECKING:
    from onefold.engines.embedded.runner import Run, Status, Summary
    from onefold.guarantee.declared import Explanation

__all__ = ["Flow"]


@dataclass(frozen=True)
class _OutputDraft:
    draft: Draft
    output: Output


class Flow:
    """A named pipeline: read, transform, write; built once, run anywhere.

    Args:
        name: letters, digits, - _ and .; it names the state and the tokens, so changing it starts anew.
        guarantee: of every sink that does not say otherwise.
        commit: "together" makes every epoch visible in all sinks or in none (two-phase commit).
        settings: epoch_bytes="48 MiB", keep_settled="1 day", max_dead="1%", …; docs/reference/flow.md lists them.

    >>> Flow("revenue", max_dead="1%")
    <Flow revenue: exactly-once, no reads, no outputs>
    """

    def __init__(
        self,
        name: str,
        guarantee: str | Guarantee = Guarantee.EXACTLY_ONCE,
        commit: Literal["separately", "together"] = "separately",
        **settings: Any,
    ) -> None:
        self._name = check_name(name, "A flow")
        self._guarantee = _guarantee(guarantee)
        if commit not in ("separately", "together"):
            raise BuildError("A flow cannot commit like this.", found=repr(commit), expected="separately or together")
        if commit == "together" and self._guarantee is not Guarantee.EXACTLY_ONCE:
            raise GuaranteeRefused('commit="together" is exactly-once.', found=self._guarantee, next_step="")
        self._commit: Literal["separately", "together"] = commit
        self._settings = run_settings(settings)
        self._reads: list[Draft] = []
        self._outputs: list[_OutputDraft] = []
        self._folder = _folder_of_caller()

    # ------------------------------------------------------------------------------------------------------ building

    @property
    def name(self) -> str:
        """The flow's name."""
        return self._name

    @property
    def guarantee(self) -> Guarantee:
        """The guarantee of every sink that does not say otherwise."""
        return self._guarantee

    def read(
        self,
        endpoint: object,
        schema: object = None,
        *,
        format: str | Format | None = None,  # noqa: A002 - the word everyone uses
        event_time: str | None = None,
        lateness: Duration | None = None,
        max_ahead: Duration | None = None,
        casts: Literal["exact", "lenient"] = "exact",
        meta: Sequence[str] = (),
        name: str | None = None,
    ) -> Stream:
        """Read a source.

        Args:
            endpoint: what a connection made, or any object with a Source's verbs.
            schema: a dict of SQL types, a pyarrow.Schema or an annotated dataclass; may be left out where the source
                knows its types.
            format: how bytes become columns, for instance "json"; None: as the endpoint says.
            event_time: the column that says when a row happened; TIMESTAMP, TIMESTAMPTZ or DATE.
            lateness: how far behind the newest event a row may be before it is late; none if not given.
            max_ahead: a row further ahead of the newest event than this is a dead letter; None: no limit.
            casts: "exact": a value that does not fit exactly is a dead letter; "lenient": rounding is allowed.
            meta: columns of the source to keep beside the schema's, such as "_file".
            name: of the read; it names the positions in the journal. Default: the endpoint's.

        Raises BuildError, SchemaError, NotSupported.
        """
        options = ReadOptions(format, event_time, lateness, max_ahead, casts, meta, name)
        draft, rows, time = reading.read_draft(self._name, endpoint, schema, options)
        self._reads.append(draft)
        return Stream(self, draft, rows, event_time=time)

    def union(self, first: Stream, *others: Stream) -> Stream:
        """All rows of two or more streams of the same columns."""
        return first.union(*others)

    @property
    def plan(self) -> Plan:
        """The flow as built so far: immutable, with only the steps that an output needs. Raises BuildError."""
        if not self._outputs:
            raise BuildError(
                f"The flow {self._name} has no outputs.", next_step="End a stream with append(…) or upsert(…)."
            )
        names = names_of(one.draft for one in self._outputs)
        outputs = tuple(replace(one.output, input=names[one.draft]) for one in self._outputs)
        nodes = for_copies(nodes_of(names), outputs)
        tell_sources(nodes, outputs)
        return Plan(self._name, nodes, outputs, self._guarantee, self._commit, self._settings)

    def build(self) -> Plan:
        """The same as `plan`."""
        return self.plan

    def __repr__(self) -> str:
        reads = ", ".join(str(draft.name) for draft in self._reads) or "no reads"
        outputs = ", ".join(one.output.name for one in self._outputs) or "no outputs"
        return f"<Flow {self._name}: {self._guarantee}, {reads}, {outputs}>"

    def _repr_html_(self) -> str:
        reads = "".join(f"<li>{escape(str(draft.name))} →</li>" for draft in self._reads)
        outputs = "".join(f"<li>→ {escape(one.output.name)}, {escape(one.output.label)}</li>" for one in self._outputs)
        return f"<p>Flow {escape(self._name)}, {self._guarantee}</p><ul>{reads}{outputs}</ul>"

    # ------------------------------------------------------------------------------------------------------- running

    def run(
        self,
        until: Literal["drained"] | None = "drained",
        *,
        close: bool = False,
        state: str | Path | None = None,
        env_file: str | Path | None = None,
    ) -> Summary:
        """Run here until the sources are drained, or, with until=None, until interrupted.

        Args:
            close: close open windows at the end, as if no more input could come.
            state: the folder of the journal; else ONEFOLD_STATE, else .onefold beside the module of the flow.
            env_file: KEY=VALUE lines for ${NAME}.
        """
        from onefold.engines.embedded import runner

        _load(env_file)
        return runner.run(self.plan, self.state_folder(state), until=until, close=close)

    def start(self, state: str | Path | None = None, *, env_file: str | Path | None = None) -> Run:
        """Run in threads of this process: `with flow.start() as run: …`. Leaving the block stops cleanly."""
        from onefold.engines.embedded import runner

        _load(env_file)
        return runner.start(self.plan, self.state_folder(state))

    def status(self, state: str | Path | None = None) -> Status:
        """Epochs, positions, lag, tokens and books, from the state folder."""
        from onefold.engines.embedded import runner

        return runner.status(self.plan, self.state_folder(state))

    def explain(self) -> Explanation:
        """The guarantee that each sink really gets, and why."""
        from onefold.guarantee.declared import explain

        return explain(self.plan)

    def state_folder(self, state: str | Path | None = None) -> Path:
        """Where the journal of this flow lives: a folder of the flow's own name below the state."""
        chosen = state or os.environ.get("ONEFOLD_STATE")
        return (Path(chosen) if chosen else self._folder / ".onefold") / self._name

    # --------------------------------------------------------------------------------------------------------- inner

    def _plan_through(self, draft: Draft) -> tuple[Plan, str]:
        names = names_of([draft])
        plan = Plan(self._name, nodes_of(names), (), self._guarantee, self._commit, self._settings)
        return plan, names[draft]

    def _add_output(
        self,
        stream: Stream,
        endpoint: Any,
        *,
        mode: Mode,
        key: tuple[str, ...] = (),
        latest_by: str | None = None,
        name: str | None = None,
        guarantee: str | Guarantee | None = None,
        shared: bool = False,
        refused: str = "stop",
    ) -> None:
        sink = _sink_of(endpoint, mode, key)
        label = str(describe(endpoint))
        own = check_name(name or str(getattr(endpoint, "default_name", "") or mode), "A sink")
        wanted = self._guarantee if guarantee is None else _guarantee(guarantee)
        output = Output(
            own, "", sink, label, stream.schema.arrow, mode, wanted, key, latest_by, shared, _is_sifted(refused)
        )
        self._check_output(output)
        _refuse_loop(self._plan_through(stream._draft)[0], output)
        outputs = [*self._outputs, _OutputDraft(stream._draft, output)]
        names = names_of(one.draft for one in outputs)
        for_copies(nodes_of(names), [replace(one.output, input=names[one.draft]) for one in outputs])
        self._outputs = outputs

    def _check_output(self, output: Output) -> None:
        promise = output.sink.promise
        for other in self._outputs:
            _check_beside(self._name, other.output, output)
        if output.mode not in promise.modes:
            raise NotSupported(
                f"The sink {output.label} cannot {output.mode}.",
                found=", ".join(sorted(promise.modes)),
                sink=output.name,
            )
        if OP_COLUMN in output.schema.names and not promise.deletes:
            raise NotSupported(
                f"The sink {output.label} cannot delete rows, which a change stream may ask of it.", sink=output.name
            )
        if self._commit == "together":
            _check_together(output)
        if output.is_sifted:
            _check_sifted(output, self._commit)


def _check_beside(flow: str, other: Output, output: Output) -> None:
    """Two sinks of one flow: other names, and other targets unless shared knowingly."""
    if other.name == output.name:
        raise NameTaken(f"Two sinks have the name {output.name!r}.", found=f"{other.label} and {output.label}")
    promise = output.sink.promise
    is_same = promise.commit_class is not CommitClass.NONE and other.sink.promise.target == promise.target
    if is_same and not (output.is_shared and other.is_shared):
        raise TargetTaken(
            f"Two sinks of this flow write to {output.label}.", flow=flow, found=f"{other.name} and {output.name}"
        )


def _refuse_loop(plan: Plan, output: Output) -> None:
    """Rows that are read again would be written again, without end."""
    for node in plan.reads():
        is_loop = isinstance(node.source, SeesTargets) and node.source.sees(output.sink.promise.target)
        if is_loop and not output.is_shared:
            raise TargetTaken(
                f"The flow would read what it writes to {output.label}.",
                flow=plan.flow,
                sink=output.name,
                read=node.name,
                next_step="Write elsewhere, or say shared=True if it is meant to.",
            )


def _check_together(output: Output) -> None:
    if not output.sink.promise.can_prepare_together:
        raise GuaranteeRefused(
            f'The sink {output.label} cannot join commit="together": what it prepares does not hold until decided.',
            sink=output.name,
            next_step='Leave it out, or use commit="separately".',
        )
    if output.guarantee is not Guarantee.EXACTLY_ONCE:
        raise GuaranteeRefused(
            'commit="together" is exactly-once in every sink.', found=output.guarantee, sink=output.name, next_step=""
        )


def _is_sifted(refused: str) -> bool:
    if refused not in ("stop", "dead-letter"):
        raise BuildError("Refused rows can have one of two ends.", found=repr(refused), expected="stop or dead-letter")
    return refused == "dead-letter"


def _check_sifted(output: Output, commit: str) -> None:
    if commit != "together":
        raise NotSupported(
            "Rows that a sink refuses can become dead letters only while nothing of their epoch is decided.",
            found=f'commit="{commit}"',
            expected='commit="together"',
            sink=output.name,
            next_step="Without it a sink that refuses rows stops, and the others go on; where(…) can keep them out.",
        )
    if not isinstance(output.sink, Sifting):
        raise NotSupported(
            f'The sink {output.label} cannot leave out rows that are refused; say refused="stop".', sink=output.name
        )


def _sink_of(endpoint: Any, mode: Mode, key: tuple[str, ...]) -> Sink:
    if hasattr(endpoint, "as_sink"):
        sink: Sink = endpoint.as_sink(mode, key)
        return sink
    if isinstance(endpoint, Sink):
        return endpoint
    raise BuildError("This is nothing to write to.", found=repr(endpoint), expected="an endpoint, such as of.files(…)")


def _guarantee(value: str | Guarantee) -> Guarantee:
    try:
        return Guarantee(value)
    except ValueError:
        raise BuildError(
            "There is no such guarantee.", found=repr(value), expected=", ".join(str(one) for one in Guarantee)
        ) from None


def _load(env_file: str | Path | None) -> None:
    if env_file is not None:
        load_env_file(env_file)


def _folder_of_caller() -> Path:
    """The folder of the module that makes the flow; the working folder in a notebook."""
    frame = sys._getframe(2)
    file = frame.f_globals.get("__file__")
    return Path(file).resolve().parent if file else Path.cwd()
