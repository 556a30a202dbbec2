"""The house rules as one table, and the tree they are kept on. The other files of this folder only compare."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "onefold"

# ------------------------------------------------------------------------------------------------------------- sizes

MODULE_LINES = 600
MODULE_LINES_USUAL = 400
FUNCTION_LINES = 70  # docstring aside
POSITIONAL_PARAMETERS = 5  # self and cls aside; more are keyword-only

LONG_MODULES: dict[str, str] = {
    "src/onefold/errors.py": "the tree of all errors, a few lines a class, read beside its drawing",
    "src/onefold/formats/exact.py": "one table of rules, one converter a type, read side by side",
}
"""Modules of src and spec between the usual and the largest size, each with the reason why it is not two."""

# ----------------------------------------------------------------------------------------------------------- imports

LAYERS: tuple[frozenset[str], ...] = tuple(
    frozenset(layer.split())
    for layer in (
        "types errors",
        "protocols durations settings",
        "epoch course steps chain records plan flow books",
        "journal spool formats state operators connectors",
        "guarantee audit finding",
        "engines",
        "testing verify",
        "cli dashboard __main__",
    )
)
"""A part sees the parts of earlier lines, and none of its own line but those named in BESIDE."""

BESIDE = {
    ("types", "errors"),
    ("steps", "chain"),
    ("course", "chain"),
    ("course", "steps"),
    ("epoch", "chain"),
    ("epoch", "course"),
    ("epoch", "steps"),
    ("records", "chain"),
    ("flow", "plan"),
    ("books", "plan"),
    ("operators", "state"),
    ("operators", "formats"),
    ("connectors", "formats"),
    ("cli", "dashboard"),
    ("__main__", "cli"),
}

PORTS: dict[str, frozenset[str]] = {
    "disk": frozenset({"journal", "spool", "state", "connectors", "engines", "testing", "verify", "cli"}),
    "kernel": frozenset({"state", "books", "operators", "formats"}),
    "clock": frozenset({"connectors", "journal", "engines", "testing", "verify", "cli", "dashboard"}),
}
"""Doors to the outside, and who may use them. They themselves see types, errors and protocols."""

CONNECTORS_SHARE = frozenset({"addresses", "databases", "preparing", "sifting", "slicing", "spooling", "staging"})
"""Modules of connectors/ that are no connector: the others may see them, and they see no connector."""

SEES_ONLY: dict[str, frozenset[str]] = {
    "guarantee": frozenset({"types", "errors", "protocols", "flow", "plan"}),
    "audit": frozenset(
        {
            "types",
            "errors",
            "protocols",
            "flow",
            "plan",
            "books",
            "records",
            "journal",
            "spool",
            "formats",
            "connectors",
        }
    ),
}
"""Judges: they must not share the code that they judge."""

LATE: dict[str, frozenset[str]] = {
    "flow": frozenset({"formats", "engines", "guarantee", "verify", "audit"}),
}
"""Imports inside functions only: `read` makes a format and `flow.run()` an engine, which stand on the plan."""

# -------------------------------------------------------------------------------------------------------------- bans

BANNED: dict[str, tuple[str, frozenset[str]]] = {
    r"time\.(time|monotonic|perf_counter|process_time)(_ns)?": ("time comes from a Clock", frozenset({"clock.py"})),
    r"(time|asyncio)\.sleep": ("waits are bounded and woken; see Clock", frozenset({"clock.py"})),
    r"datetime\.(datetime|date)\.(now|utcnow|today)": ("time comes from a Clock", frozenset({"clock.py"})),
    r"(random|secrets|numpy\.random)(\..+)?": ("randomness comes from a parameter", frozenset({"clock.py"})),
    r"uuid\.uuid[14]|os\.urandom": ("randomness comes from a parameter", frozenset({"clock.py"})),
    r"os\.(fsync|fdatasync|rename|replace|link)|shutil\.move": (
        "durable steps go through disk",
        frozenset({"disk.py"}),
    ),
    r"(pickle|marshal|shelve|dill|cloudpickle|joblib)(\..+)?": ("state is Arrow IPC and JSON", frozenset()),
}
"""Pattern of a full name -> why, and the files of src/onefold that are its port."""

WRITES_FILES: dict[str, str] = {
    "disk.py": "the port itself",
    "cli/": "`init` and `demo` make files of the user's project, which are not onefold's state",
}
"""Where files may be opened for writing, and why."""

BANNED_WORDS = frozenset(
    {"manager", "managers", "helper", "helpers", "util", "utils", "handler", "handlers", "data", "info"}
)

WORDS = (
    "flow", "stream", "source", "sink", "partition", "lane", "position", "batch", "epoch", "plan", "fingerprint",
    "prepare", "receipt", "seal", "deliver", "token", "settle", "incarnation", "journal", "spool", "state",
    "event time", "watermark", "late", "dead letter", "effect", "intent", "attempt", "outcome", "books", "digest",
    "guarantee", "at-most-once", "at-least-once", "exactly-once", "condition",
)  # fmt: skip
"""The words with one meaning each; docs/explanation/glossary.md says which."""

# ---------------------------------------------------------------------------------------------------------- the tree


@dataclass(frozen=True)
class Module:
    """A Python file of the repository, read and parsed."""

    path: Path
    text: str
    tree: ast.Module

    @property
    def name(self) -> str:
        return self.path.relative_to(ROOT).as_posix()

    @property
    def inside(self) -> str:
        """The path inside src/onefold."""
        return self.path.relative_to(PACKAGE).as_posix()

    @property
    def part(self) -> str:
        """The part of onefold that it belongs to: `journal`, `connectors`, …; "" for onefold/__init__.py itself."""
        first = self.path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        return "" if first == "__init__" else first


@functools.cache
def files() -> tuple[Path, ...]:
    """Every file that is, or would be, committed."""
    if (ROOT / ".git").exists():
        command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
        paths = [ROOT / name for name in listed.split("\0") if name]
    else:  # a source archive
        made = re.compile(r"(^|/)(\.[^/]+|build|dist|__pycache__|[^/]+\.egg-info)/|\.(so|c|pyc)$")
        paths = [path for path in ROOT.rglob("*") if not made.search(path.relative_to(ROOT).as_posix())]
    return tuple(sorted(path for path in paths if path.is_file()))


@functools.cache
def modules(*folders: str) -> tuple[Module, ...]:
    """The Python files below these folders of the repository."""
    found = []
    for path in files():
        name = path.relative_to(ROOT).as_posix()
        if path.suffix == ".py" and name.startswith(tuple(f"{folder}/" for folder in folders)):
            text = path.read_text("utf-8")
            found.append(Module(path, text, ast.parse(text, name)))
    return tuple(found)


def source() -> tuple[Module, ...]:
    """The modules of onefold itself."""
    return modules("src/onefold")


def functions(module: Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function and method of a module, nested ones included."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def words(identifier: str) -> list[str]:
    """The words of a name in either case style: `HTTPServerInfo` and `http_server_info` have the same."""
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", identifier)]
