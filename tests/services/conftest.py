"""One broker for each worker, named in the environment, so that the processes under test find it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from onefold.testing.harness import ForkServer
from services import kafka
from services.jars import ServiceMissing


@pytest.fixture(scope="session")
def cluster() -> Iterator[str]:
    try:
        with kafka.running() as address:
            os.environ[kafka.VARIABLE] = address
            yield address
    except ServiceMissing as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def server(cluster: str) -> Iterator[ForkServer]:
    with ForkServer() as started:
        yield started
