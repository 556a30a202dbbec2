"""One fork server for each worker."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from onefold.testing.harness import ForkServer


@pytest.fixture(scope="session")
def server() -> Iterator[ForkServer]:
    with ForkServer() as started:
        yield started
