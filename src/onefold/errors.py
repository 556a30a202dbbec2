"""Everything onefold can refuse, fail at, or find broken: one class each, one stable code each.

    OnefoldError
    ├── BuildError            the flow itself is wrong; found before anything runs
    │   ├── ExpressionError   an SQL expression does not bind
    │   ├── SchemaError       a schema or a value's type is wrong
    │   ├── NameTaken         two parts of a flow have one name
    │   ├── NotSupported      a part cannot do what the flow asks of it
    │   ├── GuaranteeRefused  a sink cannot keep the guarantee that is asked of it
    │   ├── SettingMissing    a ${NAME} has no value
    │   ├── FlowNotFound      no flow, or several, where one was named
    │   ├── ModuleFailed      the module of the flow raised while it was imported
    │   └── ExtraMissing      an optional package is not installed
    ├── StateError            the journal, the spool or the state folder
    │   ├── JournalLocked     another process runs this flow
    │   ├── Fenced            another process has taken over this journal
    │   ├── FileCorrupt       bytes are not what was written
    │   ├── PlanChanged       the flow is not the one the state belongs to
    │   ├── StateUnknown      the state folder holds nothing of this flow, or not what was asked for
    │   ├── SinkForked        a sink's token is not on this journal's chain
    │   ├── SinkRestored      a sink went back in time and the rows to repeat are gone
    │   ├── SinkChanged       a sink was removed, retargeted or changed while epochs wait for it
    │   └── TargetTaken       another flow or sink writes to a sink's target
    ├── DiskError             the local disk
    │   ├── DiskFull          no room left
    │   ├── DiskFailed        a durable operation failed
    │   └── SpoolFull         undelivered epochs have reached the spool's quota
    ├── SourceError
    │   ├── InputLost         positions that we still need are gone
    │   ├── SourceRefused     it does not exist, or we are not allowed
    │   └── SourceUnavailable the source cannot be reached; nothing happened
    ├── SinkError
    │   ├── SinkRefused       it does not exist, or we are not allowed
    │   ├── SinkUnavailable   the sink said no or was not reached; nothing happened
    │   ├── OutcomeUnknown    the sink may or may not have taken the rows
    │   ├── TokenRefused      the sink's token is not the expected one
    │   └── RowsRefused       the sink refuses these rows for good
    ├── TooManyDead           more dead letters than `max_dead` allows
    ├── CommandInvalid        a command line is wrong
    ├── UserCodeError         a function of the user raised or returned the wrong thing
    ├── InvariantBroken       a check of our own failed: a bug in onefold
    └── Unexpected            an exception of another kind came up: a bug in onefold or in the user's code

Each says what is wrong, where, what was found and expected, whether running again is safe, and what to do next.
"""

from __future__ import annotations

from typing import Any, ClassVar

__all__ = [
    "BuildError", "CommandInvalid", "DiskError", "DiskFailed", "DiskFull", "ExpressionError", "ExtraMissing", "Fenced",
    "FileCorrupt", "FlowNotFound", "GuaranteeRefused", "InputLost", "InvariantBroken", "JournalLocked", "ModuleFailed",
    "NameTaken", "NotSupported", "OnefoldError", "OutcomeUnknown", "PlanChanged", "RowsRefused", "SchemaError",
    "SettingMissing", "SinkChanged", "SinkError", "SinkForked", "SinkRefused", "SinkRestored", "SinkUnavailable",
    "SourceError", "SourceRefused", "SourceUnavailable", "SpoolFull", "StateError", "StateUnknown", "TargetTaken",
    "TokenRefused", "TooManyDead", "Unexpected", "UserCodeError", "check",
]  # fmt: skip


class OnefoldError(Exception):
    """The root of all errors that onefold raises on purpose.

    Args:
        summary: what is wrong, one sentence.
        found, expected: the two sides, where there are two.
        next_step: the command to run or the change to make; each class has a default.
        where: keyword arguments flow, sink, source, partition, epoch, position, file, line, step, …
    """

    code: ClassVar[str] = "error"
    next_default: ClassVar[str] = ""
    retry_is_safe: ClassVar[bool] = True

    def __init__(
        self,
        summary: str = "",
        *,
        found: object = None,
        expected: object = None,
        next_step: str | None = None,
        **where: object,
    ) -> None:
        self.summary = summary or (type(self).__doc__ or type(self).__name__).strip().splitlines()[0]
        self.found = found
        self.expected = expected
        self.next_step = next_step if next_step is not None else self.next_default
        self.where = {name: value for name, value in where.items() if value is not None}
        super().__init__(self.summary)

    def __str__(self) -> str:
        lines = [self.summary]
        if self.where:
            lines.append("  where: " + ", ".join(f"{name} {value}" for name, value in self.where.items()))
        if self.found is not None:
            lines.append(f"  found: {self.found}")
        if self.expected is not None:
            lines.append(f"  expected: {self.expected}")
        if self.next_step:
            lines.append(f"  next: {self.next_step}")
        lines.append(f"  code: {self.code}" + ("" if self.retry_is_safe else "; running again will not help by itself"))
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        """The same as a JSON object: code, summary, where, found, expected, next_step, retry_is_safe."""
        return {
            "code": self.code,
            "summary": self.summary,
            "where": {name: str(value) for name, value in self.where.items()},
            "found": None if self.found is None else str(self.found),
            "expected": None if self.expected is None else str(self.expected),
            "next_step": self.next_step,
            "retry_is_safe": self.retry_is_safe,
        }


class BuildError(OnefoldError):
    """The flow is wrong as written."""

    code = "flow-invalid"
    retry_is_safe = False


class ExpressionError(BuildError):
    """An SQL expression does not bind to the columns it is given."""

    code = "expression-invalid"
    next_default = "Correct the expression; `stream.schema` shows the columns it can use."


class SchemaError(BuildError):
    """A schema, or the type of a value in the flow's definition, is wrong."""

    code = "schema-invalid"


class NameTaken(BuildError):
    """Two parts of the flow have the same name."""

    code = "name-taken"
    next_default = "Give one of them another name with name=…; names identify state and tokens and must be unique."


class NotSupported(BuildError):
    """A part of the flow cannot do what is asked of it."""

    code = "not-supported"


class GuaranteeRefused(BuildError):
    """A sink cannot keep the guarantee that the flow asks of it."""

    code = "guarantee-refused"
    next_default = (
        "Lower it for this sink with guarantee=…, or choose another sink; `onefold explain` shows the reasons."
    )


class SettingMissing(BuildError):
    """A ${NAME} in the flow has no value."""

    code = "setting-missing"
    next_default = "Set it in the environment, or name a file with --env-file."


class FlowNotFound(BuildError):
    """No flow, or more than one, was found where one was named."""

    code = "flow-not-found"


class ModuleFailed(BuildError):
    """The module of a flow, or the function that makes it, raised something of its own."""

    code = "module-failed"
    next_default = "Correct the module; `python` on it shows the same."


class ExtraMissing(BuildError):
    """An optional package that this part needs is not installed."""

    code = "extra-missing"


class StateError(OnefoldError):
    """Something about the journal, the spool or the state folder is wrong."""

    code = "state-invalid"
    retry_is_safe = False


class JournalLocked(StateError):
    """Another process is running this flow on this state folder."""

    code = "journal-locked"
    retry_is_safe = True
    next_default = "Stop that process first, or wait for it; two processes never share a journal."


class Fenced(StateError):
    """Another process has taken over this journal; this one must stop."""

    code = "journal-fenced"
    next_default = "Nothing is lost: the newer process continues. Make sure that only one is meant to run."


class FileCorrupt(StateError):
    """A file does not hold the bytes that were written to it."""

    code = "file-corrupt"
    next_default = "Restore the state folder from a backup, or run `onefold recover`; nothing was written to any sink."


class PlanChanged(StateError):
    """The flow's operators or schemas are not those that its state was made by."""

    code = "plan-changed"
    next_default = "Run the former version, give the flow a new name, or `onefold reset` it."


class StateUnknown(StateError):
    """The state folder does not hold what was asked for."""

    code = "state-unknown"


class SinkForked(StateError):
    """A sink holds a token that is not on this journal's chain of seals: another history wrote to it."""

    code = "sink-forked"
    next_default = (
        "Another copy of this flow is or was running, or the journal was restored from a backup. Find the newest "
        "journal and run on that one; `onefold recover --from-sinks` rebuilds a stateless flow. After a reset: empty "
        "the target with its token, or name a new one."
    )


class SinkRestored(StateError):
    """A sink is behind what was settled, and the rows to deliver again are no longer kept."""

    code = "sink-restored"
    next_default = "Restore a newer backup of the sink, or keep payloads for longer with keep_settled=…"


class SinkChanged(StateError):
    """A sink was removed, retargeted or changed while sealed epochs wait for it."""

    code = "sink-changed"
    next_default = "Run the former version of the flow with --once until it is drained, then change it."


class TargetTaken(StateError):
    """Another flow or sink writes to this target."""

    code = "target-taken"
    next_default = "Choose another target, or say shared=True for every sink that writes there."


class DiskError(OnefoldError):
    """The local disk could not do what durability needs."""

    code = "disk-error"


class DiskFull(DiskError):
    """No room is left on the disk."""

    code = "disk-full"
    next_default = "Free some room and run again; nothing is lost."


class DiskFailed(DiskError):
    """A durable operation on the local disk failed; it is not retried, because its effect is unknown."""

    code = "disk-failed"
    next_default = "Check the disk (dmesg, smartctl), then run again: onefold recovers from its journal."


class SpoolFull(DiskError):
    """Undelivered epochs have reached the quota of the spool, so nothing more is sealed."""

    code = "spool-full"
    next_default = "Repair the sink that is behind (see `onefold status`), or raise spool_quota."


class SourceError(OnefoldError):
    """A source could not give what was asked."""

    code = "source-error"


class InputLost(SourceError):
    """Input that has not been processed yet is gone from the source.

    skip: a onefold.types.Skip, where reading goes on for one who accepts the loss; None: nobody can tell.
    next_step: how to bring it back, without a full stop; what else can be done is added.
    """

    code = "input-lost"
    retry_is_safe = False
    next_default = "Bring it back"

    def __init__(self, summary: str, *, skip: Any = None, **about: Any) -> None:
        super().__init__(summary, **about)
        self.skip = skip
        accepting = "accept the loss: `onefold recover --skip-lost`" if skip else "start over: `onefold reset`"
        self.next_step = f"{self.next_step}; or {accepting}."


class SourceRefused(SourceError):
    """The source will not have us: what is to be read does not exist, or is not allowed."""

    code = "source-refused"
    retry_is_safe = False
    next_default = "Check its address, user name, password and permissions, then run again: nothing is lost."


class SourceUnavailable(SourceError):
    """The source could not be reached or read; nothing happened."""

    code = "source-unavailable"
    next_default = "Check that it exists and can be read, then run again."


class SinkError(OnefoldError):
    """A sink did not acknowledge."""

    code = "sink-error"


class SinkUnavailable(SinkError):
    """The sink could not be reached or said no; for certain nothing was written."""

    code = "sink-unavailable"
    next_default = "onefold tries again by itself; check the sink if this goes on."


class SinkRefused(SinkError):
    """The sink will not have us: what it is asked for does not exist, or is not allowed."""

    code = "sink-refused"
    retry_is_safe = False
    next_default = "Check its address, user name, password and permissions, then run again: nothing is lost."


class OutcomeUnknown(SinkError):
    """The sink may or may not have taken the rows."""

    code = "outcome-unknown"
    next_default = "onefold reads the sink's token back and decides by it."


class TokenRefused(SinkError):
    """The sink's token is not the expected one: another instance has moved it."""

    code = "token-refused"
    retry_is_safe = False
    next_default = "Another copy of this flow is or was running; run `onefold status`, stop it, then run again."


class RowsRefused(SinkError):
    """The sink refuses some rows for good."""

    code = "rows-refused"
    retry_is_safe = False
    next_default = (
        "Keep such rows out with where(…), or let the target take them; databases can make dead letters of them: "
        'commit="together", refused="dead-letter".'
    )


class TooManyDead(OnefoldError):
    """More rows became dead letters than max_dead allows."""

    code = "too-many-dead"
    retry_is_safe = False
    next_default = (
        "Correct the schema or the input, or raise max_dead. Nothing of this epoch was written: `onefold dead-letters "
        "list` shows those of epochs before."
    )


class CommandInvalid(OnefoldError):
    """The command line is wrong: how it is told to programs, with --json."""

    code = "command-invalid"
    retry_is_safe = False


class UserCodeError(OnefoldError):
    """A function of the flow raised, or returned rows that do not have its declared schema."""

    code = "user-code"
    retry_is_safe = False


class InvariantBroken(OnefoldError):
    """A rule that must always hold does not: this is a bug in onefold."""

    code = "invariant-broken"
    retry_is_safe = False
    next_default = "Keep the state folder and report it; nothing more was written."


class Unexpected(OnefoldError):
    """Something raised an exception of its own: this is a bug in onefold, or in a function of yours that it calls."""

    code = "unexpected"
    next_default = (
        "Run it again with --verbose, which shows where; if that is not in your own code, report it. "
        "Running again loses and doubles nothing."
    )


def check(holds: bool, rule: str, **where: Any) -> None:
    """Raise InvariantBroken unless the rule holds. Unlike `assert`, `python -O` cannot strip it."""
    if not holds:
        raise InvariantBroken(f"{rule} does not hold.", **where)
