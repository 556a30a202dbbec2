"""A lost, moved or unwanted state folder: what can be put right, and what is refused with what to do."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import onefold as of
from onefold.clock import SystemClock
from onefold.connectors.memory import MemoryEndpoint
from onefold.engines.embedded.recovery import adopt, archive_state, rebuild, reset_meanings, what_is_held
from onefold.errors import JournalLocked, SinkForked, StateUnknown
from onefold.journal import JOURNAL_FILE, locked_folder
from onefold.types import EpochNumber

SCHEMA = {"event_id": "VARCHAR", "amount": "DECIMAL(18,2)"}
_numbers = itertools.count()


class Shop:
    """A stateless flow over memory, its state, and two sinks that can be looked at."""

    def __init__(self, folder: Path) -> None:
        number = next(_numbers)
        self.input = of.memory(f"recovery-in-{number}")
        self.left, self.right = of.memory(f"recovery-left-{number}"), of.memory(f"recovery-right-{number}")
        self.base = folder / "state"
        self.fed = 0

    @property
    def state(self) -> Path:
        return self.base / "shop"

    def feed(self, count: int) -> None:
        events = [json.dumps({"event_id": f"e{self.fed + n}", "amount": "1.50"}) for n in range(count)]
        self.input.feed_bytes([*events, "{malformed"])
        self.fed += count

    def flow(self, read: str = "events") -> of.Flow:
        flow = of.Flow("shop")
        events = flow.read(self.input, schema=SCHEMA, format="json", name=read)
        events.append(self.left, name="left")
        events.where("amount > 1").append(self.right, name="right")
        return flow

    def run(self) -> None:
        assert self.flow().run(state=self.base).is_complete

    def ids(self, table: MemoryEndpoint) -> list[str]:
        return sorted(row["event_id"] for row in table.rows())

    def has_each_once(self) -> bool:
        expected = sorted(f"e{number}" for number in range(self.fed))
        return self.ids(self.left) == expected and self.ids(self.right) == expected


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    shop = Shop(tmp_path)
    shop.feed(50)
    shop.run()
    return shop


def lose(shop: Shop) -> None:
    shutil.rmtree(shop.state)


def corrupt(shop: Shop) -> None:
    journal = shop.state / JOURNAL_FILE
    for extra in ("-wal", "-shm"):
        journal.with_name(journal.name + extra).unlink(missing_ok=True)
    journal.write_bytes(b"not a journal" * 100)


def begin_anew(shop: Shop) -> None:
    """An attempt to run after the loss leaves a journal without a seal."""
    lose(shop)
    with pytest.raises(SinkForked):
        shop.flow().run(state=shop.base)


@pytest.mark.parametrize("harm", [lose, corrupt, begin_anew])
def test_a_stateless_flow_goes_on_from_its_sinks_without_loss_or_double(
    shop: Shop, harm: Callable[[Shop], None]
) -> None:
    harm(shop)
    rebuilt = rebuild(shop.flow().plan, shop.state, SystemClock())
    assert rebuilt.epoch >= 1
    shop.run()
    assert shop.has_each_once()
    shop.feed(30)
    shop.run()
    assert shop.has_each_once()


def test_a_corrupt_state_folder_is_kept_under_a_dated_name(shop: Shop) -> None:
    corrupt(shop)
    archive = rebuild(shop.flow().plan, shop.state, SystemClock()).archive
    assert archive is not None
    assert (archive / JOURNAL_FILE).read_bytes().startswith(b"not a journal")


def test_a_rebuilt_journal_can_be_lost_and_rebuilt_again(shop: Shop) -> None:
    for _ in range(2):
        lose(shop)
        rebuild(shop.flow().plan, shop.state, SystemClock())
        shop.feed(10)
        shop.run()
    assert shop.has_each_once()


def test_dead_letters_go_on_after_a_rebuild(shop: Shop) -> None:
    lose(shop)
    rebuild(shop.flow().plan, shop.state, SystemClock())
    shop.feed(1)
    assert shop.flow().run(state=shop.base).totals["operators"]["events"]["dead"] == 1


def test_sinks_that_disagree_are_refused_and_named(shop: Shop) -> None:
    key, token = next(iter(shop.left.store.tokens.items()))
    shop.left.store.tokens[key] = type(token)(EpochNumber(token.epoch + 1), token.seal, token.ends)
    lose(shop)
    with pytest.raises(StateUnknown) as caught:
        rebuild(shop.flow().plan, shop.state, SystemClock())
    assert f"left: epoch {token.epoch + 1}" in str(caught.value)
    assert f"right: epoch {token.epoch}" in str(caught.value)


def test_a_sink_without_token_beside_one_with_is_a_disagreement(shop: Shop) -> None:
    shop.right.store.tokens.clear()
    lose(shop)
    with pytest.raises(StateUnknown, match="do not agree") as caught:
        rebuild(shop.flow().plan, shop.state, SystemClock())
    assert "right: no token" in str(caught.value)


def test_reads_of_other_names_are_refused_for_they_would_begin_again(shop: Shop) -> None:
    lose(shop)
    with pytest.raises(StateUnknown, match="other reads"):
        rebuild(shop.flow(read="renamed").plan, shop.state, SystemClock())


def test_a_journal_that_is_there_is_not_replaced(shop: Shop) -> None:
    before = (shop.state / JOURNAL_FILE).read_bytes()
    with pytest.raises(StateUnknown, match="nothing needs to be rebuilt"):
        rebuild(shop.flow().plan, shop.state, SystemClock())
    assert (shop.state / JOURNAL_FILE).read_bytes() == before


def test_nothing_is_rebuilt_while_the_flow_runs(shop: Shop) -> None:
    with locked_folder(shop.state), pytest.raises(JournalLocked):
        rebuild(shop.flow().plan, shop.state, SystemClock())


def stateful_flow(shop: Shop) -> of.Flow:
    flow = of.Flow("shop")
    schema = {**SCHEMA, "at": "TIMESTAMP"}
    events = flow.read(shop.input, schema=schema, format="json", event_time="at", lateness="1 minute", name="events")
    kept = events.dedup("event_id", within="3 days")
    kept.window("1 hour").group_by("event_id").agg(n="count(*)").upsert(shop.left, key=["event_id", "window_start"])
    kept.group_by("event_id").agg(n="count(*)").upsert(shop.right, key=["event_id"])
    return flow


def test_a_stateful_flow_is_told_all_that_it_holds_and_what_to_replay(shop: Shop) -> None:
    lose(shop)
    with pytest.raises(StateUnknown) as caught:
        rebuild(stateful_flow(shop).plan, shop.state, SystemClock())
    text = str(caught.value)
    for held in ("the keys it has seen, for 3 days", "its open windows", "its groups", "the largest at"):
        assert held in text
    assert "replay" in text
    assert not shop.state.exists()


def test_files_remember_what_they_admitted(tmp_path: Path) -> None:
    flow = of.Flow("files")
    flow.read(of.files(str(tmp_path / "*.jsonl")), schema=SCHEMA).append(of.memory("recovery-files"))
    assert any("has admitted" in sentence for sentence in what_is_held(flow.plan))


def test_a_sink_at_least_once_is_refused_for_nobody_knows_what_it_lacks(shop: Shop) -> None:
    flow = of.Flow("shop")
    flow.read(shop.input, schema=SCHEMA, format="json").append(shop.left, name="left", guarantee="at-least-once")
    lose(shop)
    with pytest.raises(StateUnknown, match="keeps no token"):
        rebuild(flow.plan, shop.state, SystemClock())


def test_a_sink_at_most_once_goes_on_and_what_it_may_lack_is_said(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    most = of.memory("recovery-most-once")

    def flow() -> of.Flow:
        flow = of.Flow("shop")
        events = flow.read(shop.input, schema=SCHEMA, format="json", name="events")
        events.append(shop.left, name="left")
        events.append(most, name="most", guarantee="at-most-once")
        return flow

    shop.feed(20)
    flow().run(state=shop.base)
    lose(shop)
    notes = rebuild(flow().plan, shop.state, SystemClock()).notes
    assert any(note.startswith("most keeps no token") for note in notes)
    shop.feed(5)
    flow().run(state=shop.base)
    assert shop.ids(shop.left) == shop.ids(most) == sorted(f"e{number}" for number in range(25))


# --------------------------------------------------------------------------------------------------------- reset, adopt


def test_a_reset_deletes_nothing_and_the_next_run_makes_no_second_copy(shop: Shop) -> None:
    archive = archive_state(shop.state, SystemClock())
    assert (archive / JOURNAL_FILE).exists()
    assert not shop.state.exists()
    with pytest.raises(SinkForked):
        shop.flow().run(state=shop.base)
    assert shop.has_each_once()


def test_two_resets_in_one_second_keep_both_states(shop: Shop) -> None:
    class Still(SystemClock):
        def now(self) -> float:
            return 1_700_000_000.0

    first = archive_state(shop.state, Still())
    shop.state.mkdir()
    second = archive_state(shop.state, Still())
    assert first.name == "shop.2023-11-14T22-13-20Z"
    assert second.name == "shop.2023-11-14T22-13-20Z-2"


def test_a_running_flow_cannot_be_reset(shop: Shop) -> None:
    with locked_folder(shop.state), pytest.raises(JournalLocked):
        archive_state(shop.state, SystemClock())
    assert shop.state.exists()


def test_a_reset_says_of_each_sink_what_its_token_will_mean(shop: Shop) -> None:
    flow = shop.flow()
    flow.read(of.memory("recovery-loose"), schema=SCHEMA, format="json").append(
        of.memory("recovery-weak"), name="weak", guarantee="at-least-once"
    )
    meanings = {one.sink: one for one in reset_meanings(flow.plan)}
    assert "sink-forked before it writes anything" in meanings["left"].meaning
    assert "onefold recover --from-sinks" in meanings["left"].meaning
    assert "writes everything again" in meanings["weak"].meaning
    assert "--from-sinks" not in reset_meanings(stateful_flow(shop).plan)[0].meaning


def test_after_a_reset_the_sinks_of_a_stateless_flow_can_be_followed(shop: Shop) -> None:
    archive_state(shop.state, SystemClock())
    rebuild(shop.flow().plan, shop.state, SystemClock())
    shop.feed(5)
    shop.run()
    assert shop.has_each_once()


def test_a_moved_journal_is_adopted_once(shop: Shop) -> None:
    moved = shop.base / "elsewhere" / "shop"
    moved.parent.mkdir()
    shutil.copytree(shop.state, moved)
    shutil.rmtree(shop.state)
    assert adopt(shop.flow().plan, moved, SystemClock()).was_moved
    assert not adopt(shop.flow().plan, moved, SystemClock()).was_moved
    shop.base = moved.parent
    shop.feed(5)
    shop.run()
    assert shop.has_each_once()


def test_there_must_be_something_to_adopt(shop: Shop) -> None:
    lose(shop)
    with pytest.raises(StateUnknown):
        adopt(shop.flow().plan, shop.state, SystemClock())
