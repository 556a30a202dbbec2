"""The Java virtual machine that Hudi's own writer runs in: one a process, started when it is first needed.

It ends with this process: its standard input closes then. What it was doing at that moment ends with it; the lock that
it holds on a table goes last, so a successor that has the lock knows that nothing of the dead is under way.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from onefold.connectors.hudi.jars import class_path, java
from onefold.errors import OutcomeUnknown, SinkRefused, SinkUnavailable

__all__ = ["JAVA_OPTIONS", "SHARED", "HudiTable", "Machine", "machine"]

SHARED = "ONEFOLD_HUDI_JVM"
"""Names a machine that is there already, as JSON {"port", "secret"}. For tests: a machine outlives many processes."""

LOCK_SECONDS = 20.0
"""How long a table that another writer holds is waited for."""

JAVA_OPTIONS = (
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",  # half the CPU of a commit of few rows; java_options can take it back
    "-Djol.skipHotspotSAAttach=true",  # else the size of a row is measured by a debugger, for seconds
    *(f"--add-opens=java.base/{name}=ALL-UNNAMED" for name in ("java.lang", "java.util", "java.nio", "java.math")),
    "--add-opens=java.base/java.util.concurrent.atomic=ALL-UNNAMED",
    "-Duser.timezone=UTC",
    "-Dfile.encoding=UTF-8",
)

_SOURCE = Path(__file__).with_name("HudiTable.java")
_LOGGING = Path(__file__).with_name("log4j2.properties")
_LAST_WORDS = 1500

Kind = TypeVar("Kind")

_machines: dict[int, Machine] = {}
_guard = threading.Lock()


class Machine:
    """A running JVM with our class in it. Make it with `machine`."""

    def __init__(self, gateway: Any, process: subprocess.Popen[bytes] | None, words: Any) -> None:
        self._gateway = gateway
        self._process = process
        self._words = words
        compiler = gateway.jvm.org.codehaus.janino.SimpleCompiler()
        compiler.cook(_SOURCE.read_text("utf-8"))
        self._class = compiler.getClassLoader().loadClass("onefold.HudiTable")

    @property
    def is_running(self) -> bool:
        """Whether it can still be asked."""
        return self._process is None or self._process.poll() is None

    @property
    def pid(self) -> int | None:
        """Its process, if it is ours."""
        return self._process.pid if self._process else None

    def table(self, base: str, options: Mapping[str, str], hadoop: Mapping[str, str]) -> HudiTable:
        """A table; it need not be there yet. base: a path, or s3a://…, with settings of Hadoop's for that."""
        given = [base, self.map(options), self.map(hadoop), int(LOCK_SECONDS * 1000)]
        arguments = self._gateway.new_array(self._gateway.jvm.java.lang.Object, len(given))
        for place, value in enumerate(given):
            arguments[place] = value
        return HudiTable(self, self._class.getConstructors()[0].newInstance(arguments))

    def map(self, entries: Mapping[str, str]) -> Any:
        """A java.util.Map of texts."""
        made = self._gateway.jvm.java.util.HashMap()
        for name, value in entries.items():
            made.put(name, value)
        return made

    def forget(self, made: Any) -> None:
        """Let Java collect an object."""
        self._gateway.detach(made)

    def last_words(self) -> str:
        """The end of what it printed."""
        if self._words is None:
            return ""
        self._words.seek(0)
        text: str = self._words.read()[-_LAST_WORDS:].decode("utf-8", "replace")
        return text

    def stop(self) -> None:
        """End it. Never raises."""
        from py4j.protocol import Py4JError

        with contextlib.suppress(Py4JError, OSError):
            self._gateway.close()
        if self._process is not None:
            if self._process.stdin:
                self._process.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(10)
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait()


class HudiTable:
    """HudiTable.java, from here. Every verb may block, for LOCK_SECONDS and for as long as Hudi works.

    Raises SinkUnavailable when the table is locked or could not be worked on: nothing is visible of it; and
    OutcomeUnknown when the JVM is gone, or, in `commit`, when it is not known what happened.
    """

    def __init__(self, running: Machine, table: Any) -> None:
        self._machine = running
        self._table = table

    def create(self, name: str, settings: Mapping[str, str]) -> None:
        """Lay out a new table in an empty folder."""
        self._ask("create", name, self._machine.map(settings))

    def open(self) -> Mapping[str, str]:
        """Roll back what is pending; the state that our newest commit carries."""
        return self._taken(dict, self._ask("open"))

    def look(self) -> Mapping[str, str]:
        """The state that our newest commit carries."""
        return self._taken(dict, self._ask("look"))

    def settings(self) -> Mapping[str, str]:
        """The table's own settings."""
        return self._taken(dict, self._ask("settings"))

    def write(
        self, file: Path | None, schema: str, operation: str, *, owner: str, expected: str | None
    ) -> Sequence[str]:
        """Rows that nobody sees yet: ("written", instant, files…) or ("moved", token)."""
        word, text = self.begin(schema, owner=owner, expected=expected)
        return self.fill(text, file, operation) if word == "begun" else (word, text)

    def begin(self, schema: str, *, owner: str, expected: str | None) -> Sequence[str]:
        """The first half of `write`: ("begun", instant) or ("moved", token)."""
        return self._taken(list, self._ask("begin", schema, owner, expected))

    def fill(self, instant: str, file: Path | None, operation: str) -> Sequence[str]:
        """The second half: ("written", instant, files…)."""
        return self._taken(list, self._ask("fill", instant, str(file or ""), operation))

    def commit(self, instant: str, *, owner: str, expected: str | None, new: str | None) -> Sequence[str]:
        """Show them and move the token: ("done" | "moved" | "gone", the token before). Every failure is unknown."""
        return self._taken(list, self._ask("commit", instant, owner, expected, new, is_final=True))

    def seal(self, instant: str, *, owner: str, expected: str | None, new: str | None) -> Sequence[str]:
        """The first half of `commit`, for tables in a store: ("sealed", time, metadata), or as `commit`."""
        return self._taken(list, self._ask("seal", instant, owner, expected, new))

    def complete(self, instant: str, completion: str, sealed: str) -> str:
        """The second half, by anybody, any number of times: "done" or "gone". Every failure is unknown."""
        return str(self._ask("complete", instant, completion, sealed, is_final=True))

    def pending(self) -> Sequence[str]:
        """Instants that are under way."""
        return self._taken(list, self._ask("pending"))

    def forget(self, instant: str) -> None:
        """Leave what was begun as it is."""
        self._ask("forget", instant)

    def abandon(self, instant: str) -> None:
        """Roll it back."""
        self._ask("abandon", instant)

    def maintain(self) -> None:
        """Hudi's cleaning and archiving."""
        self._ask("maintain")

    def snapshot(self) -> tuple[Mapping[str, str], Sequence[str]]:
        """The state, and the files that hold all rows, below the table, of one version of it."""
        state, *files = self._taken(list, self._ask("snapshot"))
        return self._taken(dict, state), files

    def instants(self) -> Sequence[str]:
        """All instants that the table knows."""
        return self._taken(list, self._ask("instants"))

    def oldest(self) -> str:
        """The oldest instant that is not archived."""
        return str(self._ask("oldest"))

    def schema(self) -> str:
        """The table's columns as an Avro schema, "" when nothing tells them."""
        return str(self._ask("schema"))

    def _taken(self, kind: Callable[[Any], Kind], answer: Any) -> Kind:
        """A Java collection as one of ours; Java may forget it."""
        found = kind(answer)
        self._machine.forget(answer)
        return found

    def _ask(self, verb: str, *arguments: Any, is_final: bool = False) -> Any:
        from py4j.protocol import Py4JError, Py4JJavaError, Py4JNetworkError

        try:
            return getattr(self._table, verb)(*arguments)
        except Py4JJavaError as error:
            text = _text(error)
            if "TimeoutException" in text.partition(":")[0]:
                raise SinkUnavailable(
                    "The Hudi table is held by another writer.",
                    found=text,
                    next_step="If it is a process that hangs, end it and its Java process: until then nothing is "
                    "written, and nothing is lost.",
                ) from error
            kind = OutcomeUnknown if is_final else SinkUnavailable
            raise kind("Hudi could not do it.", found=text) from error
        except (Py4JError, Py4JNetworkError, OSError) as error:
            raise OutcomeUnknown(
                "The Java process that writes to Hudi does not answer.",
                found=self._machine.last_words() or repr(error),
            ) from error


def machine(*, jars: str | None, options: Sequence[str] = ()) -> Machine:
    """The machine of this process. Raises SinkRefused, ExtraMissing."""
    with _guard:
        found = _machines.get(os.getpid())
        if found is None or not found.is_running:
            shared = os.environ.get(SHARED)
            found = _joined(shared) if shared else start(jars=jars, options=options)[0]
            _machines[os.getpid()] = found  # a forked child must not use its parent's
        return found


def start(*, jars: str | None, options: Sequence[str] = ()) -> tuple[Machine, str]:
    """Start one, and say how others can use it (see SHARED). Raises SinkRefused, ExtraMissing."""
    path = class_path(jars)
    words = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the process
    command = [java(), *JAVA_OPTIONS, f"-Dlog4j.configurationFile={_LOGGING}", *options, "-cp", path]
    command += ["py4j.GatewayServer", "--die-on-broken-pipe", "--enable-auth", "0"]
    process = subprocess.Popen(  # noqa: S603 - Java, by its path
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=words,
        env={**os.environ, "LC_ALL": "C.UTF-8"},  # names of files are UTF-8
        start_new_session=True,  # Ctrl-C is for us: a clean stop still has to commit
    )
    told = _told(process.stdout)
    if told is None:
        process.kill()
        process.wait()
        words.seek(0)
        found = words.read()[-_LAST_WORDS:].decode("utf-8", "replace")
        raise SinkRefused(
            "Java did not start.", found=found, next_step="Java 11 or 17 is needed: look at `java -version`."
        )
    port, secret = told
    made = Machine(_gateway(port, secret), process, words)
    return made, json.dumps({"port": port, "secret": secret})


def _told(stdout: Any) -> tuple[int, str] | None:
    """Port and secret, which the gateway prints; warnings of Java's may stand before them. None: it ended."""
    for line in stdout:
        if line.strip().isdigit():
            return int(line), stdout.readline().strip().decode()
    return None


def _joined(shared: str) -> Machine:
    told = json.loads(shared)
    return Machine(_gateway(told["port"], told["secret"]), None, None)


def _gateway(port: int, secret: str) -> Any:
    from py4j.java_gateway import GatewayParameters, JavaGateway

    return JavaGateway(
        gateway_parameters=GatewayParameters(
            port=port,
            auth_token=secret,
            auto_convert=True,
            enable_memory_management=False,  # a forked child would let go of its parent's objects: see _taken
        )
    )


def _text(error: Any) -> str:
    """The innermost cause, in one line; the outermost first."""
    cause = error.java_exception
    texts: list[str] = []
    while cause is not None and len(texts) < 5:
        texts.append(str(cause.toString()))
        cause = cause.getCause()
    return " <- ".join(dict.fromkeys(texts))[:_LAST_WORDS]
