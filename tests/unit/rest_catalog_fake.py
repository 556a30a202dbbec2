"""A REST catalog over pyiceberg's SQL catalog, whose answers to commits get lost, are late, or never come.

Only what a sink asks of it: config, namespaces, and tables that are made, loaded and committed to.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self
from urllib.parse import unquote

from pyiceberg.catalog.rest import CreateTableRequest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import CommitFailedException, NoSuchTableError, TableAlreadyExistsError
from pyiceberg.partitioning import UNPARTITIONED_PARTITION_SPEC
from pyiceberg.table import CommitTableRequest
from pyiceberg.table.sorting import UNSORTED_SORT_ORDER

LOCK = threading.Lock()


@dataclass(frozen=True)
class Fault:
    """What happens to one commit: whether it lands, then how it is answered. status 0: not at all, for so long."""

    lands: bool
    status: int = 0
    seconds: float = 30.0


@dataclass
class RestCatalogServer:
    """A context manager. faults: taken one by one by the next commits. seen: statuses that commits were answered."""

    folder: Path
    faults: list[Fault] = field(default_factory=list)
    seen: list[int] = field(default_factory=list)
    between: Callable[[], None] | None = None

    def __enter__(self) -> Self:
        self.backend = SqlCatalog(
            "rest", uri=f"sqlite:///{self.folder / 'rest.sqlite'}", warehouse=f"file://{self.folder}/warehouse"
        )
        self.ends = threading.Event()
        kind = type("Handler", (_Handler,), {"owner": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ends.set()
        self.server.shutdown()
        self.server.server_close()
        self.backend.engine.dispose()

    @property
    def catalog(self) -> dict[str, str]:
        """As a flow is given it."""
        return {"type": "rest", "uri": f"http://127.0.0.1:{self.server.server_address[1]}"}


class _Handler(BaseHTTPRequestHandler):
    owner: RestCatalogServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        with LOCK:
            self._serve(self._get)

    def do_HEAD(self) -> None:
        with LOCK:
            self._serve(self._get)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        parts = self._parts()
        if len(parts) == 5 and parts[3] == "tables":
            self._commit((parts[2], parts[4]), body)
            return
        with LOCK:
            self._serve(lambda: self._post(parts, body))

    def _get(self) -> Any:
        parts = self._parts()
        if parts[1:] == ["config"]:
            return {"defaults": {}, "overrides": {}}
        if parts[3:4] == ["tables"]:
            table = self.owner.backend.load_table((parts[2], parts[4]))
            return {
                "metadata-location": table.metadata_location,
                "metadata": json.loads(table.metadata.model_dump_json()),
                "config": {},
            }
        if not self.owner.backend.namespace_exists((parts[2],)):
            raise NoSuchTableError(parts[2])
        return {"namespace": [parts[2]], "properties": {}}

    def _post(self, parts: list[str], body: bytes) -> Any:
        backend = self.owner.backend
        if len(parts) == 2:
            names = json.loads(body)["namespace"]
            backend.create_namespace_if_not_exists(tuple(names))
            return {"namespace": names, "properties": {}}
        asked = CreateTableRequest.model_validate({"location": None, **json.loads(body)})
        staged = backend._create_staged_table(
            (parts[2], asked.name),
            asked.table_schema,
            asked.location,
            asked.partition_spec or UNPARTITIONED_PARTITION_SPEC,
            asked.write_order or UNSORTED_SORT_ORDER,
            asked.properties,
        )
        return {"metadata": json.loads(staged.metadata.model_dump_json()), "config": {}}

    def _commit(self, names: tuple[str, str], body: bytes) -> None:
        fault = self.owner.faults.pop(0) if self.owner.faults else Fault(lands=True, status=200)
        if fault.status == 0 and not fault.lands:
            self.owner.ends.wait(fault.seconds)
            self.close_connection = True
            return
        status, answer = 500, {"error": {"message": "an error that was ordered", "type": "Ordered", "code": 500}}
        if fault.lands:
            with LOCK:
                status, answer = self._land(names, body)
        if fault.status == 0:
            self.owner.ends.wait(fault.seconds)
            self.close_connection = True
            return
        if fault.status != 200:
            status, answer = fault.status, {"error": {"message": "ordered", "type": "Ordered", "code": fault.status}}
        self._answer(status, answer)

    def _land(self, names: tuple[str, str], body: bytes) -> tuple[int, Any]:
        asked = CommitTableRequest.model_validate_json(body)
        table: Any = SimpleNamespace(name=lambda: names)
        try:
            done = self.owner.backend.commit_table(table, asked.requirements, asked.updates)
        except (CommitFailedException, TableAlreadyExistsError) as error:
            return 409, {"error": {"message": str(error), "type": "CommitFailedException", "code": 409}}
        return 200, {
            "metadata-location": done.metadata_location,
            "metadata": json.loads(done.metadata.model_dump_json()),
        }

    def _serve(self, ask: Callable[[], Any]) -> None:
        try:
            self._answer(200, ask())
        except NoSuchTableError as error:
            self._answer(404, {"error": {"message": str(error), "type": "NoSuchTableException", "code": 404}})

    def _answer(self, status: int, answer: Any) -> None:
        if self.command == "POST" and self._parts()[3:4] == ["tables"] and len(self._parts()) == 5:
            self.owner.seen.append(status)
        body = json.dumps(answer).encode()
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)
        except OSError:
            self.close_connection = True

    def _parts(self) -> list[str]:
        return [unquote(part) for part in self.path.partition("?")[0].strip("/").split("/")]
