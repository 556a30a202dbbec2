"""Becomes a server that does not outlive whoever asked for it, not even if that one is killed with SIGKILL.

python tied.py DESCRIPTOR COMMAND ARG…     DESCRIPTOR: the read end of a pipe whose other end only the owner holds

A child watches the pipe, while this process becomes COMMAND and keeps its number. Nothing of it is Linux's alone: a
parent-death signal would also end a server whose starting *thread* ends, and macOS has none.
"""

from __future__ import annotations

import os
import select
import signal
import sys

LOOK_SECONDS = 0.5
"""How soon the watcher notices that the server has ended by itself."""


def main() -> None:
    """See the module's docstring."""
    descriptor, command = int(sys.argv[1]), sys.argv[2:]
    server = os.getpid()
    if os.fork() == 0:
        watch(descriptor, server)
        os._exit(0)
    os.close(descriptor)
    os.execvp(command[0], command)


def watch(descriptor: int, server: int) -> None:
    """Until the server has ended, or its owner: then end the server. It is our parent as long as it lives, so its
    number cannot be another's."""
    while os.getppid() == server:
        ready, _, _ = select.select([descriptor], [], [], LOOK_SECONDS)
        if ready and os.getppid() == server:
            os.kill(server, signal.SIGKILL)
            return


if __name__ == "__main__":
    main()
