"""What tells one machine from another."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from onefold import clock

IOREG = """+-o J314sAP  <class IOPlatformExpertDevice, id 0x100000265, registered>
    {
      "IOPlatformSerialNumber" = "C02XXXXXXXXX"
      "IOPlatformUUID" = "8A2B64CD-0000-4F9A-9E0B-5D1C7A3E2F10"
    }
"""


@pytest.fixture
def without_machine_id(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """As on macOS and in slim containers."""

    def nothing(path: Path, **_: object) -> str:
        raise FileNotFoundError(path)

    monkeypatch.setattr(Path, "read_text", nothing)
    clock._platform_uuid.cache_clear()
    yield monkeypatch
    clock._platform_uuid.cache_clear()


def test_the_machine_id_is_the_machines_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: "0123abcd\n")
    assert clock.machine_name() == "0123abcd"


def test_without_a_machine_id_it_is_the_hosts_name(without_machine_id: pytest.MonkeyPatch) -> None:
    without_machine_id.setattr(sys, "platform", "linux")
    assert clock.machine_name() == socket.gethostname()


@pytest.mark.parametrize("told", [IOREG, ""])
def test_on_macos_it_is_the_platforms_uuid(without_machine_id: pytest.MonkeyPatch, told: str) -> None:
    without_machine_id.setattr(sys, "platform", "darwin")
    without_machine_id.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 0, told))
    assert clock.machine_name() == ("8A2B64CD-0000-4F9A-9E0B-5D1C7A3E2F10" if told else socket.gethostname())


def test_on_a_macos_without_ioreg_it_is_the_hosts_name(without_machine_id: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise FileNotFoundError

    without_machine_id.setattr(sys, "platform", "darwin")
    without_machine_id.setattr(subprocess, "run", fails)
    assert clock.machine_name() == socket.gethostname()
