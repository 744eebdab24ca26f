"""Child processes that answer requests: what may kill its process runs there, and takes nothing else with it.

Parent and child talk over a socket pair: a length of four bytes (big endian), then that many bytes. A child answers
one request after the other; what it says begins with one byte, which tells answers from *notes* that it sends about a
request while it works on it. When its parent goes away, the socket ends and the child exits at once, whatever it is
doing; when the child dies, the parent's call says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import signal
import socket
import struct
import sys
import threading
from collections.abc import Callable
from pathlib import Path

_LENGTH = struct.Struct(">I")
#: Before what a child says: whether it is an answer or a note, and how long it is.
_HEAD = struct.Struct(">cI")
_ANSWER, _NOTE = b"a", b"n"
#: What a child says once it is ready for requests.
_READY = b"ready"
#: What it is asked, and answers, to show that it lives.
_PING = b""
#: Longest time until a child is ready, or shows that it lives, in seconds.
START_TIMEOUT = 60.0
#: The current folder is kept out (-P) until our own packages are imported: a schemas.py of the handler project there
#: would take the place of ours.
_HOME = str(Path(__file__).resolve().parents[2])
_CHILD = """
import importlib, sys
home, module, fd, *arguments = sys.argv[1:]
if home not in sys.path:
    sys.path.append(home)
from dispatcher.edges.children import serve
serve(int(fd), importlib.import_module(module).answering(*arguments))
"""


class ChildDied(Exception):
    """The child process died before it answered."""


class ChildNotStarted(Exception):
    """The child process did not come so far as to take requests; no request is to blame."""


class Child:
    """One child process, ready for requests."""

    def __init__(
        self, process: asyncio.subprocess.Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._process = process
        self._reader = reader
        self._writer = writer
        self._asked = False

    @classmethod
    async def start(cls, module: str, *arguments: str) -> Child:
        """Start a child and wait until it is ready.

        Args:
            module: has a function ``answering``; what it returns for the arguments maps requests to answers (bytes).
            arguments: of that function.

        Raises:
            ChildNotStarted: it ended first, or took too long; its own output says why.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",
                "-c",
                _CHILD,
                _HOME,
                module,
                str(theirs.fileno()),
                *arguments,
                pass_fds=[theirs.fileno()],
                stdin=asyncio.subprocess.DEVNULL,
                start_new_session=True,
            )
        child = cls(process, *await asyncio.open_connection(sock=ours))
        try:
            async with asyncio.timeout(START_TIMEOUT):
                await child._receive()
        except (ChildDied, TimeoutError) as error:
            await child.kill()
            why = str(error) or "it took too long"
            raise ChildNotStarted(f"a child process of {module} did not start: {why}") from None
        except BaseException:
            await asyncio.shield(child.kill())
            raise
        return child

    @property
    def idle(self) -> bool:
        """Whether it owes no answer and is not known to have ended."""
        return not self._asked and self._process.returncode is None

    async def answers(self) -> bool:
        """Whether it lives: it says so itself.

        The loop hears of a death some time later, and a request that was sent meanwhile would be blamed for it.
        """
        try:
            async with asyncio.timeout(START_TIMEOUT):
                return await self.call(_PING) == _PING
        except (ChildDied, TimeoutError):
            return False

    async def call(self, request: bytes, on_note: Callable[[bytes], None] | None = None) -> bytes:
        """Send one request and read its answer.

        Args:
            request: what to ask.
            on_note: called with each note that comes before the answer.

        Raises:
            ChildDied: the child died first.
        """
        self._asked = True
        try:
            self._writer.write(_LENGTH.pack(len(request)) + request)
            await self._writer.drain()
        except ConnectionError:
            raise await self._died() from None
        answer = await self._receive(on_note)
        self._asked = False
        return answer

    async def kill(self) -> None:
        """End the child and what it started, at once."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._writer.close()
        await self._process.wait()

    async def _receive(self, on_note: Callable[[bytes], None] | None = None) -> bytes:
        try:
            while True:
                kind, length = _HEAD.unpack(await self._reader.readexactly(_HEAD.size))
                body = await self._reader.readexactly(length)
                if kind == _ANSWER:
                    return body
                if on_note is not None:
                    on_note(body)
        except (asyncio.IncompleteReadError, ConnectionError):
            raise await self._died() from None

    async def _died(self) -> ChildDied:
        code = await self._process.wait()
        return ChildDied(f"was killed by signal {-code}" if code < 0 else f"exited with code {code}")


class _Parent:
    """In a child: the way to its parent; whole messages, from whatever thread."""

    def __init__(self) -> None:
        self.connection: socket.socket | None = None
        self._lock = threading.Lock()

    def send(self, kind: bytes, body: bytes) -> None:
        """Say something."""
        if self.connection is not None:
            with self._lock:
                self.connection.sendall(_HEAD.pack(kind, len(body)) + body)


_parent = _Parent()


def note(body: bytes) -> None:
    """In a child: tell the parent something about the request at hand. It hears of it before the answer."""
    _parent.send(_NOTE, body)


def serve(fd: int, answer: Callable[[bytes], bytes]) -> None:
    """In the child: answer requests until the parent goes away."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _die_first()
    connection = _parent.connection = socket.socket(fileno=fd)
    requests: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(connection, requests), daemon=True).start()
    reply = _READY
    while True:
        _parent.send(_ANSWER, reply)
        request = requests.get()
        reply = _PING if request == _PING else answer(request)


def _die_first() -> None:
    """Where memory runs out, Linux kills this process, one request's, before its parent with all the others.

    It may always ask for more than its parent has (proc(5), ``oom_score_adj``); elsewhere there is no such file.
    """
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")


def _read(connection: socket.socket, requests: queue.SimpleQueue[bytes]) -> None:
    try:
        with connection.makefile("rb") as stream:
            while len(head := stream.read(_LENGTH.size)) == _LENGTH.size:
                requests.put(stream.read(*_LENGTH.unpack(head)))
    finally:  # a parent that dies before it has read an answer resets the connection: an error, not an end
        os._exit(0)
