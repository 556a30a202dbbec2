"""Time and randomness, the ports through which alone they come in (so that tests can replace them)."""

from __future__ import annotations

import functools
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from onefold.types import SealId

__all__ = ["SystemClock", "machine_name", "new_key", "new_seal_id"]

ASK_SECONDS = 5.0


class SystemClock:
    """The machine's clock. Paces and informs; never decides correctness."""

    def monotonic(self) -> float:
        """Seconds since some moment; never goes back."""
        return time.monotonic()

    def now(self) -> float:
        """Seconds since 1970, UTC."""
        return time.time()


def new_seal_id() -> SealId:
    """128 random bits: two histories never draw the same."""
    return SealId(secrets.token_hex(16))


def new_key() -> bytes:
    """A 16-byte key for the hash of state keys, secret to the flow, so that nobody can craft collisions."""
    return secrets.token_bytes(16)


def machine_name() -> str:
    """Something that differs between machines: the machine id (on macOS the platform's UUID), else the host's name."""
    for path in (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id")):
        try:
            text = path.read_text(encoding="ascii").strip()
        except OSError:
            continue
        if text:
            return text
    found = _platform_uuid() if sys.platform == "darwin" else ""
    return found or socket.gethostname()


@functools.cache
def _platform_uuid() -> str:
    """Of macOS; "" when it cannot be had. Asked of a program, because there is no file that has it."""
    command = ["/usr/sbin/ioreg", "-rd1", "-c", "IOPlatformExpertDevice"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=ASK_SECONDS, check=False).stdout  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return ""
    found = re.search(r'"IOPlatformUUID" = "([^"]+)"', told)
    return found[1] if found else ""


def process_name() -> dict[str, str | int]:
    """Who runs: for the lock file and the start record."""
    return {"pid": os.getpid(), "host": socket.gethostname()}


def process_is_alive(named: Mapping[str, str | int]) -> bool:
    """Whether a process_name of this machine belongs to one that runs; not one that was killed and is being taken down.

    False where nobody can tell: on another machine, without /proc, or when it gave no name.
    """
    pid = named.get("pid")
    if named.get("host") != socket.gethostname() or not isinstance(pid, int):
        return False
    try:
        lines = Path(f"/proc/{pid}/status").read_text("utf-8", "replace").splitlines()
    except OSError:
        return False
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    if fields.get("State", "").split()[:1] in (["Z"], ["X"], ["x"], []):
        return False
    pending = int(fields.get("SigPnd", "0"), 16) | int(fields.get("ShdPnd", "0"), 16)
    return not pending >> (signal.SIGKILL - 1) & 1 and "VmSize" in fields
