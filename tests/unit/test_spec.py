"""The model: the whole protocol holds within the bounds; without a safeguard it does not."""

from __future__ import annotations

from dataclasses import fields
from functools import cache

import pytest

from spec.__main__ import main
from spec.model import Budget, Setting
from spec.narrate import KINDS, narrate
from spec.safeguards import MUTANTS, Safeguards, without
from spec.scenarios import SCENARIOS, scenario
from spec.search import Searched, search


@cache
def whole(name: str) -> Searched:
    return search(Setting(scenario(name), Safeguards()))


COVERED = {name: mutant for name, mutant in MUTANTS.items() if mutant.covered_by}


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_protocol_holds_in_every_state_of_the_scenario(name: str) -> None:
    found = whole(name)
    assert found.finding is None, "\n".join([found.finding.wrong, *narrate(found.finding.schedule)])
    assert found.states > 1000


def test_every_scenario_has_larger_bounds() -> None:
    for name in SCENARIOS:
        assert scenario(name, is_deep=True) != scenario(name)


def test_every_safeguard_has_a_mutant() -> None:
    assert set(MUTANTS) == {field.name for field in fields(Safeguards)}


@pytest.mark.parametrize("name", [name for name in MUTANTS if name not in COVERED])
def test_without_the_safeguard_there_is_a_counter_example(name: str) -> None:
    mutant = MUTANTS[name]
    found = search(Setting(scenario(mutant.scenario, is_deep=mutant.is_deep), without(name)))
    assert found.finding is not None
    assert narrate([*found.finding.schedule, *found.finding.recovery])


@pytest.mark.parametrize("name", COVERED)
def test_a_covered_safeguard_alone_may_go_but_not_with_its_cover(name: str) -> None:
    mutant = COVERED[name]
    assert mutant.why
    assert search(Setting(scenario(mutant.scenario), without(name))).finding is None
    assert search(Setting(scenario(mutant.scenario), without(name, *mutant.covered_by))).finding is not None


def test_a_shortest_counter_example_is_found() -> None:
    found = search(Setting(scenario("crash"), without("seal_before_delivery")))
    assert found.finding is not None
    assert [label[0] for label in found.finding.schedule] == ["start", "read", "open", "commit"]


def test_together_is_not_atomic_when_the_journal_is_restored_under_a_living_process() -> None:
    """The stated condition: who restores a journal first ends the process that used it."""
    living = scenario("together-restore")._replace(zombies=True)
    found = search(Setting(living, Safeguards()))
    assert found.finding is not None
    assert "can never be shown" in found.finding.wrong


def test_together_on_staged_files_is_not_atomic_when_the_journal_is_copied() -> None:
    """The stated condition of members whose prepare holds no lock."""
    lake = scenario("together-copy")._replace(locks=False)
    found = search(Setting(lake, Safeguards()))
    assert found.finding is not None
    assert "two decisions" in found.finding.wrong


def test_prepared_handles_need_not_be_listed_again() -> None:
    """A prepare may land after its process ended and after the next one listed: still no state is wrong."""
    late = scenario("together")._replace(budget=Budget(starts=1, delays=1, failed_prepares=1))
    assert search(Setting(late, Safeguards())).finding is None


def test_the_searches_meet_every_kind_of_step() -> None:
    """Scenarios that can do nothing prove nothing. Only a mutant moves a token by itself."""
    met = frozenset[str]().union(*(whole(name).kinds for name in SCENARIOS))
    assert KINDS - met == {"token"}


def test_the_command_line_prints_a_counter_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--scenario", "crash", "--without", "token_compare_and_set"]) == 1
    printed = capsys.readouterr().out
    assert "FAILS: sink 0 shows other rows than those sealed up to its token" in printed
    assert "process 0 appends its start record" in printed


def test_the_command_line_names_what_exists_when_a_name_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--scenario", "nothing"]) == 2
    assert "crash" in capsys.readouterr().err
    assert main(["--without", "nothing"]) == 2
    assert "token_with_rows" in capsys.readouterr().err
