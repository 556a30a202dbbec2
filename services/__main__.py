"""`make services`: start the servers, print their addresses, stop them at Ctrl-C. What is missing here is left out.

python -m services                    until Ctrl-C
python -m services COMMAND ARG…       while the command runs, with their addresses in its environment
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys

from services import iceberg, kafka, mariadb, postgres, registry
from services.jars import ServiceMissing

SERVERS = (kafka, registry, postgres, mariadb, iceberg)


def main() -> int:
    """See the module's docstring."""
    try:
        with contextlib.ExitStack() as running:
            found = _start_all(running)
            if not found:
                return 1
            if len(sys.argv) > 1:
                return subprocess.run(sys.argv[1:], env={**os.environ, **found}, check=False).returncode
            print("Ctrl-C stops them.", flush=True)
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            signal.pause()
    except KeyboardInterrupt:
        return 0
    return 0


def _start_all(running: contextlib.ExitStack) -> dict[str, str]:
    """The variables and addresses of those that are here; they end with the stack."""
    found = {}
    for each in SERVERS:
        try:
            found[each.VARIABLE] = running.enter_context(each.running())
            print(f"export {each.VARIABLE}={shlex.quote(found[each.VARIABLE])}", flush=True)
        except ServiceMissing as missing:
            print(f"without {each.VARIABLE}: {missing}", file=sys.stderr, flush=True)
    return found


if __name__ == "__main__":
    sys.exit(main())
