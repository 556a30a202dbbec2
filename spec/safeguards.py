"""The safeguards of the protocol, one switch each. A model with one switched off is a mutant and must fail."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import NamedTuple

__all__ = ["MUTANTS", "Mutant", "Safeguards", "without"]


@dataclass(frozen=True)
class Safeguards:
    """All on is the protocol. The comment says what the mutant does instead."""

    token_with_rows: bool = True  # rows first, the token in a second transaction
    token_compare_and_set: bool = True  # the sink takes every commit, whatever its token
    seal_ids_compared: bool = True  # tokens are compared by epoch number only
    seal_before_delivery: bool = True  # an epoch is delivered (or its handles committed) before its seal is durable
    redo_what_was_sealed: bool = True  # a restarted process computes the rows of a sealed epoch again
    never_recut_epoch: bool = True  # a restarted process forgets sealed, unsettled epochs and cuts them anew
    unknown_is_not_done: bool = True  # no answer is taken for an acknowledgement
    unknown_is_not_failed: bool = True  # no answer is taken for "nothing happened": repeated without reading back
    refused_token_is_fatal: bool = True  # after a refusal: take the token found for the expected one and go on
    failed_seal_is_fatal: bool = True  # after a failed append: go on with the next rows
    append_if_absent: bool = True  # records are added whatever others have added meanwhile
    start_before_read: bool = True  # the journal is read before the start record is appended
    start_number_fixed: bool = True  # when read before: the start record takes the next free number, whatever was read
    newest_start_wins: bool = True  # go on although a later start record was found while reading
    settle_after_all_tokens: bool = True  # settled as soon as sealed
    payload_until_settled: bool = True  # payloads are freed before they are settled
    missing_is_not_empty: bool = True  # an epoch whose payload is gone is taken for an empty one
    token_only_commits: bool = True  # empty tails leave the token where it is
    headers_to_oldest_token: bool = True  # headers are forgotten as soon as they are settled
    join_recorded: bool = True  # a sink without token starts at epoch 1
    leaves_when_drained: bool = True  # a sink leaves the flow, or gets another target, while epochs wait for it
    outcome_recorded: bool = True  # at-least-once: progress is kept in memory only
    attempt_before_try: bool = True  # at-most-once: the attempt is not recorded
    one_try: bool = True  # at-most-once: an unknown outcome is tried again
    attempt_abandoned: bool = True  # at-most-once: a restarted process tries a recorded attempt again
    range_never_recut: bool = True  # at-most-once: a restarted process gives up the first epoch of the range only
    losses_counted: bool = True  # at-most-once: what was given up is not counted
    seal_after_all_prepared: bool = True  # together: sealed while a sink has not prepared
    tokens_before_abort: bool = True  # together: handles of a sink are aborted before the other sinks are opened
    abort_own_journal: bool = True  # together: handles of any journal are aborted
    abort_dead_only: bool = True  # together: handles of living incarnations are aborted
    abort_unsealed_only: bool = True  # together: handles of dead incarnations are aborted although sealed
    location_before_abort: bool = True  # together: a copied journal aborts handles
    moves_remembered: bool = True  # together: only the last start record's location is compared, not all of them
    leaves_when_decided: bool = True  # together: a sink leaves while something may be prepared in it
    late_prepare_expected: bool = True  # together: without an answer, what is not listed is taken for never prepared
    token_in_handle: bool = True  # together: the handle holds the rows only; the token follows


class Mutant(NamedTuple):
    """Where the loss of a safeguard shows.

    covered_by: safeguards that still hold when this one is gone; only the loss of all of them gives a counter-example.
    why: how they cover it. is_deep: it takes the scenario's larger bounds.
    """

    scenario: str
    covered_by: tuple[str, ...] = ()
    why: str = ""
    is_deep: bool = False


MUTANTS: dict[str, Mutant] = {
    "token_with_rows": Mutant("crash"),
    "token_compare_and_set": Mutant("crash"),
    "seal_ids_compared": Mutant("copy-journal"),
    "seal_before_delivery": Mutant("crash"),
    "redo_what_was_sealed": Mutant("crash"),
    "never_recut_epoch": Mutant("crash"),
    "unknown_is_not_done": Mutant("crash"),
    "unknown_is_not_failed": Mutant(
        "crash", ("token_compare_and_set",),
        "If the commit landed after all, its repetition is refused by the expected token: the instance stops, "
        "needlessly, and the next one reads the token. Nothing is lost or repeated.",
    ),
    "refused_token_is_fatal": Mutant("zombie"),
    "failed_seal_is_fatal": Mutant("failed-seal"),
    "append_if_absent": Mutant("zombie"),
    "start_before_read": Mutant(
        "zombie", ("start_number_fixed",),
        "A start record that takes exactly the number after the last one read proves that nothing came in between.",
    ),
    "start_number_fixed": Mutant(
        "zombie", ("start_before_read",), "What is read after the start record is all that older processes ever add.",
    ),
    "newest_start_wins": Mutant("together"),
    "settle_after_all_tokens": Mutant("crash"),
    "payload_until_settled": Mutant("crash"),
    "missing_is_not_empty": Mutant("restore-sink"),
    "token_only_commits": Mutant("copy-journal-empty"),
    "headers_to_oldest_token": Mutant("empty"),
    "join_recorded": Mutant("sink-added"),
    "leaves_when_drained": Mutant("sink-moved"),
    "outcome_recorded": Mutant("least"),
    "attempt_before_try": Mutant("most"),
    "one_try": Mutant("most"),
    "attempt_abandoned": Mutant("most"),
    "range_never_recut": Mutant("most"),
    "losses_counted": Mutant("most"),
    "seal_after_all_prepared": Mutant("together"),
    "tokens_before_abort": Mutant("together-restore"),
    "abort_own_journal": Mutant("together-fresh"),
    "abort_dead_only": Mutant("together"),
    "abort_unsealed_only": Mutant("together"),
    "location_before_abort": Mutant("together-copy"),
    "moves_remembered": Mutant("together-copy", is_deep=True),
    "leaves_when_decided": Mutant("together-moved"),
    "late_prepare_expected": Mutant("together-moved"),
    "token_in_handle": Mutant("together"),
}  # fmt: skip
"""One for every safeguard; a test searches each."""


def without(*names: str) -> Safeguards:
    """The protocol without these safeguards. Raises KeyError for a name that does not exist."""
    known = {field.name for field in fields(Safeguards)}
    for name in names:
        if name not in known:
            raise KeyError(f"no safeguard {name!r}; there are: {', '.join(sorted(known))}")
    return replace(Safeguards(), **dict.fromkeys(names, False))
