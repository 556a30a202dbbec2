"""An S3-compatible server, and a Glue catalog: moto's, in a process of its own, with a door where answers can be lost.

In the process of the tests it would wait for the lock that a call of the client's holds. What it does not show: moto
compares If-None-Match, and Glue's version of a table, and writes in two steps, so writers that are truly simultaneous
are not told apart; it keeps objects in memory, and is consistent at once.
"""

from __future__ import annotations

import functools
import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Self
from urllib.request import Request, urlopen

KEYS = {"AWS_ACCESS_KEY_ID": "me", "AWS_SECRET_ACCESS_KEY": "s3cr3t"}
BUCKET = "lake"
DOOR = "/door-of-the-test"


class S3:
    """A context manager; `options` lead to it."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert self._process.stdout is not None
        self.url = f"http://127.0.0.1:{int(self._process.stdout.readline())}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate(timeout=30)

    @property
    def options(self) -> dict[str, str]:
        """For deltalake; few retries, so that tests do not wait."""
        return {
            **KEYS,
            "AWS_ENDPOINT_URL": self.url,
            "AWS_REGION": "us-east-1",
            "AWS_ALLOW_HTTP": "true",
            "max_retries": "2",
            "retry_timeout": "5s",
            "backoff_config.init_backoff": "10ms",
        }

    def lose(self, fate: int | str, *, within: str = "/_delta_log/", action: str = "PUT", times: int = 1) -> None:
        """The answers of the next requests that are carried out: a status instead, or "cut". within: a pattern of their
        paths. action: a method, or what is asked of Glue."""
        self._tell({"within": within, "method": action, "times": times, "fate": fate, "is_done": True})

    def refuse(self, status: int, *, within: str = "", method: str = "", times: int = 1_000_000) -> None:
        """The next requests are not carried out."""
        self._tell({"within": within, "method": method, "times": times, "fate": status, "is_done": False})

    def mend(self) -> int:
        """Nothing is lost any more; how often it was."""
        return self._tell(None)

    def _tell(self, order: dict[str, Any] | None) -> int:
        request = Request(self.url + DOOR, data=json.dumps(order).encode(), method="POST")
        with urlopen(request, timeout=30) as answer:
            return int(answer.read())


class Door:
    """Stands before the server."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._order: dict[str, Any] | None = None
        self._met = 0
        self._lock = threading.Lock()

    def __call__(self, environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        if path == DOOR:
            met = self._met
            self._order, self._met = json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))), 0
            start("200 OK", [])
            return [str(met).encode()]
        action = environ.get("HTTP_X_AMZ_TARGET", "").rpartition(".")[2] or method
        order = self._fate(action, path)
        if order is None:
            found: Iterable[bytes] = self._app(environ, start)
            return found
        if order["is_done"]:
            b"".join(self._app(environ, lambda *_: None))
        if order["fate"] == "cut":
            environ["werkzeug.socket"].shutdown(2)
            raise ConnectionError("cut")
        start(f"{order['fate']} lost", [("Content-Length", "0")])
        return []

    def _fate(self, action: str, path: str) -> dict[str, Any] | None:
        with self._lock:
            order = self._order
            if order is None or self._met >= order["times"] or not re.search(order["within"], path):
                return None
            if action != (order["method"] or action):
                return None
            self._met += 1
            return order


def main() -> None:
    """Serve until standard input ends."""
    import boto3
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    class Remembering(DomainDispatcherApplication):
        """moto lists its own folder twice a request, to find out which service a host is: a third of its time."""

        get_backend_for_host = functools.cache(DomainDispatcherApplication.get_backend_for_host)

    server = make_server("127.0.0.1", 0, Door(Remembering(create_backend_app)), threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{server.server_port}",
        region_name="us-east-1",
        aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
    ).create_bucket(Bucket=BUCKET)
    print(server.server_port, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
