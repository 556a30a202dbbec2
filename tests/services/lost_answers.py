"""What holds of every table in a store, whatever answers are lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from onefold.errors import OutcomeUnknown, SinkUnavailable
from onefold.testing.contract_case import SinkBench, move, numbered, token
from tests.services.s3_server import S3


def lands_once(bench: SinkBench, s3: S3, lose: Callable[[], Any]) -> None:
    """A commit is carried out, and its answer is lost. lose: says which."""
    ours, _ = bench.instance()
    receipt = bench.prepare(ours, 1, numbered(1, 2))
    lose()
    try:
        ours.commit([receipt], move(0, 1))
    except OutcomeUnknown:
        assert ours.open(bench.binding()) == token(1), "it had landed"
    assert s3.mend() == 1
    assert (bench.ids(), bench.look()[1]) == ([1, 2], token(1))
    ours.commit([bench.prepare(ours, 2, numbered(3))], move(1, 2))
    assert bench.ids() == [1, 2, 3]


def is_none_while_the_store_is_down(bench: SinkBench, s3: S3, deciding: str) -> None:
    """A commit is refused, then everything. deciding: a pattern of the request that decides."""
    ours, _ = bench.instance()
    receipt = bench.prepare(ours, 1, numbered(1))
    s3.refuse(503, within=deciding, method="PUT")
    with pytest.raises(OutcomeUnknown):
        ours.commit([receipt], move(0, 1))
    s3.refuse(503)
    with pytest.raises(SinkUnavailable):
        ours.open(bench.binding())
    s3.mend()
    assert ours.open(bench.binding()) is None
    ours.commit([receipt], move(0, 1))
    assert bench.ids() == [1]
