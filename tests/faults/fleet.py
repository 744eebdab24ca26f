"""Services as processes of their own, several of a kind, which can be killed, frozen and started again."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dev.process import free_ports, guarded, unguarded

ROOT = Path(__file__).parents[2]
#: The command of each kind.
COMMANDS = {
    "intake": ["run", "intake"],
    "recorder": ["run", "recorder"],
    "scheduler": ["run", "scheduler"],
    "worker": ["worker"],
}
#: The usual handlers of its workers.
HANDLERS = "tests.faults.handlers:jobs"
#: The usual fleet: two of what may be several.
MEMBERS = ("scheduler-1", "recorder-1", "intake-1", "intake-2", "worker-1", "worker-2")
#: Seconds that a service gets to end when the fleet does.
GRACE = 20.0
#: Seconds between two looks for processes that ended by themselves.
WATCH = 0.1


@dataclass(frozen=True)
class Code:
    """Whose code a process runs: a folder with our packages, the Python that has what they require, more to import."""

    name: str
    folder: Path
    python: str = sys.executable
    path: tuple[Path, ...] = ()

    @property
    def variables(self) -> dict[str, str]:
        """Variables that make it the code that is imported."""
        return {"PYTHONPATH": os.pathsep.join(map(str, (self.folder, *self.path)))}


#: The code of this tree, as this process imports it.
PRESENT = Code("present", ROOT)


@dataclass
class Death:
    """A process that did not live to the end: of whom, when (seconds since the epoch), and whether we killed it."""

    member: str
    pid: int
    at: float
    ours: bool
    code: int = -signal.SIGKILL


@dataclass
class Member:
    """One service and its present process; ``port`` is that of its probes and metrics."""

    name: str
    port: int
    code: Code = PRESENT
    process: subprocess.Popen[bytes] | None = None
    #: Between a kill of ours and the start after it.
    away: bool = False
    pids: list[int] = field(default_factory=list)

    @property
    def kind(self) -> str:
        """Which service it is."""
        return self.name.partition("-")[0]

    @property
    def pid(self) -> int:
        """The present process."""
        assert self.process is not None
        return self.process.pid


class Fleet:
    """Use it as ``async with Fleet(environment, folder, members) as fleet``; logs are kept in the folder.

    What ends by itself is started again and counted apart (`deaths`, with ``ours`` false). ``program`` is the module
    that is the command line.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        folder: Path,
        members: Sequence[str] = MEMBERS,
        handlers: str = HANDLERS,
        program: str = "dispatcher.cli.main",
        code: Code = PRESENT,
    ) -> None:
        self._program = program
        self._environment = os.environ | {"PYTHONUNBUFFERED": "1"} | dict(environment)
        self._folder = folder
        self._handlers = handlers
        ports = free_ports(members)
        self.members = {name: Member(name, ports[name], code) for name in members}
        self.deaths: list[Death] = []
        #: Processes that were told to stop, and did.
        self.stopped: list[Death] = []
        #: Members that did not end within their grace when they were told to.
        self.stubborn: list[str] = []
        self._watch: asyncio.Task[None] | None = None

    def of_kind(self, kind: str) -> list[Member]:
        """The members of one kind."""
        return [member for member in self.members.values() if member.kind == kind]

    def start(self, name: str) -> None:
        """Start a member's process."""
        member = self.members[name]
        command = [*COMMANDS[member.kind], *([self._handlers] if member.kind == "worker" else [])]
        with self.log_file(name).open("ab") as log:
            member.process = subprocess.Popen(
                [member.code.python, "-m", self._program, *command],
                env=self._environment | member.code.variables | {"DISPATCHER_HTTP__PORT": str(member.port)},
                cwd=member.code.folder,
                stderr=log,
                stdout=log,
                start_new_session=True,
            )
        guarded(member.process)
        member.pids.append(member.pid)
        member.away = False

    def kill(self, name: str) -> None:
        """``kill -9`` of the one process; its children have to notice by themselves."""
        member = self.members[name]
        assert member.process is not None
        member.away = True
        ours = member.process.poll() is None
        member.process.kill()
        member.process.wait()
        unguarded(member.process)
        self.deaths.append(Death(name, member.pid, time.time(), ours=ours))

    def stop(self, name: str, grace: float = GRACE) -> int:
        """SIGTERM, and wait for the end; the exit code. What has not ended after so many seconds is killed."""
        member = self.members[name]
        assert member.process is not None
        member.away = True
        member.process.terminate()
        try:
            code = member.process.wait(grace)
        except subprocess.TimeoutExpired:
            self.stubborn.append(name)
            member.process.kill()
            code = member.process.wait()
        unguarded(member.process)
        self.stopped.append(Death(name, member.pid, time.time(), ours=True, code=code))
        return code

    def freeze(self, name: str) -> None:
        """SIGSTOP."""
        os.kill(self.members[name].pid, signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        """SIGCONT."""
        os.kill(self.members[name].pid, signal.SIGCONT)

    def killed(self) -> dict[str, int]:
        """How often each kind was killed by us."""
        counts = dict.fromkeys(COMMANDS, 0)
        for death in self.deaths:
            counts[death.member.partition("-")[0]] += death.ours
        return counts

    def log_file(self, name: str) -> Path:
        """Where a member writes, over all its lives."""
        return self._folder / f"{name}.log"

    def complaints(self, most: int = 15) -> list[str]:
        """The members' lines of level error, and tracebacks' last lines, for a report of what failed."""
        found: list[str] = []
        for name in self.members:
            lines = self.log_file(name).read_text(errors="replace").splitlines()
            bad = [line for line in lines if re.search(r'"level": ?"error"|^\w*Error\b|Traceback', line)]
            found += [f"{name}: {line[:400]}" for line in bad[-most:]]
        return found

    async def _watching(self) -> None:
        while True:
            for member in self.members.values():
                code = None if member.away or member.process is None else member.process.poll()
                if code is not None:
                    self.deaths.append(Death(member.name, member.pid, time.time(), ours=False, code=code))
                    self.start(member.name)
            await asyncio.sleep(WATCH)

    async def __aenter__(self) -> Fleet:
        for name in self.members:
            self.start(name)
        self._watch = asyncio.create_task(self._watching(), name="fleet")
        return self

    async def __aexit__(self, *_: Any) -> None:
        if self._watch is not None:
            self._watch.cancel()
        await asyncio.to_thread(self._end)

    def _end(self) -> None:
        running = [(name, member.process) for name, member in self.members.items() if member.process is not None]
        for _, process in running:
            process.send_signal(signal.SIGCONT)
            process.terminate()
        deadline = time.monotonic() + GRACE
        for name, process in running:
            try:
                process.wait(max(deadline - time.monotonic(), 0.1))
            except subprocess.TimeoutExpired:
                self.stubborn.append(name)
                process.kill()
                process.wait()
            unguarded(process)
