"""The command line: every verb on a small flow, its exit codes, its JSON, and its errors."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest
from click.testing import CliRunner, Result
from rich.console import Console

import onefold as of
from onefold.cli.exits import MEANINGS, Exit, exit_of
from onefold.cli.group import VERBS, main
from onefold.cli.logs import logs_to
from onefold.engines.embedded.runner import Run
from onefold.engines.embedded.runner import run as run_plan
from onefold.errors import (
    ExtraMissing,
    GuaranteeRefused,
    InvariantBroken,
    JournalLocked,
    SinkForked,
    SourceUnavailable,
)
from onefold.journal import locked_folder
from onefold.settings import forget_env_files

FLOW = """
import onefold as of
flow = of.Flow("shop")
events = flow.read(of.files("{folder}/in/*.jsonl"), schema={{"event_id": "VARCHAR", "amount": "DECIMAL(18,2)"}})
events.dedup("event_id", within=None).append(of.duckdb("{target}").table("payments"))
"""

Onefold = Callable[..., Result]


@pytest.fixture
def onefold(monkeypatch: pytest.MonkeyPatch) -> Onefold:
    monkeypatch.delenv("ONEFOLD_STATE", raising=False)
    return lambda *arguments: CliRunner().invoke(main, [str(one) for one in arguments])


@pytest.fixture
def flow(tmp_path: Path) -> Path:
    """A flow over ten events told twice and one malformed line."""
    events = [json.dumps({"event_id": f"e{number}", "amount": "1.50"}) for number in range(10)]
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jsonl").write_text("\n".join([*events, *events, "{malformed"]) + "\n")
    return write_flow(tmp_path)


def write_flow(folder: Path, target: str | None = None, name: str = "shop.py") -> Path:
    path = folder / name
    path.write_text(FLOW.format(folder=folder, target=target or folder / "out.duckdb"))
    return path


def payments(flow: Path) -> int:
    with duckdb.connect(str(flow.parent / "out.duckdb"), read_only=True) as connection:
        return int((connection.execute("SELECT count(*) FROM payments").fetchone() or [0])[0])


def lines(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


# ---------------------------------------------------------------------------------------------------------------- all


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_tells_what_it_does(onefold: Onefold, verb: str) -> None:
    result = onefold(verb, "--help")
    assert result.exit_code == 0
    assert "Usage: " in result.stdout
    assert verb in onefold("--help").stdout


def test_every_exit_code_has_a_meaning() -> None:
    assert set(MEANINGS) == set(Exit)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (GuaranteeRefused(), Exit.REFUSED),
        (JournalLocked(), Exit.LOCKED),
        (SinkForked(), Exit.STATE),
        (InvariantBroken(), Exit.BUG),
        (SourceUnavailable(), Exit.FAILED),
    ],
)
def test_an_error_has_the_exit_code_of_its_kind(error: Exception, code: Exit) -> None:
    assert exit_of(error) is code


def test_an_error_is_told_without_a_traceback_unless_asked(onefold: Onefold, tmp_path: Path) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text(
        'import onefold as of\nflow = of.Flow("x")\nflow.read(of.files("a.jsonl"), schema={"a": "NUMBR"})\n'
    )
    result = onefold("run", broken)
    assert result.exit_code == Exit.FAILED
    assert "schema-invalid" in result.stderr
    assert "line 3" in result.stderr
    assert "Traceback" not in result.stderr
    assert "Traceback" in onefold("run", broken, "--verbose").stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["--json"],
        ["rum", "--json"],
        ["run", "--json"],
        ["run", "--json", "--wrong", "x.py"],
        ["demo", "--json", "--events=1"],
    ],
)
def test_a_wrong_command_line_is_json_for_programs(onefold: Onefold, arguments: list[str]) -> None:
    result = onefold(*arguments)
    assert result.exit_code == Exit.USAGE
    told = json.loads(result.stderr)
    assert told["code"] == "command-invalid"
    assert told["summary"]
    assert "--help" in told["next_step"]
    assert result.stdout == ""


def test_what_a_flow_prints_stays_out_of_the_json(onefold: Onefold, flow: Path) -> None:
    flow.write_text(
        flow.read_text()
        + '\nprint("imported")\nevents.append(of.console(), name="screen", guarantee="at-least-once")\n'
    )
    result = onefold("run", flow, "--once", "--json")
    assert result.exit_code == 0
    assert lines(result)[-1]["event"] == "summary"
    assert "event_id=e9" in result.stderr
    assert "imported" in result.stderr
    (flow.parent / "out.duckdb").unlink()
    assert "event_id=e9" in onefold("run", flow, "--once", "--state", flow.parent / "again").stdout


def test_an_error_is_json_for_programs(onefold: Onefold, tmp_path: Path) -> None:
    result = onefold("run", tmp_path / "none.py", "--json")
    assert result.exit_code == Exit.USAGE
    assert json.loads(result.stderr)["code"] == "flow-not-found"
    assert result.stdout == ""


@pytest.fixture
def without_kafka(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*sys.modules, "confluent_kafka", "confluent_kafka.admin"]:
        if name.partition(".")[0] == "confluent_kafka":
            monkeypatch.setitem(sys.modules, name, None)


@pytest.mark.usefixtures("without_kafka")
def test_a_missing_extra_is_told_with_the_command_that_installs_it(onefold: Onefold, tmp_path: Path) -> None:
    flow = tmp_path / "topics.py"
    flow.write_text(
        "import onefold as of\n"
        "flow = of.Flow('topics')\n"
        "events = flow.read(of.kafka('127.0.0.1:1').topic('events'), schema={'id': 'BIGINT'})\n"
        f"events.append(of.files('{tmp_path}/out'))\n"
    )
    for verb in (["run", "--once"], ["run"], ["doctor"]):
        result = onefold(*verb, flow)
        assert result.exit_code == Exit.FAILED
        assert "pip install 'onefold[kafka]'" in result.output
        assert "Traceback" not in result.output
    topic = of.kafka("127.0.0.1:1").topic("events")
    with pytest.raises(ExtraMissing):
        of.Flow("topics").read(topic, schema={"id": "BIGINT"}).preview()


def test_an_exception_that_nobody_expected_is_told_like_an_error(
    onefold: Onefold, flow: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onefold.cli.run.Run", lambda *_, **__: {}["nothing"])
    told = onefold("run", flow)
    assert told.exit_code == Exit.BUG
    assert "a bug in onefold, or in a function of yours" in told.stderr
    assert "KeyError: 'nothing'" in told.stderr
    assert "--verbose" in told.stderr
    assert "Traceback" not in told.stderr
    assert "Traceback" in onefold("run", flow, "--verbose").stderr
    assert json.loads(onefold("run", flow, "--json").stderr)["code"] == "unexpected"


# ---------------------------------------------------------------------------------------------------------------- run


def test_run_once_delivers_everything_once_and_says_so(onefold: Onefold, flow: Path) -> None:
    result = onefold("run", flow, "--once")
    assert result.exit_code == 0
    assert "drained: 21 events" in result.stdout
    assert "Every sink has everything." in result.stdout
    assert onefold("run", flow, "--once").exit_code == 0
    assert payments(flow) == 10


def test_rotated_files_are_read_once_and_what_is_written_over_a_file_is_told(onefold: Onefold, flow: Path) -> None:
    onefold("run", flow, "--once")
    source = flow.parent / "in" / "a.jsonl"
    source.rename(source.with_name("a-1.jsonl"))
    assert lines(onefold("run", flow, "--once", "--json"))[-1]["events"] == 0
    source.write_text('{"event_id": "e10", "amount": "1.50"}\n')
    os.utime(source, (1, 1))  # long finished
    assert lines(onefold("run", flow, "--once", "--json"))[-1]["events"] == 1
    source.write_text('{"event_id": "e11", "amount": "1.50"}\n{"event_id": "e12", "amount": "1.50"}\n')
    (source.parent / "b.jsonl").write_text('{"event_id": "e13", "amount": "1.50"}\n')
    summary = lines(onefold("run", flow, "--once", "--json"))[-1]
    assert (summary["events"], summary["is_all_read"]) == (1, False)
    assert "in/a.jsonl was rewritten" in summary["notes"][0]
    shown = onefold("run", flow, "--once").stdout
    assert "Every sink has everything that was read." in shown
    assert "note: read in: file" in shown
    assert payments(flow) == 12
    assert "b.jsonl" in onefold("status", flow).stdout


def test_run_gives_its_books_to_programs(onefold: Onefold, flow: Path) -> None:
    summary = lines(onefold("run", flow, "--once", "--json"))[-1]
    assert summary["event"] == "summary"
    assert summary["is_complete"] is True
    assert summary["totals"]["operators"]["dedup"]["duplicates"] == 10


def test_state_lives_in_the_option_then_the_environment_then_beside_the_module(
    onefold: Onefold, flow: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = flow.parent
    monkeypatch.setenv("ONEFOLD_STATE", str(here / "env"))
    onefold("status", flow, "--state", here / "option")
    onefold("run", flow, "--once", "--state", here / "option")
    assert (here / "option" / "shop" / "journal.sqlite").exists()
    assert not (here / "env").exists()
    (here / "out.duckdb").unlink()
    onefold("run", flow, "--once")
    assert (here / "env" / "shop" / "journal.sqlite").exists()
    (here / "out.duckdb").unlink()
    monkeypatch.delenv("ONEFOLD_STATE")
    onefold("run", flow, "--once")
    assert (here / ".onefold" / "shop" / "journal.sqlite").exists()


def test_settings_come_from_the_env_file(onefold: Onefold, flow: Path) -> None:
    write_flow(flow.parent, target="${SHOP_DATABASE}")
    refused = onefold("run", flow, "--once")
    assert refused.exit_code == Exit.FAILED
    assert "SHOP_DATABASE" in refused.stderr
    (flow.parent / "settings").write_text(f"SHOP_DATABASE={flow.parent}/out.duckdb\n")
    try:
        assert onefold("run", flow, "--once", "--env-file", flow.parent / "settings").exit_code == 0
    finally:
        forget_env_files()
    assert payments(flow) == 10


def test_explaining_needs_no_settings_and_running_asks_before_anything_is_made(onefold: Onefold, flow: Path) -> None:
    write_flow(flow.parent, target="${SHOP_DATABASE}")
    assert onefold("explain", flow).exit_code == 0
    assert onefold("run", flow, "--once").exit_code == Exit.FAILED
    assert not (flow.parent / ".onefold").exists()


def test_run_refuses_a_guarantee_that_cannot_be_kept_and_explain_agrees(onefold: Onefold, flow: Path) -> None:
    text = flow.read_text() + '\nevents.append(of.console(), name="screen")\n'
    flow.write_text(text)
    result = onefold("run", flow, "--once")
    assert result.exit_code == Exit.REFUSED
    assert not (flow.parent / "out.duckdb").exists()
    explained = onefold("explain", flow)
    assert explained.exit_code == Exit.REFUSED
    assert "weakest link: screen, at-least-once" in explained.stdout
    assert onefold("doctor", flow).exit_code == Exit.REFUSED


def test_a_second_process_is_told_who_runs(onefold: Onefold, flow: Path) -> None:
    onefold("run", flow, "--once")
    with locked_folder(flow.parent / ".onefold" / "shop"):
        result = onefold("run", flow, "--once")
    assert result.exit_code == Exit.LOCKED
    assert f"process {os.getpid()} on" in result.stderr


@pytest.mark.parametrize("every", ["0", "-1"])
def test_progress_is_not_told_without_a_pause(onefold: Onefold, flow: Path, every: str) -> None:
    assert onefold("run", flow, "--once", "--every", every).exit_code == Exit.USAGE


def test_a_mistyped_verb_comes_with_the_nearest(onefold: Onefold) -> None:
    result = onefold("rnu")
    assert (result.exit_code, "Did you mean run?" in result.stderr) == (Exit.USAGE, True)


def test_closing_needs_an_end(onefold: Onefold, flow: Path) -> None:
    assert onefold("run", flow, "--close").exit_code == Exit.USAGE


def test_logs_carry_flow_sink_and_epoch(
    flow: Path, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    target = of.memory(request.node.name)
    shop = of.Flow("shop")
    events = shop.read(of.files(flow.parent / "in" / "*.jsonl"), schema={"event_id": "VARCHAR"})
    events.append(target, name="payments")
    run_plan(shop.plan, flow.parent / "state", until="drained")
    target.set_down(True)
    logs = logs_to(Console(stderr=True, soft_wrap=True), "shop", as_json=True, is_verbose=False)
    with logs, Run(shop.plan, flow.parent / "state") as run:
        for _ in range(3000):
            if run.progress().waiting_sinks:
                break
            with pytest.raises(TimeoutError):
                run.wait(0.01)
    logging.getLogger("onefold").warning("said to nobody")
    told = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    first = next(record for record in told if "sink payments" in record["message"])
    assert {key: first[key] for key in ("level", "flow", "sink", "epoch")} == {
        "level": "warning", "flow": "shop", "sink": "payments", "epoch": 1,
    }  # fmt: skip
    assert "said to nobody" not in [record["message"] for record in told]


# ------------------------------------------------------------------------------------------------- status and the rest


def test_status_of_a_flow_that_never_ran_makes_nothing(onefold: Onefold, flow: Path) -> None:
    result = onefold("status", flow)
    assert result.exit_code == Exit.STATE
    assert not (flow.parent / ".onefold").exists()


def test_status_tells_epochs_positions_sinks_and_books(onefold: Onefold, flow: Path) -> None:
    onefold("run", flow, "--once")
    found = lines(onefold("status", flow, "--json"))[0]
    assert found["epoch"] == found["settled"] >= 1
    assert found["running"] is None
    assert found["positions"]["in"]["files"]
    assert {sink["name"] for sink in found["sinks"]} == {"payments", "_dead_letters"}
    assert found["totals"]["sinks"]["payments"]["appended"] == 10
    shown = onefold("status", flow).stdout
    assert "duplicates 10" in shown
    assert "not running" in shown


def test_status_works_beside_a_running_flow(onefold: Onefold, flow: Path) -> None:
    onefold("run", flow, "--once")
    with locked_folder(flow.parent / ".onefold" / "shop"):
        found = lines(onefold("status", flow, "--json"))[0]
    assert found["running"]["pid"]


def test_dead_letters_show_reason_place_and_bytes(onefold: Onefold, flow: Path) -> None:
    assert "shop has no dead letters" in onefold("dead-letters", "list", flow).stdout
    assert "shop has no such dead letters" in onefold("dead-letters", "list", flow, "--reason", "late").stdout
    onefold("run", flow, "--once")
    letter = lines(onefold("dead-letters", "list", flow, "--json"))[0]
    assert letter["reason"] == "malformed"
    assert letter["raw"] == "{malformed"
    assert json.loads(letter["position"])["_file"] == "a.jsonl"
    assert "{malformed" in onefold("dead-letters", "list", flow).stdout


def test_dead_letters_can_be_chosen_by_reason_and_read(onefold: Onefold, flow: Path) -> None:
    (flow.parent / "in" / "b.jsonl").write_text('{"event_id": "x", "amount": 0.125}\nnothing\n')
    onefold("run", flow, "--once")
    assert [one["reason"] for one in lines(onefold("dead-letters", "list", flow, "--json", "--reason", "misfit"))] == [
        "misfit"
    ]
    assert lines(onefold("dead-letters", "list", flow, "--json", "--read", "other")) == []
    assert len(lines(onefold("dead-letters", "list", flow, "--json", "--limit", "2"))) == 2


def test_doctor_finds_what_would_fail_and_writes_nothing(onefold: Onefold, flow: Path) -> None:
    before = sorted(flow.parent.rglob("*"))
    assert onefold("doctor", flow).exit_code == 0
    write_flow(flow.parent, target="${SHOP_NOWHERE}/out.duckdb")
    result = onefold("doctor", flow, "--json")
    assert result.exit_code == Exit.FAILED
    findings = lines(result)[0]["findings"]
    assert [one["what"] for one in findings if (one["next_step"] != "") != (one["status"] != "ok")] == []
    failed = [one["what"] for one in findings if one["status"] == "failed"]
    assert failed == ["setting SHOP_NOWHERE"]
    assert [path for path in sorted(flow.parent.rglob("*")) if "__pycache__" not in path.parts] == before


def test_doctor_sees_a_missing_folder_and_a_changed_plan(onefold: Onefold, flow: Path) -> None:
    onefold("run", flow, "--once")
    write_flow(flow.parent, target=str(flow.parent / "missing" / "out.duckdb"))
    assert "missing" in onefold("doctor", flow).stdout
    flow.write_text(flow.read_text().replace('"event_id", within=None', '"amount", within=None'))
    result = onefold("doctor", flow)
    assert result.exit_code == Exit.FAILED
    assert "key = ['amount']" in result.stdout


def test_explain_gives_verdict_reason_and_conditions(onefold: Onefold, flow: Path) -> None:
    result = onefold("explain", flow)
    assert result.exit_code == 0
    assert "payments: exactly-once" in result.stdout
    assert "because " in result.stdout
    assert "as long as " in result.stdout
    assert lines(onefold("explain", flow, "--json"))[0]["is_kept"] is True
    assert "the journal is neither copied" not in result.stdout
    text = flow.read_text() + '\nevents.append(of.console(), name="screen", guarantee="at-most-once")\n'
    flow.write_text(text.replace('.table("payments")', '.table("payments"), guarantee="at-least-once"'))
    weak = onefold("explain", flow).stdout
    assert weak.count("as long as the journal is neither copied nor restored") == 2
    assert "printed again" not in weak


def test_reset_of_a_flow_that_runs_says_so_first(onefold: Onefold, flow: Path) -> None:
    onefold("run", flow, "--once")
    with locked_folder(flow.parent / ".onefold" / "shop"):
        result = onefold("reset", flow)
    assert result.exit_code == Exit.LOCKED
    assert "After the reset" not in result.stderr


def test_reset_asks_for_yes_where_nobody_can_be_asked(onefold: Onefold, flow: Path) -> None:
    onefold("run", flow, "--once")
    assert onefold("reset", flow).exit_code == Exit.USAGE
    assert (flow.parent / ".onefold" / "shop" / "journal.sqlite").exists()


def test_reset_keeps_the_state_and_the_next_run_writes_no_second_copy(onefold: Onefold, flow: Path) -> None:
    onefold("run", flow, "--once")
    result = onefold("reset", flow, "--yes", "--json")
    assert result.exit_code == 0
    told = lines(result)[0]
    assert (Path(told["archive"]) / "journal.sqlite").exists()
    assert "sink-forked" in told["sinks"][0]["meaning"]
    stopped = onefold("run", flow, "--once")
    assert stopped.exit_code == Exit.STATE
    assert "sink-forked" in stopped.stderr
    assert payments(flow) == 10
    (flow.parent / "out.duckdb").unlink()
    onefold("reset", flow, "--yes")
    assert onefold("run", flow, "--once").exit_code == 0
    assert payments(flow) == 10


def test_recover_wants_to_know_which(onefold: Onefold, flow: Path) -> None:
    assert onefold("recover", flow).exit_code == Exit.USAGE
    assert onefold("recover", flow, "--adopt", "--from-sinks").exit_code == Exit.USAGE


def test_recover_tells_a_stateful_flow_what_it_holds(onefold: Onefold, flow: Path) -> None:
    result = onefold("recover", flow, "--from-sinks", "--yes")
    assert result.exit_code == Exit.STATE
    assert "remembers the keys it has seen, for ever" in result.stderr


def test_recover_adopts_a_copied_state(onefold: Onefold, flow: Path) -> None:
    onefold("run", flow, "--once")
    (flow.parent / ".onefold").rename(flow.parent / "moved")
    found = lines(onefold("recover", flow, "--adopt", "--yes", "--json", "--state", flow.parent / "moved"))[0]
    assert found["was_moved"] is True
    assert onefold("run", flow, "--once", "--state", flow.parent / "moved").exit_code == 0
    assert payments(flow) == 10


# --------------------------------------------------------------------------------------------------------------- init


def test_init_makes_a_project_that_runs(onefold: Onefold, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert onefold("init", "shop").exit_code == 0
    monkeypatch.chdir(tmp_path / "shop")
    assert (tmp_path / "shop" / ".gitignore").exists()
    summary = lines(onefold("run", "flow.py", "--once", "--json"))[-1]
    assert summary["totals"]["operators"]["dedup"]["duplicates"] == 2
    with duckdb.connect("revenue.duckdb", read_only=True) as connection:
        assert connection.execute("SELECT sum(payments) FROM revenue_hourly").fetchone() == (58,)


def test_the_test_of_a_new_project_passes(onefold: Onefold, tmp_path: Path) -> None:
    onefold("init", tmp_path / "shop")
    environment = {**os.environ, "PYTHONPATH": str(Path(of.__file__).resolve().parents[1])}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=tmp_path / "shop", env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout


def test_the_version_is_told(onefold: Onefold) -> None:
    assert onefold("--version").stdout == f"onefold {of.__version__}\n"


def test_init_overwrites_nothing(onefold: Onefold, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    assert onefold("init", tmp_path).exit_code == Exit.USAGE
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_the_name_of_its_file_can_be_kept_with_a_row(onefold: Onefold, flow: Path) -> None:
    text = flow.read_text().replace(
        '"amount": "DECIMAL(18,2)"}', '"amount": "DECIMAL(18,2)"}, meta=["_file", "_offset"]'
    )
    flow.write_text(text)
    assert onefold("run", flow, "--once").exit_code == 0
    with duckdb.connect(str(flow.parent / "out.duckdb"), read_only=True) as connection:
        assert connection.execute("SELECT DISTINCT _file FROM payments").fetchall() == [("a.jsonl",)]
