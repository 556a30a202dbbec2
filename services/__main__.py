"""`make services`: start the servers, print their addresses, stop them at Ctrl-C.

python -m services                    until Ctrl-C
python -m services COMMAND ARG…       while the command runs, with their addresses in its environment
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from services import kafka, registry
from services.jars import ServiceMissing


def main() -> int:
    """See the module's docstring."""
    try:
        with kafka.running() as address, registry.running() as registry_address:
            found = {kafka.VARIABLE: address, registry.VARIABLE: registry_address}
            for name, value in found.items():
                print(f"export {name}={value}", flush=True)
            if len(sys.argv) > 1:
                return subprocess.run(sys.argv[1:], env={**os.environ, **found}, check=False).returncode
            print("Ctrl-C stops them.", flush=True)
            signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGINT))
            signal.pause()
    except KeyboardInterrupt:
        return 0
    except ServiceMissing as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
