"""Child processes that never outlive the benchmark, and the CPU time of processes, from /proc."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parent.parent
#: Seconds that a process gets to end in good order.
GRACE = 15.0
_TICK = os.sysconf("SC_CLK_TCK")
_PR_SET_PDEATHSIG = 1


class BenchError(Exception):
    """A measurement cannot be made; the sentence says why."""


class Child:
    """A process of one role, in a process group of its own, ended with the benchmark."""

    def __init__(self, role: str, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self.role = role
        self.log = log
        with log.open("ab") as stream:
            self._process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **environment},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stream,
                text=True,
                start_new_session=True,
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - no threads here yet
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def check(self) -> None:
        """Raise BenchError if it has ended by itself."""
        if self._process.poll() is not None:
            raise BenchError(f"the {self.role} ended with {self._process.returncode}:\n{self.tail()}")

    def tail(self) -> str:
        """The end of what it wrote to stderr."""
        return self.log.read_text(errors="replace")[-3_000:]

    def read_line(self) -> str:
        """The next line of its stdout."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait(GRACE)
            raise BenchError(f"the {self.role} ended with {self._process.returncode}:\n{self.tail()}")
        return line.strip()

    def wait_line(self, wanted: str) -> None:
        """Read lines until this one; whatever else it prints is passed over."""
        while self.read_line() != wanted:
            pass

    def write_line(self, line: str) -> None:
        """Send a line to its stdin."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def stop(self) -> None:
        """End it: SIGTERM, and SIGKILL for its whole group after the grace period."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(GRACE)
            except subprocess.TimeoutExpired:
                pass
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()


def python(role: str, arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> Child:
    """Start ``python ARGUMENTS``."""
    return Child(role, [sys.executable, *arguments], environment, log)


@contextmanager
def connected_publisher(arguments: Sequence[str], environment: Mapping[str, str], folder: Path) -> Iterator[Child]:
    """A publisher's process that has said ``ready``; stopped at the end."""
    child = python("publisher", arguments, environment, folder / "publisher.log")
    try:
        child.wait_line("ready")
        yield child
    finally:
        child.stop()


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def cpu_seconds(pid: int) -> float:
    """CPU time so far of a process and of everything below it, in seconds; 0 when it is gone."""
    parents = _parents()
    family, grew = {pid}, True
    while grew:
        below = {child for child, parent in parents.items() if parent in family} - family
        family |= below
        grew = bool(below)
    return sum(_own_cpu(member) for member in family)


def _parents() -> dict[int, int]:
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            found[int(entry.name)] = int(fields[1])
    return found


def _stat(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _own_cpu(pid: int) -> float:
    fields = _stat(pid)
    # utime, stime, and those of children that have ended
    return sum(int(field) for field in fields[11:15]) / _TICK if fields else 0.0


def server_pid(url: str, default_port: int) -> int | None:
    """The process on this machine that listens at the URL's port; None where it cannot be seen."""
    port = urlsplit(url).port or default_port
    inodes = {f"socket:[{inode}]" for inode in _listening(port)}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and inodes and inodes & _sockets(entry):
            return int(entry.name)
    return None


def _listening(port: int) -> set[str]:
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:] if Path(table).exists() else ():
            fields = line.split()
            if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                inodes.add(fields[9])
    return inodes


def _sockets(process: Path) -> set[str]:
    try:
        return {str(fd.readlink()) for fd in (process / "fd").iterdir()}
    except OSError:
        return set()


def loop_ms() -> float:
    """How long a fixed piece of Python takes, in milliseconds: what the machine's speed is just now."""
    began = time.perf_counter()
    total = 0
    for number in range(2_000_000):
        total += number
    return (time.perf_counter() - began) * 1000


def wait_quiet(most: float, patience: float) -> float:
    """Wait until the CPUs are busy for less than the fraction ``most`` over a second; returns the last fraction."""
    deadline = time.monotonic() + patience
    while True:
        busy = _busy_fraction(1.0)
        if busy < most or time.monotonic() > deadline:
            return busy


def _busy_fraction(seconds: float) -> float:
    before = _cpu_ticks()
    time.sleep(seconds)
    after = _cpu_ticks()
    total = sum(after) - sum(before)
    idle = after[3] + after[4] - before[3] - before[4]
    return 1 - idle / total if total else 0.0


def _cpu_ticks() -> list[int]:
    return [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
