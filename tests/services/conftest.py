"""One broker for each worker, named in the environment, so that the processes under test find it."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from onefold.connectors.hudi.jars import JARS
from onefold.testing.harness import ForkServer
from services import hudi, kafka, mariadb, postgres
from services.jars import ServiceMissing
from services.secured import SecuredBroker
from tests.needs import need
from tests.services.s3_server import S3
from tests.services.secured_kafka import PASSWORDS, World
from tests.stage import Count, Stage


@pytest.fixture(scope="session")
def cluster() -> Iterator[str]:
    try:
        with kafka.running() as address:
            os.environ[kafka.VARIABLE] = address
            yield address
    except ServiceMissing as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def database() -> Iterator[str]:
    try:
        with postgres.running() as url:
            os.environ[postgres.VARIABLE] = url
            yield url
    except ServiceMissing as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def mysql_database() -> Iterator[str]:
    try:
        with mariadb.running() as url:
            os.environ[mariadb.VARIABLE] = url
            yield url
    except ServiceMissing as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="module")
def s3_server() -> Iterator[S3]:
    need(importlib.util.find_spec("moto") is not None, "no moto[server]")
    with S3() as server:
        yield server


@pytest.fixture
def s3(s3_server: S3) -> Iterator[S3]:
    """Nothing is lost in it any more when a test has ended."""
    yield s3_server
    s3_server.mend()


@pytest.fixture(scope="session")
def hudi_jars() -> str:
    """Where Hudi's jars are; named in the environment, for processes that start a machine of their own."""
    try:
        os.environ[JARS] = hudi.fetched()
    except ServiceMissing as missing:
        pytest.skip(str(missing))
    return os.environ[JARS]


@pytest.fixture(scope="session")
def hudi_machine(hudi_jars: str) -> Iterator[str]:
    """A Java process that outlives those that are killed."""
    with hudi.running() as told:
        os.environ[hudi.VARIABLE] = told
        yield told
        del os.environ[hudi.VARIABLE]


@pytest.fixture(scope="session")
def hudi_server(hudi_machine: str) -> Iterator[ForkServer]:
    with ForkServer() as started:
        yield started


@pytest.fixture(scope="session")
def server(cluster: str) -> Iterator[ForkServer]:
    with ForkServer() as started:
        yield started


@pytest.fixture
def stage(server: ForkServer, tmp_path: Path, schedules: Count, seed: int) -> Stage:
    """Flows over Kafka; modules about other servers have stages of their own."""
    return Stage(tmp_path, server, schedules, seed)


@pytest.fixture
def database_stage(database_server: ForkServer, tmp_path: Path, schedules: Count, seed: int) -> Stage:
    """Flows over PostgreSQL."""
    return Stage(tmp_path, database_server, schedules, seed)


@pytest.fixture(scope="session")
def database_server(database: str) -> Iterator[ForkServer]:
    with ForkServer() as started:
        yield started


@pytest.fixture(scope="session")
def mysql_server(mysql_database: str) -> Iterator[ForkServer]:
    with ForkServer() as started:
        yield started


@pytest.fixture(scope="session")
def both_server(database: str, mysql_database: str) -> Iterator[ForkServer]:
    with ForkServer() as started:
        yield started


@pytest.fixture(scope="session")
def world() -> Iterator[World]:
    """A secured broker; alice may do what a flow needs with topics in-… and out-…"""
    try:
        with SecuredBroker(PASSWORDS) as broker:
            made = World(broker)
            grants = [("topic", "in-*", "READ"), ("group", "onefold.*", "READ"), ("topic", "out-*", "READ")]
            grants += [("topic", "out-*", "WRITE"), ("transactional_id", "onefold.*", "WRITE")]
            for user in ("alice", "locked"):
                made.grant(user, *grants)
            yield made
    except ServiceMissing as missing:
        pytest.skip(str(missing))
