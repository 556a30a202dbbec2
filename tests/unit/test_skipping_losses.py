"""Input that is gone: `recover --skip-lost` goes on behind it, counts it, and reads everything else once."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import onefold as of
from onefold.cli.exits import Exit
from onefold.cli.group import main
from onefold.clock import SystemClock
from onefold.connectors.memory import MemorySource
from onefold.engines.embedded.inline import InlineRun, ManualClock
from onefold.engines.embedded.losses import find_losses, skip_losses
from onefold.engines.embedded.runner import status
from onefold.errors import InputLost, JournalLocked
from onefold.finding import find_flow
from onefold.journal import locked_folder
from onefold.protocols import Limit, Read
from onefold.types import PartitionId, Position, Skip
from tests.unit.engine_bench import Bench

Onefold = Callable[..., Result]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.fixture
def onefold() -> Onefold:
    return lambda *words: CliRunner().invoke(main, [str(word) for word in words])


def half_lost(bench: Bench) -> of.Flow:
    """0 and 1 are processed, 2 and 3 are gone, 4 to 6 are there."""
    flow = bench.flow("a")
    bench.feed(2)
    flow.run(state=bench.folder)
    bench.feed(5)
    bench.memory("in").forget_input(4)
    return flow


def accepted(bench: Bench, flow: of.Flow) -> int:
    folder = bench.folder / "bench"
    return skip_losses(flow.plan, folder, find_losses(flow.plan, folder, SystemClock()))


def test_reading_goes_on_behind_what_was_accepted_as_lost(bench: Bench) -> None:
    flow = half_lost(bench)
    with pytest.raises(InputLost, match="2 to 3"):
        flow.run(state=bench.folder)
    accepted(bench, flow)
    flow.run(state=bench.folder)
    assert bench.numbers("a") == [0, 1, 4, 5, 6]


def test_the_books_count_what_was_lost(bench: Bench) -> None:
    flow = half_lost(bench)
    accepted(bench, flow)
    flow.run(state=bench.folder)
    books = status(flow.plan, bench.folder / "bench").totals["operators"]["in"]
    assert (books["read"], books["lost"]) == (5, 2)


def test_a_loss_that_nobody_accepted_is_found_and_nothing_more(bench: Bench) -> None:
    flow = half_lost(bench)
    (loss,) = find_losses(flow.plan, bench.folder / "bench", SystemClock())
    assert (loss.read, loss.partition, loss.start) == ("in", "0", 2)
    assert loss.error.skip == Skip(4, 2)
    assert status(flow.plan, bench.folder / "bench").positions["in"] == {"0": 2}
    with pytest.raises(InputLost):
        flow.run(state=bench.folder)


def test_where_nothing_is_lost_nothing_is_found(bench: Bench) -> None:
    bench.feed(2)
    flow = bench.flow("a")
    flow.run(state=bench.folder)
    assert find_losses(flow.plan, bench.folder / "bench", SystemClock()) == ()
    bench.feed(1)
    assert find_losses(flow.plan, bench.folder / "bench", SystemClock()) == ()


def test_a_flow_that_runs_is_left_alone(bench: Bench) -> None:
    flow = half_lost(bench)
    with locked_folder(bench.folder / "bench"), pytest.raises(JournalLocked):
        find_losses(flow.plan, bench.folder / "bench", SystemClock())


def test_a_partition_that_is_gone_is_missed_and_then_read_no_more(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(source: MemorySource, partition: PartitionId, start: Position, limit: Limit, wait_seconds: float) -> Read:
        raise InputLost("The partition is gone.", partition=partition, skip=Skip(None))

    flow = bench.flow("a")
    bench.feed(2)
    flow.run(state=bench.folder)
    with monkeypatch.context() as gone:
        gone.setattr(MemorySource, "partitions", lambda source: {})
        gone.setattr(MemorySource, "read", read)
        with pytest.raises(InputLost):
            flow.run(state=bench.folder)
        accepted(bench, flow)
        flow.run(state=bench.folder)
        assert status(flow.plan, bench.folder / "bench").positions["in"] == {}
    assert bench.numbers("a") == [0, 1]


# --------------------------------------------------------------------------------------------------------------- files


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """1 of 4 rows of a.jsonl is processed."""
    (tmp_path / "flow.py").write_text(
        f"""import onefold as of
flow = of.Flow("flow", epoch_rows=1)
rows = flow.read(of.files({str(tmp_path / "in" / "*.jsonl")!r}), schema={{"n": "BIGINT"}}, name="in")
rows.append(of.sqlite({str(tmp_path / "out.sqlite")!r}).table("out"))
"""
    )
    (tmp_path / "in").mkdir()
    write(tmp_path, "a.jsonl", range(1, 5))
    return tmp_path / "flow.py"


def write(folder: Path, name: str, numbers: Sequence[int]) -> None:
    (folder / "in" / name).write_text("".join(f'{{"n": {number}}}\n' for number in numbers))


def read_one(flow: Path) -> None:
    """Stop after the first epoch."""
    plan = find_flow(str(flow)).flow.plan
    outputs = {output.name: output for output in plan.outputs}
    run = InlineRun(plan, flow.parent / ".onefold" / "flow", outputs, clock=ManualClock(time.time()))
    run.begin()
    run.step()
    run.stop()
    run.abandon()


def numbers(flow: Path) -> list[int]:
    with sqlite3.connect(flow.parent / "out.sqlite") as connection:
        return [row[0] for row in connection.execute("SELECT n FROM out ORDER BY rowid")]


@pytest.mark.parametrize("happens", ["vanished", "replaced", "shrank"])
def test_a_file_that_is_not_what_it_was_is_left_behind(onefold: Onefold, files: Path, happens: str) -> None:
    read_one(files)
    assert numbers(files) == [1]
    match happens:
        case "vanished":
            (files.parent / "in" / "a.jsonl").unlink()
        case "replaced":
            write(files.parent, "a.jsonl", [10, 11, 12])
        case _:
            write(files.parent, "a.jsonl", [])
    write(files.parent, "b.jsonl", [20])
    assert onefold("run", files, "--once").exit_code == Exit.FAILED
    accepted = onefold("recover", files, "--skip-lost", "--yes")
    assert accepted.exit_code == 0, accepted.stderr
    assert onefold("run", files, "--once").exit_code == 0
    assert numbers(files) == [1, 20]


def test_recover_says_what_is_lost_before_it_asks(onefold: Onefold, files: Path) -> None:
    read_one(files)
    (files.parent / "in" / "a.jsonl").unlink()
    result = onefold("recover", files, "--skip-lost")
    assert result.exit_code == Exit.USAGE
    assert "a.jsonl vanished before it was read to its end" in result.stderr
    assert "--yes" in result.stderr
    (told,) = json.loads(onefold("recover", files, "--skip-lost", "--yes", "--json").stdout)["lost"]
    assert told["read"] == "in"
    assert "misses nothing" in onefold("recover", files, "--skip-lost").stdout


def test_what_cannot_be_skipped_is_not_said_to_be() -> None:
    assert "recover --skip-lost" in InputLost("Gone.", skip=Skip(1)).next_step
    unskippable = InputLost("Gone.", next_step="Restore the table").next_step
    assert unskippable == "Restore the table; or start over: `onefold reset`."


def test_a_flow_that_never_ran_misses_nothing(onefold: Onefold, files: Path) -> None:
    assert onefold("recover", files, "--skip-lost", "--yes").exit_code == Exit.STATE
