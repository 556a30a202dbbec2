"""Commits to a Hudi table on an object store: the protocol holds within the bounds; without a safeguard it does not."""

from __future__ import annotations

from dataclasses import fields

import pytest

from spec.hudi_store import STORE_SCENARIOS, main, narrate_store, search_store, wrong_with
from spec.hudi_store_safeguards import STORE_MUTANTS, StoreSafeguards, store_without
from spec.hudi_store_world import Decided, Table

COVERED = {name: mutant for name, mutant in STORE_MUTANTS.items() if mutant.covered_by}


@pytest.mark.parametrize("name", STORE_SCENARIOS)
def test_the_protocol_holds_in_every_state_of_the_scenario(name: str) -> None:
    found = search_store(STORE_SCENARIOS[name])
    assert found.finding is None, "\n".join([found.finding.wrong, *narrate_store(found.finding.schedule)])
    assert found.states > 3000


def test_every_safeguard_has_a_mutant() -> None:
    assert set(STORE_MUTANTS) == {field.name for field in fields(StoreSafeguards)}


@pytest.mark.parametrize("name", [name for name in STORE_MUTANTS if name not in COVERED])
def test_without_the_safeguard_there_is_a_counter_example(name: str) -> None:
    found = search_store(STORE_SCENARIOS[STORE_MUTANTS[name].scenario], store_without(name))
    assert found.finding is not None
    assert narrate_store(found.finding.schedule)


@pytest.mark.parametrize("name", COVERED)
def test_a_covered_safeguard_alone_may_go_but_not_with_its_cover(name: str) -> None:
    mutant = COVERED[name]
    assert mutant.why
    assert all(search_store(scenario, store_without(name)).finding is None for scenario in STORE_SCENARIOS.values())
    assert search_store(STORE_SCENARIOS[mutant.scenario], store_without(name, *mutant.covered_by)).finding is not None


def test_looking_at_the_object_again_does_not_replace_listing_before_the_fence() -> None:
    """An instant that begins between fence and list is decided between the second look and the rolling back."""
    found = search_store(STORE_SCENARIOS["zombie"], store_without("list_before_fence"))
    assert found.finding is not None
    assert "a completed instant is rolled back" in found.finding.wrong
    kinds = [label[0] for label in found.finding.schedule]
    assert kinds[-5:] == ["list", "read object", "decide", "complete", "roll back"]


def test_a_restore_under_a_living_writer_breaks_the_table() -> None:
    """The stated condition: who restores a table first ends its writers."""
    found = search_store(STORE_SCENARIOS["restored"]._replace(is_alone=False))
    assert found.finding is not None


def test_a_lost_token_of_the_other_flow_is_seen() -> None:
    first = Decided((0, 0), 0, 1, 0, (1, 0))
    second = Decided((1, 0), 1, 1, 1, (0, 1))
    assert wrong_with(Table(commits=(first, second._replace(tokens=(1, 1))))) == ""
    assert "flow 0 shows the epochs [1], its token says 0" in wrong_with(Table(commits=(first, second)))


def test_the_command_line_prints_a_counter_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["zombie", "--without", "fence_at_open"]) == 1
    printed = capsys.readouterr().out
    assert "FAILS: a completed instant is rolled back" in printed
    assert "process 0: decide" in printed
