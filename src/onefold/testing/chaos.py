"""The chaos proxy: TCP on loopback that loses, keeps, delays and cuts what passes, message by message, as ordered.

    from onefold.testing.chaos import KafkaFramer, Proxy, faults_of

    with Proxy(server_port, KafkaFramer) as proxy:
        proxy.order(faults_of("strand request EndTxn#1 until answer InitProducerId#1"))
        ...                       # clients connect to proxy.address
        proxy.release()           # what still waits arrives now, late
        assert proxy.met == ["strand request EndTxn#1 until answer InitProducerId#1"]

A protocol is a framer, which cuts bytes into named messages; without one, whatever comes at once is a message of the
kind "bytes". Clients that learn the server's address from the server must be told the proxy's.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable
from types import TracebackType
from typing import Any, Self

from onefold.errors import check
from onefold.testing.chaos_connection import ANSWER_SECONDS, Connection, End, Held
from onefold.testing.chaos_faults import Fault, Framer, Message, Passing, Side, Stream, faults_of, text_of
from onefold.testing.chaos_kafka import KafkaFramer
from onefold.testing.chaos_mysql import MysqlFramer
from onefold.testing.chaos_postgres import PostgresFramer

__all__ = [
    "Fault",
    "Framer",
    "KafkaFramer",
    "Message",
    "MysqlFramer",
    "Passing",
    "PostgresFramer",
    "Proxy",
    "Stream",
    "faults_of",
    "text_of",
]

HOST = "127.0.0.1"
CALL_SECONDS = 60.0


class Proxy:
    """A context manager; its thread and connections end with it.

    Args:
        target: port of the server on loopback.
        framer: makes a Framer for each connection.
        port: to listen on; 0: a free one.
    """

    def __init__(self, target: int, framer: Callable[[], Framer] = Stream, *, port: int = 0) -> None:
        self._target = target
        self._framer = framer
        self._port = port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="chaos", daemon=True)
        self._listening: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._connections: set[Connection] = set()
        self._faults: list[Fault] = []
        self._held: list[Held] = []
        self._seen: Counter[tuple[Side, str]] = Counter()
        self._met: list[str] = []

    def __enter__(self) -> Self:
        self._thread.start()
        self._call(self._listen())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def address(self) -> str:
        """host:port for clients."""
        return f"{HOST}:{self._port}"

    @property
    def met(self) -> list[str]:
        """The faults that took place since the last order, as text."""
        return list(self._met)

    @property
    def seen(self) -> dict[str, int]:
        """Messages that came since the last order, by "request EndTxn"."""
        return {f"{side} {kind}": count for (side, kind), count in dict(self._seen).items()}

    def order(self, faults: Iterable[Fault]) -> None:
        """Begin a schedule: connections that are left are reset, counts begin anew. No faults: all passes."""
        self._call(self._order(list(faults)))

    def release(self) -> None:
        """Let go whatever is held, oldest first, each answered before the next; return when all are."""
        self._call(self._release(lambda _: True))

    # ---------------------------------------------------------------------------------------- on the proxy's own thread

    async def meet(self, side: Side, kind: str) -> Fault | None:
        """See Orders."""
        self._seen[side, kind] += 1
        await self._release(lambda held: self._is_due(held, side, kind))
        for fault in self._faults:
            if fault.at == Passing(side, kind, self._seen[side, kind]):
                self._faults.remove(fault)
                self._met.append(str(fault))
                return fault
        return None

    def hold(self, fault: Fault) -> Held:
        """See Orders."""
        until = fault.until
        held = Held(fault, self._seen[until.side, until.kind] if until else 0)
        self._held.append(held)
        return held

    def _is_due(self, held: Held, side: Side, kind: str) -> bool:
        until = held.fault.until
        is_awaited = until is not None and (until.side, until.kind) == (side, kind)
        return is_awaited and self._seen[side, kind] - held.seen_before >= until.count  # type: ignore[union-attr]

    async def _release(self, is_due: Callable[[Held], bool]) -> None:
        for held in [held for held in self._held if is_due(held)]:
            self._held.remove(held)
            held.released.set()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(held.settled.wait(), ANSWER_SECONDS)

    async def _order(self, faults: list[Fault]) -> None:
        self._faults, self._met = faults, []
        await self._reset()
        self._seen.clear()

    async def _reset(self) -> None:
        for connection in self._connections:
            connection.reset()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._held.clear()

    async def _listen(self) -> None:
        self._listening = await asyncio.start_server(self._accept, HOST, self._port)
        self._port = self._listening.sockets[0].getsockname()[1]

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = self._loop.create_task(self._serve(End(reader, writer)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, client: End) -> None:
        try:
            server = End(*await asyncio.open_connection(HOST, self._target))
        except OSError:  # the server is down: so are we
            client.reset()
            return
        connection = Connection(client, server, self._framer(), self)
        self._connections.add(connection)
        try:
            await connection.run()
        finally:
            self._connections.discard(connection)

    async def _end(self) -> None:
        check(self._listening is not None, "a proxy is used inside its with block")
        self._listening.close()  # type: ignore[union-attr]
        await self._reset()

    def _call(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(CALL_SECONDS)
