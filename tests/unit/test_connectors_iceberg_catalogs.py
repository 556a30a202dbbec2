"""Catalogs that lose answers, answer late, or hang: what is unknown is read back, and nothing comes twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import onefold as of
from onefold.connectors.iceberg import commits, iceberg, rest
from onefold.errors import OutcomeUnknown, SettingMissing, SinkRefused, SinkUnavailable, TokenRefused
from onefold.testing.contract_case import SinkBench, SinkCase, move, numbered, token
from onefold.testing.contracts import sink_contracts
from tests.unit.rest_catalog_fake import Fault, RestCatalogServer


@pytest.fixture
def server(tmp_path: Path) -> Any:
    with RestCatalogServer(tmp_path) as started:
        yield started


def bench_of(server: RestCatalogServer) -> SinkBench:
    case = SinkCase("rest", lambda folder, table, mode, key: iceberg(("db", table), server.catalog).as_sink(mode, key))
    return SinkBench(case, server.folder)


@pytest.mark.parametrize("status", [500, 502, 503, 504])
@pytest.mark.parametrize("lands", [True, False])
def test_a_lost_answer_is_read_back_and_decided_by_the_token(
    status: int, lands: bool, server: RestCatalogServer
) -> None:
    bench = bench_of(server)
    sink, _ = bench.instance()
    receipt = bench.prepare(sink, 1, numbered(1))
    server.faults = [Fault(lands, status)]
    with pytest.raises(OutcomeUnknown):
        sink.commit([receipt], move(0, 1))
    sink.close()
    found = sink.open(bench.binding())
    assert found == (token(1) if lands else None)
    if not lands:
        sink.commit([receipt], move(0, 1))
    table, held = sink.read_back(bench.binding())  # type: ignore[attr-defined]
    assert (table.to_pylist(), held) == (numbered(1), token(1))


def test_a_catalog_that_hangs_is_given_up_and_what_it_did_later_is_refused(
    server: RestCatalogServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rest, "REQUEST_SECONDS", 5.0)  # a busy machine answers all else in less
    bench = bench_of(server)
    sink, _ = bench.instance()
    receipt = bench.prepare(sink, 1, numbered(1))
    server.faults = [Fault(lands=False)]
    with pytest.raises(OutcomeUnknown):
        sink.commit([receipt], move(0, 1))
    sink.close()
    assert sink.open(bench.binding()) is None
    server.faults = [Fault(lands=True)]
    with pytest.raises(OutcomeUnknown):
        sink.commit([receipt], move(0, 1))
    sink.close()
    assert sink.open(bench.binding()) == token(1)


def test_a_commit_that_landed_and_was_then_refused_as_a_repetition_is_known_to_have_landed(
    server: RestCatalogServer,
) -> None:
    """A proxy sent it twice: 409 alone would say that nothing was written."""
    bench = bench_of(server)
    sink, _ = bench.instance()
    server.faults = [Fault(lands=True, status=409)]
    sink.commit([bench.prepare(sink, 1, numbered(1))], move(0, 1))
    table, held = sink.read_back(bench.binding())  # type: ignore[attr-defined]
    assert (table.to_pylist(), held) == (numbered(1), token(1))


def test_a_catalog_that_always_refuses_makes_the_sink_unavailable(
    server: RestCatalogServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commits, "RETRY_SECONDS", 0.0)
    bench = bench_of(server)
    sink, _ = bench.instance()
    server.faults = [Fault(lands=False, status=409)] * commits.MOST_TRIES
    with pytest.raises(SinkUnavailable):
        sink.commit([bench.prepare(sink, 1, numbered(1))], move(0, 1))


def test_what_an_older_instance_has_under_way_at_a_rest_catalog_is_refused(server: RestCatalogServer) -> None:
    bench = bench_of(server)
    old, _ = bench.instance(1)
    receipt = bench.prepare(old, 1, numbered(1))
    bench.instance(2)
    with pytest.raises(TokenRefused):
        old.commit([receipt], move(0, 1))


def test_a_catalog_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    catalog = {"type": "rest", "uri": "http://127.0.0.1:9"}
    case = SinkCase("rest", lambda folder, table, mode, key: iceberg(("db", table), catalog).as_sink(mode, key))
    with pytest.raises(SinkUnavailable):
        SinkBench(case, tmp_path).instance()


def test_secrets_and_settings_do_not_show(tmp_path: Path) -> None:
    catalog = {"type": "rest", "uri": "https://u:${LAKE_PASSWORD}@lake/api", "credential": "${LAKE_SECRET}"}
    made = of.iceberg("db.t", catalog)
    sink = made.as_sink("append", ())
    assert made.label == "iceberg(db.t, https://u:${LAKE_PASSWORD}@lake/api)"
    assert "PASSWORD" not in sink.promise.target
    plain = of.iceberg("db.t", {"type": "sql", "uri": "postgresql://u:secret@lake/db"})
    assert "secret" not in plain.label + plain.as_sink("append", ()).promise.target
    with pytest.raises(SettingMissing):
        SinkBench(SinkCase("rest", lambda *_: sink), tmp_path).instance()


def test_a_catalog_that_lacks_what_it_needs_is_refused(tmp_path: Path) -> None:
    made = of.iceberg("db.t", {"type": "sql", "uri": f"sqlite:///{tmp_path}/c.sqlite"})
    with pytest.raises(SinkRefused):
        SinkBench(SinkCase("no warehouse", lambda *_: made.as_sink("append", ())), tmp_path).instance()


REST_CONTRACTS = (
    "the_token_comes_back_with_its_positions-append",
    "the_first_move_is_insert_if_absent-append",
    "a_refused_move_leaves_nothing-append",
    "a_receipt_is_enough_on_another_instance-append",
    "deletes_remove_the_key-upsert",
    "handles_are_listed_until_decided-append",
)


@pytest.mark.parametrize("name", REST_CONTRACTS)
def test_a_rest_catalog_keeps(name: str, server: RestCatalogServer, tmp_path: Path) -> None:
    case = SinkCase(
        "rest", lambda folder, table, mode, key: iceberg(("db", table), server.catalog).as_sink(mode, key), fences=True
    )
    [contract] = [contract for contract in sink_contracts(case) if contract.name == name]
    contract.run(tmp_path)
