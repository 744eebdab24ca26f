"""A TCP proxy for tests: between a client and a server, it can cut, reset, refuse, delay, slice and go silent."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit, urlunsplit

#: Odd pieces at the beginning of what was read at once, and their size in bytes at most.
_SLICES = 8
_SLICE_BYTES = 7


class Proxy:
    """Forwards to a server until told otherwise; use it as ``async with Proxy("127.0.0.1", 5672) as proxy``."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._target = host, port
        self._server: Any = None
        self._connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._far: set[asyncio.StreamWriter] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        #: While true, new connections are closed at once.
        self.refusing = False
        #: Connections taken so far, refused ones too.
        self.taken = 0
        #: Seconds that everything is held back, in either direction; what follows waits behind it.
        self.delay = 0.0
        #: While true, what is handed on begins with pieces of 1 to 7 bytes, so that few frames arrive whole.
        self.slicing = False
        self.port = 0

    @classmethod
    def before(cls, url: str) -> Proxy:
        """A proxy in front of the server that a URL names."""
        parts = urlsplit(url)
        return cls(parts.hostname or "127.0.0.1", parts.port or 5672)

    def url(self, url: str) -> str:
        """The same URL, through the proxy."""
        parts = urlsplit(url)
        credentials, at, _ = parts.netloc.rpartition("@")
        return urlunsplit(parts._replace(netloc=f"{credentials}{at}127.0.0.1:{self.port}"))

    async def __aenter__(self) -> Proxy:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.cut()
        await asyncio.gather(*self._connections, return_exceptions=True)

    @property
    def open(self) -> int:
        """Connections that are being forwarded now."""
        return len(self._connections)

    def cut(self) -> int:
        """Break every connection; returns how many."""
        for task, writer in self._connections.items():
            writer.transport.abort()
            task.cancel()
        return len(self._connections)

    def reset(self) -> int:
        """Break every connection with a TCP reset, on both sides, without what is still on its way; how many."""
        now = struct.pack("ii", 1, 0)  # close at once, and say so by a reset
        for writer in [*self._connections.values(), *self._far]:
            if (sock := writer.get_extra_info("socket")) is not None and sock.fileno() >= 0:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, now)
        return self.cut()

    def stall(self) -> None:
        """Forward nothing more, in either direction, but keep connections open and take new ones."""
        self._flowing.clear()

    def resume(self) -> None:
        """Forward again, also what was held."""
        self._flowing.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.taken += 1
        if self.refusing:
            writer.transport.abort()
            return
        task: Any = asyncio.current_task()
        self._connections[task] = writer
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await self._forward(reader, writer)
        self._connections.pop(task, None)
        writer.transport.abort()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(self._host, self._target)
        self._far.add(far_writer)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._copy(reader, far_writer))
                group.create_task(self._copy(far_reader, writer))
        except* OSError:
            pass
        finally:
            self._far.discard(far_writer)
            far_writer.transport.abort()

    async def _copy(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(65_536):
            if self.delay:
                await asyncio.sleep(self.delay)
            await self._flowing.wait()
            if self.slicing:
                await self._in_slices(data, sink)
            else:
                sink.write(data)
            await sink.drain()
        raise ConnectionResetError("the other side closed")

    async def _in_slices(self, data: bytes, sink: asyncio.StreamWriter) -> None:
        """Some odd pieces, each a segment of its own; the rest whole, so that a connection is slow but not dead."""
        at = 0
        for _ in range(_SLICES):
            size = random.randint(1, _SLICE_BYTES)
            sink.write(data[at : at + size])
            await sink.drain()
            await asyncio.sleep(0)  # the other connections, and the other end, get their turn in between
            at += size
        sink.write(data[at:])


class Outage:
    """A proxy in a thread of its own: for services in a test's own event loop, which block it when they close."""

    def __init__(self, proxy: Proxy, loop: asyncio.AbstractEventLoop) -> None:
        self.proxy = proxy
        self._loop = loop

    def begin(self) -> int:
        """Break every connection and take no new one; returns how many were broken."""

        async def begun() -> int:
            self.proxy.refusing = True
            return self.proxy.cut()

        return asyncio.run_coroutine_threadsafe(begun(), self._loop).result(10)

    def end(self) -> None:
        """Take new connections."""
        self.proxy.refusing = False

    def freeze(self) -> None:
        """Let connections stay open, old and new ones, and nothing come through."""
        self._loop.call_soon_threadsafe(self.proxy.stall)

    def thaw(self) -> None:
        """Let everything through again."""
        self._loop.call_soon_threadsafe(self.proxy.resume)


@contextlib.contextmanager
def outage(url: str) -> Iterator[Outage]:
    """Something between a client and the server that a URL names; the server is there until the outage begins."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="proxy")
    thread.start()
    proxy = Proxy.before(url)
    try:
        asyncio.run_coroutine_threadsafe(proxy.__aenter__(), loop).result(10)
        yield Outage(proxy, loop)
        asyncio.run_coroutine_threadsafe(proxy.__aexit__(), loop).result(10)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
