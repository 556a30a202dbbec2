"""Libraries that do not survive a fork, anew in the child."""

from __future__ import annotations

import atexit
import functools
import shutil
import sys
import tempfile
from pathlib import Path


@functools.cache
def copy_of_deltalake() -> str:
    """A folder with a copy of deltalake: its runtime knows the process that began it, and refuses every other.

    Loaded from another file it is another library, with a runtime of its own.
    """
    import deltalake

    folder = Path(tempfile.mkdtemp(prefix="onefold-deltalake-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    shutil.copytree(Path(deltalake.__file__).parent, folder / "deltalake")
    return str(folder)


def deltalake_anew() -> None:
    """In a child: what imports deltalake from now on gets the copy."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "deltalake"]:
        del sys.modules[name]
    sys.path.insert(0, copy_of_deltalake())
