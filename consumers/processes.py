"""Child processes for ``isolate="process"``: each runs one job at a time and is killed when that runs out of time.

Parent and child talk over a socket pair: a length of four bytes (big endian), then that much JSON. Children that
finished their job are kept for the next, so that a job need not wait for an interpreter to start.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import struct
import sys
from pathlib import Path
from typing import Any

from consumers.context import Context

_LENGTH = struct.Struct(">I")
#: Idle children kept for the next jobs.
MAX_IDLE = 4
#: The current folder is kept out (-P) until our own packages are imported: a schemas.py of the handler project there
#: would take the place of ours.
_HOME = str(Path(__file__).resolve().parents[1])
_CHILD = """
import sys
home, target, fd = sys.argv[1:]
if home not in sys.path:
    sys.path.append(home)
from consumers.child import main
main(target, int(fd))
"""


class ChildCrashed(Exception):
    """The child process died while it ran the handler."""


class _Child:
    def __init__(
        self, process: asyncio.subprocess.Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.process = process
        self.reader = reader
        self.writer = writer

    async def call(self, request: bytes) -> Any:
        """Send one request and read its answer.

        Raises:
            ChildCrashed: the child died.
        """
        try:
            self.writer.write(_LENGTH.pack(len(request)) + request)
            await self.writer.drain()
            (length,) = _LENGTH.unpack(await self.reader.readexactly(_LENGTH.size))
            return json.loads(await self.reader.readexactly(length))
        except (asyncio.IncompleteReadError, ConnectionError):
            code = await self.process.wait()
            how = f"was killed by signal {-code}" if code < 0 else f"exited with code {code}"
            raise ChildCrashed(f"the handler's process {how}") from None

    async def kill(self) -> None:
        """End the child and what it started, at once."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.writer.close()
        await self.process.wait()


class ProcessPool:
    """Children of one worker, all with the same registry."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._idle: list[_Child] = []

    async def call(self, job_type: str, payload: dict[str, Any], context: Context) -> Any:
        """Run a handler in a child; cancelling the call kills the child.

        Raises:
            ChildCrashed: the child died.
        """
        child = self._idle.pop() if self._idle else await self._start()
        request = {
            "type": job_type,
            "payload": payload,
            "context": {
                "id": context.id,
                "app": context.app,
                "type": context.type,
                "run": context.run,
                "attempt": context.attempt,
                "execution": context.execution,
                "tags": context.tags,
                "trace": context.trace.model_dump() if context.trace else None,
            },
        }
        try:
            answer = await child.call(json.dumps(request).encode())
        except BaseException:
            await asyncio.shield(child.kill())
            raise
        if len(self._idle) < MAX_IDLE:
            self._idle.append(child)
        else:
            await child.kill()
        return answer

    async def _start(self) -> _Child:
        ours, theirs = socket.socketpair()
        with theirs:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",
                "-c",
                _CHILD,
                _HOME,
                self._target,
                str(theirs.fileno()),
                pass_fds=[theirs.fileno()],
                stdin=asyncio.subprocess.DEVNULL,
                start_new_session=True,
            )
        reader, writer = await asyncio.open_connection(sock=ours)
        return _Child(process, reader, writer)

    async def close(self) -> None:
        """Kill the idle children; busy ones are killed when their calls are cancelled."""
        idle, self._idle = self._idle, []
        for child in idle:
            await child.kill()
