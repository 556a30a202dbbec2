"""Bugs of the protocol, each a small patch over the real modules, and the suites that should see it."""

from __future__ import annotations

from dataclasses import dataclass

SUITES: dict[str, tuple[str, ...]] = {
    "simulation": ("tests/unit/test_simulation.py", "-k", "schedules", "--schedules", "4000"),
    "core": ("tests/unit/test_simulation_findings.py", "tests/unit/test_core_rules.py"),
    "survival": ("tests/unit/test_survival.py",),
    "together": ("tests/unit/test_engine_together.py",),
    "books": ("tests/unit/test_engine_books.py",),
    "keeping": ("tests/unit/test_engine_keeping.py",),
    "durability": ("tests/unit/test_durability.py",),
    "contract": ("tests/contract/test_sinks.py", "-k", "(token or move) and not kill"),
    "contract of sqlite": ("tests/contract/test_sinks.py", "-k", "sqlite"),
    "contract of duckdb": ("tests/contract/test_sinks.py", "-k", "duckdb"),
    "contract of files": ("tests/contract/test_sinks.py", "-k", "files"),
    "connectors": ("tests/unit/test_connectors_files_sink.py", "tests/unit/test_connectors_tables.py"),
    "kafka producer": ("tests/unit/test_connectors_kafka_producing.py",),
    "state": (
        "tests/unit/test_state_keyset.py",
        "tests/unit/test_state_snapshots.py",
        "tests/unit/test_state_table.py",
    ),
    "crash": ("tests/crash/test_kills.py", "-k", "revenue", "--schedules", "12"),
    "crash of running totals": ("tests/crash/test_kills.py", "-k", "running", "--schedules", "24"),
}
"""Arguments for pytest. In this order a mutant meets those that are not named for it, in the whole run."""


@dataclass(frozen=True)
class Mutant:
    """edits: (old, new) texts in a file below src/onefold; every old text stands there exactly once."""

    name: str
    file: str
    edits: tuple[tuple[str, str], ...]
    suites: tuple[str, ...]


def bug(name: str, file: str, old: str, new: str, *suites: str) -> Mutant:
    return Mutant(name, file, ((old, new),), suites)


CORE = (
    Mutant(
        "an epoch is delivered before its seal is durable",
        "epoch.py",
        (
            (
                "        return [AppendSeal(draft.epoch, draft.seal, self.chain.head_id)]",
                "        return [AppendSeal(draft.epoch, draft.seal, self.chain.head_id), *self._sealed()]",
            ),
            ("                return self._sealed()", "                return []"),
        ),
        ("simulation",),
    ),
    bug(
        "a failed append is not fatal",
        "epoch.py",
        "return [Halt(error)]  # INV-6",
        "return self._sealed() if self._draft else []  # INV-6",
        "simulation",
    ),
    bug(
        "settled when the fastest sink has it",
        "epoch.py",
        "return min((course.done_through() for",
        "return max((course.done_through() for",
        "simulation",
    ),
    bug(
        "handles are aborted before all sinks were opened",
        "epoch.py",
        "if any(name not in self._orphans for name in self.courses):",
        "if not self._orphans:",
        "simulation",
    ),
    bug(
        "handles that a seal waits for are aborted",
        "epoch.py",
        "return not any(handle.epoch > self.courses[name].cursor for name in waiting)",
        "return True",
        "simulation",
    ),
    bug(
        "handles that hold rows of another sink are aborted",
        "epoch.py",
        "self.courses.keys() & {sink, *header.staged}",
        "{sink}",
        "simulation",
        "core",
    ),
    bug(
        "handles of living incarnations are aborted",
        "epoch.py",
        " or handle.incarnation >= self._incarnation:",
        ":",
        "simulation",
        "core",
    ),
    bug("handles of other journals are aborted", "epoch.py", "handle.journal != self.chain.journal or ", "", "core"),
    bug(
        "a copied journal aborts handles",
        "epoch.py",
        "        if not self._may_abort:",
        "        if False:",
        "simulation",
        "core",
    ),
    bug(
        "sealed while a sink has not prepared",
        "epoch.py",
        "return [] if draft.waiting else self._seal()",
        "return self._seal()",
        "simulation",
    ),
    bug(
        "tokens move while rows are prepared for them",
        "epoch.py",
        "if self._draft is not None and self._is_together:",
        "if False:",
        "simulation",
    ),
    bug(
        "offered while prepared rows are undecided",
        "epoch.py",
        "course.is_waiting and not self.chain.has_rows(name, course.cursor, self.chain.head)",
        "True",
        "simulation",
    ),
    bug("drained while deliveries are under way", "epoch.py", "        if busy:", "        if False:", "simulation"),
    bug(
        "sealed rows that are gone are tried for ever",
        "epoch.py",
        "if sink in header.staged and header.seal not in prepared:",
        "if False:",
        "core",
        "simulation",
    ),
    bug(
        "seals do not name their predecessor",
        "epoch.py",
        "return [AppendSeal(draft.epoch, draft.seal, self.chain.head_id)]",
        "return [AppendSeal(draft.epoch, draft.seal, self.chain.journal)]",
        "simulation",
    ),
)

COURSE = (
    bug(
        "the cursor is advanced before the acknowledgement",
        "course.py",
        '        self.phase = "committing"\n',
        '        self.phase = "committing"\n        self.cursor = last\n',
        "simulation",
    ),
    bug(
        "the token found is not the cursor",
        "course.py",
        "        self._move(at)\n        self.token = token",
        "        self.token = token",
        "simulation",
    ),
    bug(
        "no answer is taken for an acknowledgement",
        "course.py",
        "            return self._give_up(*self._in_flight())\n        return self._pause(error)",
        "            return self._give_up(*self._in_flight())\n        return self.committed()",
        "simulation",
    ),
    bug(
        "no answer is repeated without reading back",
        "course.py",
        "        return self.open()\n\n    def due",
        '        self.phase = "ready"\n        return []\n\n    def due',
        "simulation",
    ),
    bug(
        "a refused token is taken for the expected one",
        "course.py",
        "        return [Halt(TokenRefused(",
        '        self.token, self.phase = found, "ready"\n        return [] and [Halt(TokenRefused(',
        "simulation",
    ),
    bug(
        "at most once is tried twice",
        "course.py",
        "        if self.rule.guarantee is Guarantee.AT_MOST_ONCE:\n            self.failures += 1",
        "        if False:\n            self.failures += 1",
        "simulation",
    ),
    bug(
        "an attempt is tried again after a restart",
        "course.py",
        "self._abandoned = rule.attempt",
        "self._abandoned = None",
        "simulation",
    ),
    bug(
        "the attempt is not recorded",
        "course.py",
        "            return [AppendAttempt(self.rule.name, first, last)]",
        "            return self._commit()",
        "simulation",
    ),
    bug(
        "given up rows are not counted",
        "course.py",
        "return [AppendOutcome(self.rule.name, last, rows)]",
        "return [AppendOutcome(self.rule.name, last)]",
        "simulation",
    ),
    bug(
        "an abandoned attempt is cut anew",
        "course.py",
        "self._give_up(self._abandoned.first, self._abandoned.last)",
        "self._give_up(self._abandoned.first, self._abandoned.first)",
        "simulation",
    ),
    bug(
        "rows of a restored sink are not demanded",
        "course.py",
        "                raise SinkRestored(",
        "                raise SinkRestored() if False else StopIteration(",
        "simulation",
    ),
    bug(
        "tokens stay behind empty tails",
        "course.py",
        "if not (also_token and self.is_exact and self.cursor < self._chain.head):",
        "if True:",
        "simulation",
    ),
    bug(
        "a sink that comes back gets what it had",
        "course.py",
        "            at = joined\n",
        "            at = min(joined, EpochNumber(0))\n",
        "simulation",
    ),
    bug(
        "a delivery skips its first epoch",
        "course.py",
        "        first = EpochNumber(self.cursor + 1)\n",
        "        first = EpochNumber(min(self.cursor + 2, last))\n",
        "simulation",
    ),
    bug(
        "deliveries of prepared rows are joined",
        "course.py",
        "if has_rows and not self._joins_epochs:",
        "if False:",
        "simulation",
    ),
    bug(
        "empty epochs hide rows that wait",
        "course.py",
        "        return last if has_rows else None",
        "        return self._chain.head if has_rows else None",
        "simulation",
    ),
)

CHAIN = (
    bug(
        "seal ids are not compared",
        "chain.py",
        "if header is not None and header.seal == token.seal:",
        "if header is not None:",
        "simulation",
    ),
    bug(
        "payloads are taken for gone too early",
        "chain.py",
        "if number <= through and header.has_payload:",
        "if number <= through + 1 and header.has_payload:",
        "simulation",
    ),
    bug(
        "headers are forgotten too early",
        "chain.py",
        "for number in self._headers if number < epoch and",
        "for number in self._headers if number <= epoch and",
        "simulation",
    ),
    bug(
        "a chain is read from one epoch too late",
        "chain.py",
        "for number in range(after + 1, through + 1):",
        "for number in range(after + 2, through + 1):",
        "simulation",
    ),
)

IDENTITY = (
    bug(
        "a sink leaves before it is drained",
        "engines/embedded/identity.py",
        "if history.settled < history.head:",
        "if False:",
        "simulation",
    ),
    bug(
        "a sink leaves while something may be prepared in it",
        "engines/embedded/identity.py",
        "if history.undecided is not None:",
        "if False:",
        "together",
    ),
    bug(
        "a prepare without an answer is taken for decided",
        "engines/embedded/conductor.py",
        "(self._draft.has_failed and not self._draft.is_in_doubt)",
        "self._draft.has_failed",
        "together",
    ),
    bug(
        "an outcome is read as an attempt",
        "engines/embedded/opening.py",
        "                history.attempts.pop(sink, None)\n",
        "",
        "simulation",
    ),
    bug(
        "attempts are not read",
        "engines/embedded/opening.py",
        "history.attempts[sink] = Attempt(",
        "_ = Attempt(",
        "simulation",
    ),
)
