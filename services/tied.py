"""Becomes a server that does not outlive whoever asked for it, not even if that one is killed with SIGKILL.

python tied.py DESCRIPTOR USER COMMAND ARG…
    DESCRIPTOR: a socket whose other end only the owner holds; the watcher says its own number there
    USER:       uid:gid to run COMMAND as, or - for no change

A child watches the socket, while this process becomes COMMAND and keeps its number. Nothing of it is Linux's alone: a
parent-death signal would also end a server whose starting *thread* ends, and macOS has none. The user changes here and
not in the owner, so that Python and this file need not be readable for the server's user, and the watcher may end it.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

LOOK_SECONDS = 0.5
"""How soon the watcher notices that the server has ended by itself."""


def main() -> None:
    """See the module's docstring."""
    descriptor, user, command = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
    server = os.getpid()
    if os.fork() == 0:
        os.write(descriptor, str(os.getpid()).encode())
        watch(descriptor, server)
        os._exit(0)
    os.close(descriptor)
    if user != "-":
        uid, gid = user.split(":")
        os.setgroups([])
        os.setgid(int(gid))
        os.setuid(int(uid))
    os.execvp(command[0], command)


def watch(descriptor: int, server: int) -> None:
    """Until the server has ended, or its owner: then end the server. It is our parent as long as it lives, so its
    number cannot be another's."""
    while os.getppid() == server:
        ready, _, _ = select.select([descriptor], [], [], LOOK_SECONDS)
        if ready and os.getppid() == server:
            kill(server, watcher=os.getpid())
            return


def kill(server: int, *, watcher: int) -> list[int]:
    """SIGKILL for a server and its family, with no moment for one to react to the end of another. Who was killed."""
    found = stop(server, watcher=watcher)
    send(signal.SIGKILL, found)
    return found


def stop(server: int, *, watcher: int) -> list[int]:
    """SIGSTOP for a server and its family. The server first: from then on it starts no other. Who was stopped: who
    wants to end them must not ask again, since the children of a server that dies meanwhile are found no more."""
    send(signal.SIGSTOP, [server])
    found = family(server, watcher=watcher)
    send(signal.SIGSTOP, found)
    return [server, *found]


def send(number: signal.Signals, processes: list[int]) -> None:
    """A signal to each that is still there."""
    for each in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(each, number)


def family(server: int, *, watcher: int) -> list[int]:
    """The server's children and theirs, without the watcher. PostgreSQL's are no process group: each leads its own."""
    parents = living()
    found: list[int] = []
    youngest = {server}
    while youngest:
        youngest = {each for each, parent in parents.items() if parent in youngest and each != watcher}
        found += youngest
    return found


def living() -> dict[int, int]:
    """Every process and its parent. One that has ended is left out, even if nobody has waited for it yet."""
    if Path("/proc/self/stat").exists():
        lines = [_of_proc(path) for path in Path("/proc").glob("[0-9]*/stat")]
    else:
        listed = ["ps", "-A", "-o", "pid=", "-o", "ppid=", "-o", "stat="]
        lines = subprocess.run(listed, capture_output=True, text=True, check=True).stdout.splitlines()
    found = {}
    for number, parent, state in (line.split() for line in lines if line):
        if state[0] not in "ZX":
            found[int(number)] = int(parent)
    return found


def _of_proc(path: Path) -> str:
    """Number, parent and state, as ps tells them; "" if it is no more. The name before them may hold anything."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        state, parent, *_ = path.read_text("utf-8", "replace").rpartition(")")[2].split()
        return f"{path.parent.name} {parent} {state}"
    return ""


if __name__ == "__main__":
    main()
