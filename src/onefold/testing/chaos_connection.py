"""One connection through a chaos proxy: two directions, each passing message after message."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from dataclasses import dataclass, field
from typing import Protocol

from onefold.testing.chaos_faults import Fault, Framer, Message, Side

__all__ = ["Connection", "Held", "Orders"]

CHUNK_BYTES = 1 << 16

ANSWER_SECONDS = 5.0
"""How long a message that was held may go without an answer before everything else goes on."""


@dataclass
class Held:
    """A message that waits. released: it may go. settled: it has gone, and was answered if it was a request."""

    fault: Fault
    seen_before: int
    released: asyncio.Event = field(default_factory=asyncio.Event)
    settled: asyncio.Event = field(default_factory=asyncio.Event)


class Orders(Protocol):
    """Who says what is done to a message."""

    async def meet(self, side: Side, kind: str) -> Fault | None:
        """Count it, let go what waited for it, and say what is done to it."""
        ...

    def hold(self, fault: Fault) -> Held:
        """From now on a message waits."""
        ...


class End:
    """One of the two ends."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self._writer = writer

    async def send(self, body: bytes) -> None:
        """Raises ConnectionError when it is gone."""
        self._writer.write(body)
        await self._writer.drain()

    def finish(self) -> None:
        """Nothing more is sent (FIN). May be called twice."""
        with contextlib.suppress(OSError, RuntimeError):
            self._writer.write_eof()

    def close(self) -> None:
        """Close in order."""
        self._writer.close()

    def reset(self) -> None:
        """RST, whatever is under way."""
        raw = self._writer.get_extra_info("socket")
        with contextlib.suppress(OSError):
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()


class Connection:
    """client, server: the ends. framer: cuts messages. orders: what is done to them."""

    def __init__(self, client: End, server: End, framer: Framer, orders: Orders) -> None:
        self._client = client
        self._server = server
        self._framer = framer
        self._orders = orders
        self._answered = asyncio.Event()
        self._is_stranded = False

    async def run(self) -> None:
        """Until both ends are through, or one is reset."""
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pump("request", self._client, self._server))
                both.create_task(self._pump("answer", self._server, self._client))
        finally:
            self._client.close()
            self._server.close()

    def reset(self) -> None:
        """Both ends."""
        self._client.reset()
        self._server.reset()

    async def _pump(self, side: Side, source: End, target: End) -> None:
        with contextlib.suppress(OSError):
            while received := await source.reader.read(CHUNK_BYTES):
                for message in self._framer.cut(side, received):
                    await self._pass(side, message, target)
        if side == "answer":
            self._answered.set()
        if not (self._is_stranded and side == "answer"):
            target.finish()

    async def _pass(self, side: Side, message: Message, target: End) -> None:
        if side == "answer":
            self._answered.set()
        fault = await self._orders.meet(side, message.kind)
        if fault is None:
            await self._forward(message, target)
        elif fault.act == "cut":
            self.reset()
        elif fault.act == "close":
            self._client.close()
            self._server.close()
        elif fault.act != "drop":
            await self._late(side, message, target, fault)

    async def _forward(self, message: Message, target: End) -> None:
        if not (self._is_stranded and target is self._client):
            await target.send(message.body)

    async def _late(self, side: Side, message: Message, target: End, fault: Fault) -> None:
        held = self._orders.hold(fault)
        if fault.act == "strand":
            self._is_stranded = True
            self._client.reset()
        if fault.act == "delay":
            asyncio.get_running_loop().call_later(fault.seconds, held.released.set)
        await held.released.wait()
        self._answered.clear()
        try:
            await self._forward(message, target)
            if side == "request":
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._answered.wait(), ANSWER_SECONDS)
        finally:
            held.settled.set()
