"""The command line in processes of their own that are forked from one that has imported everything: a start in
milliseconds. A command can be killed at a durable step.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

PRINTED = "printed.txt"
"""What the commands of a folder print."""

QUIET = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
QUIET |= dict.fromkeys(("JE_ARROW_MALLOC_CONF", "_RJEM_MALLOC_CONF"), "background_thread:false")


class Commands:
    """A context manager; `onefold` runs a command in a folder and gives its exit code, a signal's with a minus."""

    def __enter__(self) -> Self:
        paths = {"PYTHONPATH": os.pathsep.join(path or "." for path in sys.path)}
        command = [sys.executable, "-m", "tests.crash.forked_commands"]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, **QUIET, **paths}, text=True
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate(timeout=30)

    def onefold(self, folder: Path, *words: str, killed_at: int = 0) -> int:
        """killed_at: before or after so many durable steps, each counted twice."""
        return self._ask([str(folder), words, killed_at])

    def one_epoch(self, folder: Path) -> int:
        """Of flow.py, and a clean stop."""
        return self._ask([str(folder), [], 0])

    def _ask(self, order: list[Any]) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(order), file=self._process.stdin, flush=True)
        return int(self._process.stdout.readline())


# ------------------------------------------------------------------------------------------------------ the other end


def _import_everything() -> None:
    """Also what the libraries import when they are first used: most of a short command's time."""
    import _strptime  # noqa: F401
    import concurrent.futures.thread  # noqa: F401

    import pandas  # noqa: F401

    import onefold.cli.group
    import onefold.cli.recover
    import onefold.cli.run
    import onefold.connectors.files
    import onefold.connectors.sqlite
    import onefold.engines.embedded.inline
    import onefold.engines.embedded.runner
    import onefold.formats.raw
    import onefold.formats.schema  # noqa: F401


def _become(folder: str, words: list[str], killed_at: int) -> None:
    from onefold import disk
    from onefold.cli.group import main

    met = 0

    def observe(step: str, moment: str) -> None:
        nonlocal met
        met += 1
        if met == killed_at:
            os.kill(os.getpid(), signal.SIGKILL)

    printed = os.open(Path(folder) / PRINTED, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(printed, 1)
    os.dup2(printed, 2)
    os.chdir(folder)
    disk.observer = observe
    if words:
        main(words)
    else:
        _one_epoch()


def _one_epoch() -> None:
    from onefold.engines.embedded.inline import InlineRun, ManualClock
    from onefold.finding import find_flow

    plan = find_flow("flow.py").flow.plan
    outputs = {output.name: output for output in plan.outputs}
    run = InlineRun(plan, Path(".onefold/flow"), outputs, clock=ManualClock(time.time()))
    run.begin()
    run.step()
    run.stop()


def _ended(order: list[Any]) -> int:
    """The exit code of the command."""
    try:
        _become(*order)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - a process ends so
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
        return 70
    return 0


def main() -> None:
    """Serve until the input ends."""
    _import_everything()
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            code = _ended(json.loads(line))
            sys.stdout.flush()
            os._exit(code)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
