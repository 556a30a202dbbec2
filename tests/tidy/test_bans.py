"""What the simulator, the crash tests and a reader must be able to rely on is not gone around."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.tidy import house
from tests.tidy.house import BANNED, WRITES_FILES

Finding = tuple[int, str]
BROAD = {"Exception", "BaseException"}


def full_names(tree: ast.Module) -> Iterator[Finding]:
    """Every name used or imported, written out in full whatever it was imported as."""
    known = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
                known[alias.asname or alias.name.split(".")[0]] = (
                    alias.name if alias.asname else alias.name.split(".")[0]
                )
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                yield node.lineno, f"{node.module}.{alias.name}"
                known[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute | ast.Name):
            first, *rest = ast.unparse(node).split(".")
            if first in known:
                yield node.lineno, ".".join([known[first], *rest])


def around_ports(inside: str, tree: ast.Module) -> Iterator[Finding]:
    for line, name in full_names(tree):
        for pattern, (reason, ports) in BANNED.items():
            if re.fullmatch(pattern, name) and inside not in ports:
                yield line, f"{name}: {reason}"


def file_writes(inside: str, tree: ast.Module) -> Iterator[Finding]:
    if inside.startswith(tuple(WRITES_FILES)):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func).rsplit(".", 1)[-1]
            given = node.args[1:] if isinstance(node.func, ast.Name) else node.args
            given = [*given, *(keyword.value for keyword in node.keywords if keyword.arg == "mode")]
            modes = [value.value for value in given if isinstance(value, ast.Constant)]
            writes = any(re.fullmatch(r"[rwaxbt+]{1,4}", str(mode)) and set(mode) & set("wax+") for mode in modes)
            if (name == "open" and writes) or name in {"write_text", "write_bytes"}:
                yield node.lineno, f"{name}: files are written through onefold.disk"


def asserts(_: str, tree: ast.Module) -> Iterator[Finding]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Assert):
            yield node.lineno, "assert: python -O strips it; use onefold.errors.check"
        if isinstance(node, ast.Name) and node.id == "NotImplementedError":
            yield node.lineno, "NotImplementedError: what exists works"


def swallowed(_: str, tree: ast.Module) -> Iterator[Finding]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler):
            inner = [child for statement in node.body for child in ast.walk(statement)]
            is_used = any(isinstance(child, ast.Name) and child.id == node.name for child in inner)
            is_broad = node.type is None or bool(BROAD & {n.id for n in ast.walk(node.type) if isinstance(n, ast.Name)})
            if is_broad and not is_used and not any(isinstance(child, ast.Raise) for child in inner):
                yield node.lineno, "a broad except that neither raises nor keeps the exception"
            if all(isinstance(child, ast.Pass) or ast.unparse(child) == "..." for child in node.body):
                yield node.lineno, "an except that does nothing; contextlib.suppress names what may happen"
        elif (
            isinstance(node, ast.Call)
            and ast.unparse(node.func).endswith("suppress")
            and BROAD & {ast.unparse(argument) for argument in node.args}
        ):
            yield node.lineno, "suppress of everything"


RULES: tuple[Callable[[str, ast.Module], Iterator[Finding]], ...] = (around_ports, file_writes, asserts, swallowed)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_source_keeps(rule: Callable[[str, ast.Module], Iterator[Finding]]) -> None:
    found = [f"{m.name}:{line} {what}" for m in house.source() for line, what in rule(m.inside, m.tree)]
    assert found == []


@pytest.mark.parametrize(
    ("rule", "code"),
    [
        (around_ports, "import time as t\nt.monotonic()"),
        (around_ports, "from time import sleep"),
        (around_ports, "from datetime import datetime\nx = datetime.now()"),
        (around_ports, "import random"),
        (around_ports, "import numpy as np\nnp.random.default_rng(1)"),
        (around_ports, "from uuid import uuid4"),
        (around_ports, "import os\nos.fsync(3)"),
        (around_ports, "from pickle import dumps"),
        (file_writes, "open('a', 'w')"),
        (file_writes, "open('a', mode='ab')"),
        (file_writes, "path.open('x')"),
        (file_writes, "path.write_text('a')"),
        (asserts, "assert x"),
        (asserts, "raise NotImplementedError"),
        (swallowed, "try:\n  f()\nexcept Exception:\n  log()"),
        (swallowed, "try:\n  f()\nexcept OSError:\n  pass"),
        (swallowed, "with contextlib.suppress(Exception):\n  f()"),
    ],
)
def test_the_rule_sees(rule: Callable[[str, ast.Module], Iterator[Finding]], code: str) -> None:
    assert list(rule("journal.py", ast.parse(code)))


@pytest.mark.parametrize(
    ("rule", "code"),
    [
        (around_ports, "from datetime import datetime\ndatetime.fromisoformat(x)\ntime = 1\nprint(time)"),
        (file_writes, "open('w')  # a name, not a mode\nopen('data.csv', 'rb')\npath.open()"),
        (swallowed, "try:\n  f()\nexcept Exception as error:\n  raise SinkError from error"),
        (swallowed, "with contextlib.suppress(FileNotFoundError):\n  f()"),
    ],
)
def test_the_rule_lets_pass(rule: Callable[[str, ast.Module], Iterator[Finding]], code: str) -> None:
    assert list(rule("journal.py", ast.parse(code))) == []


def test_names_say_what_a_thing_is() -> None:
    vague = []
    for module in house.modules("src", "spec", "benchmarks", "examples"):
        named = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        names = [(node.lineno, node.name) for node in ast.walk(module.tree) if isinstance(node, named)]
        names.append((1, module.path.stem))
        vague += [f"{module.name}:{line} {name}" for line, name in names if set(house.words(name)) & house.BANNED_WORDS]
    assert vague == []


# ----------------------------------------------------------------------------------------------------- all text files

TEXT = {".py", ".pyx", ".pxd", ".pyi", ".md", ".toml", ".yml", ".yaml", ".json", ".sh", ".sql", ".html", ".txt", ""}
UNFINISHED = re.compile(r"\b(" + "|".join(["TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK"]) + r")\b")
MACHINE = re.compile(
    r"(?<![\w.])/(work|root|home/\w+|Users/\w+)/"
    r"|\b(pypi\.(org|python\.org)|pythonhosted\.org|npmjs\.(org|com)|registry\.\w+\.\w+|crates\.io)\b"
)


def texts() -> Iterator[tuple[Path, str]]:
    for path in house.files():
        if path.suffix in TEXT and path != Path(__file__).resolve():
            yield path, path.read_text("utf-8")


def found(pattern: re.Pattern[str]) -> list[str]:
    return [
        f"{path.relative_to(house.ROOT)}:{number} {match.group()}"
        for path, text in texts()
        for number, line in enumerate(text.splitlines(), 1)
        if (match := pattern.search(line))
    ]


def test_nothing_is_left_for_later() -> None:
    assert found(UNFINISHED) == []


def test_no_file_names_a_machine_or_a_registry() -> None:
    assert found(MACHINE) == []
