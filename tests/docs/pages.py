"""Runs the code of a page as a reader would: from top to bottom, in an empty folder.

    ```python title="flow.py"    becomes that file
    ```python                    runs; with >>> its output is compared
    ```console                   each `$ command` runs, and must print the lines below it, in that order; … stands for
                                 anything; `# exit code 3` behind a command is what it must end with, else 0
    ```text                      is shown only: a log, a file's content
Other kinds of blocks are not allowed, so that nothing escapes.
"""

from __future__ import annotations

import doctest
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click.testing import CliRunner

import onefold
from onefold.cli.group import main

ROOT = Path(__file__).resolve().parents[2]
_BLOCK = re.compile(r"^```(\w*)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_COMMAND = re.compile(r"^\$ (.*?)(?:\s+# exit code (\d+))?$")
_SHELL = set("|&;<>*$`(){}\\")


@dataclass(frozen=True)
class Block:
    kind: str
    title: str | None
    body: str
    line: int


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text("utf-8")
    for match in _BLOCK.finditer(text):
        title = re.search(r'title="([^"]+)"', match[2])
        yield Block(match[1], title[1] if title else None, match[3], text.count("\n", 0, match.start()) + 1)


def pages() -> list[Path]:
    """Every page with code in it."""
    every = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "spec").glob("*.md")]
    return sorted(path for path in every if _BLOCK.search(path.read_text("utf-8")))


class Reader:
    """Someone who types everything. folder: where they are."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.names: dict[str, Any] = {"__name__": "page"}

    def read(self, page: Path) -> None:
        for block in blocks(page):
            where = f"{page.relative_to(ROOT)}:{block.line}"
            os.chdir(self.folder)
            if block.kind == "console":
                self._type(block.body, where)
            elif block.kind == "python" and block.title:
                (self.folder / block.title).write_text(block.body)
            elif block.kind == "python" and ">>>" in block.body:
                self._doctest(block.body, where)
            elif block.kind == "python":
                exec(compile(block.body, where, "exec"), self.names)
            elif block.kind != "sql":  # tests/services run it on a server
                assert block.kind == "text", f"{where}: nobody runs a block of kind {block.kind!r}"

    def _doctest(self, body: str, where: str) -> None:
        test = doctest.DocTestParser().get_doctest(body, self.names, where, where, 0)
        runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE, verbose=False)
        runner.run(test, clear_globs=False)
        self.names.update(test.globs)
        assert runner.failures == 0, f"{where}: an example does not hold (see above)"

    def _type(self, body: str, where: str) -> None:
        command, code, shown = "", 0, list[str]()
        for line in [*body.splitlines(), "$ true"]:
            match = _COMMAND.match(line)
            if match is None:
                shown.append(line)
                continue
            if command:
                self._run(command, code, shown, where)
            command, code, shown = match[1], int(match[2] or 0), []

    def _run(self, command: str, code: int, shown: list[str], where: str) -> None:
        os.chdir(self.folder)
        if command.startswith("onefold ") and not _SHELL & set(command):
            result = CliRunner().invoke(main, shlex.split(command)[1:])
            output, status = result.output, result.exit_code
        else:
            output, status = self._in_shell(command)
        assert status == code, f"{where}: `{command}` ended with {status}\n{output}"
        missing = first_missing(shown, output)
        assert missing is None, f"{where}: `{command}` did not print {missing!r}, but\n{output}"

    def _in_shell(self, command: str) -> tuple[str, int]:
        """Where the shell ends up is where the reader is then."""
        programs = self.folder / ".reader"
        programs.mkdir(exist_ok=True)
        for name, line in (("onefold", f"{sys.executable} -m onefold"), ("python", sys.executable)):
            (programs / name).write_text(f'#!/bin/sh\nexec {line} "$@"\n')
            (programs / name).chmod(0o755)
        environment = {
            **os.environ,
            "PATH": f"{programs}:{os.environ['PATH']}",
            "PYTHONPATH": str(Path(onefold.__file__).resolve().parents[1]),
        }
        script = f"{command}\nstatus=$?\npwd > {shlex.quote(str(programs / 'where'))}\nexit $status"
        done = subprocess.run(
            ["bash", "-c", script], cwd=self.folder, env=environment, capture_output=True, text=True, timeout=120
        )
        where = programs / "where"
        if where.exists():
            self.folder = Path(where.read_text().strip())
        return done.stdout + done.stderr, done.returncode


def first_missing(shown: list[str], output: str) -> str | None:
    """The first line shown that the output does not have after those before it; None: it has all."""
    lines = iter(_plain(line) for line in output.splitlines())
    for line in shown:
        wanted = _plain(line)
        if wanted in ("", "…"):
            continue
        pattern = ".*".join(re.escape(part) for part in wanted.split("…"))
        if not any(re.fullmatch(pattern, found) for found in lines):
            return line
    return None


def _plain(line: str) -> str:
    return " ".join(line.split())
