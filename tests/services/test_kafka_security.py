"""Who may come in, what is said to those who may not, and that nobody sees a secret: on a broker with all of it."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import onefold as of
from onefold.cli.exits import Exit
from onefold.cli.group import main
from onefold.engines.embedded.status import history_of
from services.certificates import Authority
from services.jars import ROOT
from services.kafka import answers
from tests.needs import need
from tests.services.secured_kafka import (
    CLIENT_SECRET,
    MARKER,
    PASSWORDS,
    Grant,
    World,
    needed,
    token_endpoint,
    token_for,
)

pytest.importorskip("confluent_kafka")

SOON_SECONDS = 15.0
SCHEMA = {"id": "BIGINT", "note": "VARCHAR"}
ROWS = [{"id": number, "note": f"row {number}"} for number in range(20)]

Arguments = dict[str, Any]
"""Of of.kafka(…)."""

_flows: dict[str, of.Flow] = {}


@dataclass
class Ran:
    """How `onefold run --once --verbose` ended."""

    exit_code: int
    shown: str
    seconds: float
    sealed: int
    error: dict[str, Any] = field(default_factory=dict)


@pytest.fixture
def run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> Callable[[of.Flow], Ran]:
    """Runs a flow by the command line, and looks everywhere for what nobody may see."""

    def ran(flow: of.Flow) -> Ran:
        _flows[flow.name] = flow
        module, state = tmp_path / "module.py", tmp_path / "state"
        module.write_text(f"from {__name__} import _flows\nflow = _flows[{flow.name!r}]\n")
        began = time.monotonic()
        with caplog.at_level(logging.DEBUG):
            result = invoke("run", module, "--once", "--verbose", "--state", state)
        seconds = time.monotonic() - began
        told = [invoke(verb, module, "--json", "--state", state).output for verb in ("status", "explain")]
        told += [repr(flow), json.dumps(flow.plan.shape(), default=str), *capfd.readouterr(), caplog.text]
        places = {"output": result.output, "told": "\n".join(told), **texts_below(state)}
        assert not [place for place, text in places.items() if MARKER in text], "a secret is shown"
        errors = [json.loads(line) for line in result.stderr.splitlines() if line.startswith('{"code"')]
        sealed = history_of(flow.name, flow.state_folder(str(state)))[0].head
        return Ran(result.exit_code, result.output, seconds, sealed, errors[-1] if errors else {})

    return ran


def invoke(verb: str, *arguments: object) -> Any:
    return CliRunner().invoke(main, [verb, *map(str, arguments)])


def texts_below(folder: Path) -> dict[str, str]:
    """Every file, byte for byte."""
    return {str(path): path.read_text("latin-1") for path in folder.rglob("*") if path.is_file()}


def through(arguments: Arguments, topic: str, out: str, name: str = "", *, guarantee: str = "exactly-once") -> of.Flow:
    """Topic to topic over one connection."""
    flow = of.Flow(name or out)
    kafka = of.kafka(**arguments)
    read = flow.read(kafka.topic(topic), schema=SCHEMA, name="in")
    read.append(kafka.topic(out), name="out", guarantee=guarantee)
    return flow


def inwards(arguments: Arguments, out: str, folder: Path, rows: list[dict[str, Any]] = ROWS) -> of.Flow:
    """From a file."""
    (folder / "in.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    flow = of.Flow(out)
    read = flow.read(of.files(str(folder / "in.jsonl")), schema=SCHEMA, name="in")
    read.append(of.kafka(**arguments).topic(out), name="out")
    return flow


def as_user(world: World, user: str) -> Arguments:
    """A connection of anybody, by a token of his own."""
    common = {"brokers": world.broker.at("SASL"), "mechanism": "OAUTHBEARER"}
    return {**common, "token": lambda: token_for(user)}


# ----------------------------------------------------------------------------------------------------- ways to come in


def _password(world: World, listener: str, mechanism: str) -> Arguments:
    ca = str(world.broker.authority.certificate) if listener != "SASL" else None
    login = {"username": "alice", "password": "${KAFKA_PASSWORD}", "mechanism": mechanism}
    return {"brokers": world.broker.at(listener), **login, "ca": ca}


def _certificate(world: World) -> Arguments:
    files = {"certificate": str(world.certificate), "key": str(world.key)}
    return {"brokers": world.broker.at("TLS"), "ca": str(world.broker.authority.certificate), **files}


def _locked_key(world: World) -> Arguments:
    files = {"certificate": str(world.locked_certificate), "key": str(world.locked_key)}
    return {**_certificate(world), **files, "options": {"ssl.key.password": "${KEY_PASSWORD}"}}


def _texts(world: World) -> Arguments:
    pem = {"ssl.ca.pem": world.broker.authority.certificate, "ssl.certificate.pem": world.certificate}
    options = {name: path.read_text() for name, path in {**pem, "ssl.key.pem": world.key}.items()}
    return {"brokers": world.broker.at("TLS"), "options": options}


def _oidc(world: World) -> Arguments:
    options = {"method": "oidc", "client.id": "client", "client.secret": "${CLIENT_SECRET}"}
    options |= {"token.endpoint.url": "${TOKEN_URL}", "scope": "kafka"}
    named = {f"sasl.oauthbearer.{name}": value for name, value in options.items()}
    ca = str(world.broker.authority.certificate)
    return {"brokers": world.broker.at("SASLTLS"), "mechanism": "OAUTHBEARER", "ca": ca, "options": named}


WAYS: dict[str, Callable[[World], Arguments]] = {
    "PLAIN": lambda world: _password(world, "SASL", "PLAIN"),
    "PLAIN over TLS": lambda world: _password(world, "SASLTLS", "PLAIN"),
    "SCRAM-SHA-256 over TLS": lambda world: _password(world, "SASLTLS", "SCRAM-SHA-256"),
    "SCRAM-SHA-512": lambda world: _password(world, "SASL", "SCRAM-SHA-512"),
    "certificate": _certificate,
    "certificate with a locked key": _locked_key,
    "certificate as text": _texts,
    "OAUTHBEARER by OpenID Connect": _oidc,
    "OAUTHBEARER by a function": lambda world: as_user(world, "alice"),
}


@pytest.fixture(autouse=True)
def secrets(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The right ones."""
    monkeypatch.setenv("KAFKA_PASSWORD", PASSWORDS["alice"])
    monkeypatch.setenv("KEY_PASSWORD", MARKER)
    monkeypatch.setenv("CLIENT_SECRET", CLIENT_SECRET)
    with token_endpoint() as url:
        monkeypatch.setenv("TOKEN_URL", url)
        yield


@pytest.mark.parametrize("way", WAYS)
def test_a_flow_reads_and_writes_as(way: str, world: World, run: Callable[[of.Flow], Ran]) -> None:
    topic, out = world.topic("in"), world.topic("out")
    world.feed(topic, ROWS)
    ran = run(through(WAYS[way](world), topic, out))
    assert ran.exit_code == Exit.OK, ran.shown
    assert world.rows(out) == ROWS


def test_a_token_is_asked_for_again_before_it_is_over(world: World, tmp_path: Path) -> None:
    asked: list[float] = []

    def token() -> tuple[str, float]:
        asked.append(time.monotonic())
        return token_for("alice", seconds=4)

    topic, out = world.topic("in"), world.topic("out")
    flow = through({**as_user(world, "alice"), "token": token}, topic, out)
    with flow.start(state=tmp_path / "state") as running:
        clients = 0
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and len(asked) < clients + 2:
            if running.progress().is_caught_up and not clients:
                clients = len(asked)
            with contextlib.suppress(TimeoutError):
                running.wait(0.1)
        assert len(asked) >= clients + 2, "clients ask on"
        world.feed(topic, ROWS)
        while time.monotonic() < deadline and running.progress().settled < 1:
            with contextlib.suppress(TimeoutError):
                running.wait(0.1)
    assert world.rows(out) == ROWS


# -------------------------------------------------------------------------------------------------------- kept outside


def _wrong_password(world: World, _: pytest.MonkeyPatch) -> Arguments:
    return {**_password(world, "SASL", "PLAIN"), "password": f"{MARKER}-wrong"}


def _unknown_user(world: World, _: pytest.MonkeyPatch) -> Arguments:
    return {**_password(world, "SASLTLS", "SCRAM-SHA-512"), "username": "mallory", "password": MARKER}


def _wrong_authority(world: World, _: pytest.MonkeyPatch) -> Arguments:
    other = Authority(world.broker.folder, "stranger")
    return {**_password(world, "SASLTLS", "PLAIN"), "ca": str(other.certificate)}


def _no_authority(world: World, _: pytest.MonkeyPatch) -> Arguments:
    return {**_password(world, "SASLTLS", "PLAIN"), "ca": None, "tls": True}


def _other_host(world: World, _: pytest.MonkeyPatch) -> Arguments:
    return {**_certificate(world), "brokers": world.broker.at("TLS", "localhost")}


def _no_certificate(world: World, _: pytest.MonkeyPatch) -> Arguments:
    return {**_certificate(world), "certificate": None, "key": None}


def _expired(world: World, _: pytest.MonkeyPatch) -> Arguments:
    certificate, key = world.broker.authority.issue("past", days=0)
    over = time.monotonic() + 1.1
    while time.monotonic() < over:
        time.sleep(0.05)  # until the second in which it was made is over
    return {**_certificate(world), "certificate": str(certificate), "key": str(key)}


def _strangers_certificate(world: World, _: pytest.MonkeyPatch) -> Arguments:
    certificate, key = Authority(world.broker.folder, "stranger").issue("alice-of-a-stranger")
    return {**_certificate(world), "certificate": str(certificate), "key": str(key)}


def _locked_key_without_password(world: World, monkeypatch: pytest.MonkeyPatch) -> Arguments:
    monkeypatch.setenv("KEY_PASSWORD", f"{MARKER}-wrong")
    return _locked_key(world)


def _tls_to_plain(world: World, _: pytest.MonkeyPatch) -> Arguments:
    return {"brokers": world.broker.address, "tls": True}


def _wrong_client_secret(world: World, monkeypatch: pytest.MonkeyPatch) -> Arguments:
    monkeypatch.setenv("CLIENT_SECRET", f"{MARKER}-wrong")
    return _oidc(world)


def _failing_token(world: World, _: pytest.MonkeyPatch) -> Arguments:
    def token() -> tuple[str, float]:
        raise PermissionError("the vault is sealed")

    return {**as_user(world, "alice"), "token": token}


REFUSED: dict[str, tuple[Callable[[World, pytest.MonkeyPatch], Arguments], tuple[str, ...]]] = {
    "a wrong password": (_wrong_password, ("does not let user alice in", "PLAIN", "password")),
    "an unknown user": (_unknown_user, ("does not let user mallory in", "SCRAM-SHA-512")),
    "an authority that did not sign": (_wrong_authority, ("is not who it should be", "stranger.pem", "ca=")),
    "no authority": (_no_authority, ("is not who it should be", "this machine trusts", "ca=")),
    "another host name": (_other_host, ("is not who it should be", "ostname mismatch", "localhost")),
    "no certificate": (_no_certificate, ("does not accept our certificate", "none is named", "certificate=")),
    "a certificate that is over": (_expired, ("does not accept our certificate", "not over")),
    "a stranger's certificate": (_strangers_certificate, ("does not accept our certificate", "trust")),
    "a wrong key password": (_locked_key_without_password, ("cannot be reached with these settings", "ssl.key")),
    "TLS where there is none": (_tls_to_plain, ("speaks without TLS", "SSL")),
    "a wrong client secret": (_wrong_client_secret, ("without a token", "invalid_client", "client.secret")),
    "a function without a token": (_failing_token, ("without a token", "the vault is sealed", "token=")),
}


@pytest.mark.parametrize("way", REFUSED)
def test_a_source_is_refused_for(
    way: str, world: World, run: Callable[[of.Flow], Ran], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    arguments, says = REFUSED[way]
    flow = of.Flow("refused")
    read = flow.read(of.kafka(**arguments(world, monkeypatch)).topic("in-any"), schema=SCHEMA, name="in")
    read.append(of.files(str(tmp_path / "lake")), name="out")
    demand_refused(run(flow), "source-refused", says)


@pytest.mark.parametrize("way", ["a wrong password", "another host name", "no certificate", "a wrong client secret"])
def test_a_sink_is_refused_for(
    way: str, world: World, run: Callable[[of.Flow], Ran], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    arguments, says = REFUSED[way]
    demand_refused(run(inwards(arguments(world, monkeypatch), "out-any", tmp_path)), "sink-refused", says)


def demand_refused(ran: Ran, code: str, says: tuple[str, ...]) -> None:
    assert ran.exit_code == Exit.FAILED, ran.shown
    assert f"code: {code}" in ran.shown
    assert "expected:" in ran.shown
    assert "next:" in ran.shown
    assert not [text for text in says if text not in ran.shown], ran.shown
    assert ran.sealed == 0, "nothing is sealed"
    assert ran.seconds < SOON_SECONDS


# ------------------------------------------------------------------------------------------------- what one may not do


@pytest.mark.parametrize("guarantee", ["exactly-once", "at-least-once"])
def test_who_has_what_the_errors_ask_for_needs_nothing_else(
    guarantee: str, world: World, run: Callable[[of.Flow], Ran]
) -> None:
    """Granted one by one, whatever the error says: in the end it is what the page says, and the flow runs."""
    topic, out = world.topic("held"), world.topic("held")
    user = f"user-of-{out}"
    world.feed(topic, ROWS)
    flow = through(as_user(world, user), topic, out, guarantee=guarantee)
    asked: set[Grant] = set()
    while (ran := run(flow)).exit_code != Exit.OK:
        kind, name, operation = expected_grant(ran)
        assert (kind, name, operation) not in asked, ran.shown
        is_of_source = name in (topic, f"onefold.{out}.in")
        demand_refused(ran, "source-refused" if is_of_source else "sink-refused", ("Have it granted",))
        world.grant(user, (kind, name, operation))
        asked.add((kind, name, operation))
    grants = needed(out, topic, out)
    wanted = grants.values() if guarantee == "exactly-once" else (grants[one] for one in ("read", "lag", "write"))
    assert {grant for grant in asked if grant[2] != "DESCRIBE"} == set(wanted), "DESCRIBE comes with the others"
    assert world.rows(out) == ROWS


def expected_grant(ran: Ran) -> Grant:
    found = re.search(r"expected: (\w+) on the (topic|group|transactional id) (\S+)", ran.shown)
    assert found, ran.shown
    return found[2].replace(" ", "_"), found[3], found[1]


def test_who_may_only_look_at_a_topic_is_told_that_reading_is_missing(
    world: World, run: Callable[[of.Flow], Ran], tmp_path: Path
) -> None:
    topic = world.topic("held")
    world.grant("looker", ("topic", topic, "DESCRIBE"), ("group", "onefold.*", "READ"))
    flow = of.Flow("looks")
    read = flow.read(of.kafka(**as_user(world, "looker")).topic(topic), schema=SCHEMA, name="in")
    read.append(of.files(str(tmp_path / "lake")), name="out")
    demand_refused(run(flow), "source-refused", (f"expected: READ on the topic {topic}",))


@pytest.mark.parametrize("side", ["source", "sink"])
def test_a_topic_that_does_not_exist_is_told_with_names_near_it(
    side: str, world: World, run: Callable[[of.Flow], Ran], tmp_path: Path
) -> None:
    there = world.topic("out-invoices")
    arguments = WAYS["PLAIN"](world)
    flow = inwards(arguments, f"{there}x", tmp_path) if side == "sink" else through(arguments, f"{there}x", there)
    demand_refused(run(flow), f"{side}-refused", (f"has no topic {there}x", f"near it: {there}", "Make the topic"))


# ---------------------------------------------------------------------------------------------------- what is too large

LIMIT = 2_000


def test_small_rows_together_may_exceed_what_one_message_may_have(
    world: World, run: Callable[[of.Flow], Ran], tmp_path: Path
) -> None:
    out = world.topic("out", **{"max.message.bytes": str(LIMIT)})
    rows = [{"id": number, "note": "x" * 300} for number in range(200)]
    ran = run(inwards(_plain(world), out, tmp_path, rows))
    assert ran.exit_code == Exit.OK, ran.shown
    assert "smaller batches" not in ran.shown, "known beforehand"
    assert world.rows(out) == rows


@pytest.mark.parametrize("limit", ["the topic's", "the client's"])
def test_a_row_too_large_for_a_topic_is_refused_before_it_is_sealed(
    limit: str, world: World, run: Callable[[of.Flow], Ran], tmp_path: Path
) -> None:
    configs = {"max.message.bytes": str(LIMIT)} if limit == "the topic's" else {}
    out = world.topic("out", **configs)
    rows = [*ROWS, {"id": 20, "note": "x" * (LIMIT if configs else 1_000_000)}]
    ran = run(inwards(_plain(world), out, tmp_path, rows))
    says = (
        "too large",
        "max.message.bytes of the topic is 2,000" if configs else "message.max.bytes of the connection",
    )
    demand_refused(ran, "rows-refused", says)
    assert not world.rows(out)


@pytest.mark.parametrize("more", [0, 1])
def test_the_largest_message_that_a_topic_takes_is_known_to_the_byte(more: int, world: World, tmp_path: Path) -> None:
    """The broker itself judges: who may not read the topic's settings is not stopped by us."""
    out = world.topic("out", **{"max.message.bytes": str(LIMIT)})
    from onefold.connectors.kafka.sizes import limits_of

    arguments = WAYS["PLAIN"](world)
    size = limits_of(of.kafka(**arguments).connection, LIMIT, is_keyed=False).size_bytes + more
    row = {"id": 1, "note": "x" * (size - len('{"id":1,"note":""}'))}
    summary = inwards(arguments, out, tmp_path, [row]).run(until="drained", state=tmp_path / "state")
    assert len(world.rows(out)) == 1 - more
    assert [error.code for error in summary.stopped_sinks.values()] == ["rows-refused"] * more


def test_where_the_topics_limit_is_not_told_rows_are_sent_one_by_one_and_a_large_one_waits(
    world: World, run: Callable[[of.Flow], Ran], tmp_path: Path
) -> None:
    out = world.topic("out", **{"max.message.bytes": str(LIMIT)})
    rows = [{"id": number, "note": "x" * 300} for number in range(50)]
    large = {"id": 50, "note": "x" * LIMIT}
    arguments = WAYS["PLAIN"](world)
    assert run(inwards(arguments, out, tmp_path, rows)).exit_code == Exit.OK
    assert world.rows(out) == rows
    ran = run(inwards(arguments, out, tmp_path, [*rows, large]))
    assert ran.exit_code == Exit.BEHIND, ran.shown
    assert "code: rows-refused" in ran.shown
    assert world.rows(out) == rows
    world.limit(out, 2 * LIMIT)
    assert run(inwards(arguments, out, tmp_path, [*rows, large])).exit_code == Exit.OK
    assert world.rows(out) == [*rows, large], "once the topic takes it, it is delivered, and once"


def _plain(world: World) -> Arguments:
    return {"brokers": world.broker.address}


# -------------------------------------------------------------------------------------------------------------- secrets


def test_the_search_for_secrets_finds_what_is_there(world: World, tmp_path: Path) -> None:
    """What a row holds stands in the journal: were a secret there, it would be found as well."""
    out = world.topic("out")
    inwards(_plain(world), out, tmp_path, [{"id": 1, "note": MARKER}]).run(until="drained", state=tmp_path / "state")
    assert any(MARKER in text for text in texts_below(tmp_path / "state").values())


def test_doctor_tells_what_is_refused_and_shows_no_secret(world: World, tmp_path: Path) -> None:
    topic = world.topic("held")
    _flows["doctored"] = through(WAYS["PLAIN"](world), topic, topic + "x", name="doctored")
    module = tmp_path / "module.py"
    module.write_text(f"from {__name__} import _flows\nflow = _flows['doctored']\n")
    result = invoke("doctor", module, "--state", tmp_path / "state")
    assert result.exit_code == Exit.FAILED, result.output
    assert f"does not let user alice use the topic {topic}" in result.output
    assert MARKER not in result.output


# --------------------------------------------------------------------------------------------------- the broker's end


def test_a_broker_dies_with_its_owner_even_if_that_is_killed() -> None:
    need((ROOT / ".services").exists(), "no jars of Kafka yet")
    code = "from services.kafka import Broker\nwith Broker() as b: print(b.address, b._path, flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        address, folder = owner.stdout.readline().split()
        host, port = address.split(":")
        with socket.create_connection((host, int(port)), SOON_SECONDS) as connected:
            owner.kill()
            with contextlib.suppress(ConnectionResetError):
                assert connected.recv(1) == b"", "the connection ends"
        deadline = time.monotonic() + SOON_SECONDS
        while answers(int(port)):
            assert time.monotonic() < deadline, "the broker lives on"
    subprocess.run(["rm", "-rf", folder], check=True)
