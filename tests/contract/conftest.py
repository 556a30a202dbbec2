"""Waits that are long in production are short here."""

from __future__ import annotations

import pytest

from onefold.connectors.sqlite import sink


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sink, "BUSY_SECONDS", 0.1)
