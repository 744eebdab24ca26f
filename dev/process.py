"""One server process of ours: started in a process group of its own, stopped, killed, never left behind."""

import atexit
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

Log = Callable[[str], object]

#: Ports are taken from below the range from which Linux serves outgoing connections: a client that keeps
#: trying the port of a killed server could otherwise be given that very port, and connect to itself.
_PORTS = range(20_000, 32_000)


class ServerError(RuntimeError):
    """A server can be neither found nor started; the message says what to do."""


class LocalServer(ABC):
    """A server as a process of this machine. As a context manager: started and ready inside, killed at the end."""

    @abstractmethod
    def start(self) -> None:
        """Start it and return at once."""

    @abstractmethod
    def wait_ready(self, timeout: float = 60) -> None:
        """Return when it answers; ServerError, with the end of its log, when it does not."""

    @abstractmethod
    def kill(self) -> None:
        """kill -9, at once; nothing where it does not run."""

    def __enter__(self) -> Self:
        try:
            self.start()
            self.wait_ready()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()


class ServerProcess:
    """A program with its output in `folder/<name>.out` and its process id in `folder/<name>.pid`."""

    def __init__(self, name: str, command: Sequence[str | Path], *, folder: Path, env: Mapping[str, str]) -> None:
        self.name = name
        self.output = folder / f"{name}.out"
        self._command = [str(part) for part in command]
        self._folder = folder
        self._env = dict(env)
        self._pid_file = folder / f"{name}.pid"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the program; does nothing while it runs."""
        if self.running():
            return
        with self.output.open("ab") as output:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self._env,
                cwd=self._folder,
                start_new_session=True,
            )
        _guard.watch(self._process.pid)
        record = {"pid": self._process.pid, "born": _born(self._process.pid)}
        self._pid_file.write_text(json.dumps(record), encoding="utf-8")

    def running(self) -> bool:
        """Whether the program was started and has not ended."""
        process = self._process
        return process is not None and process.poll() is None

    def stop(self, timeout: float) -> None:
        """Ask the program to end (SIGTERM); kill it after `timeout` seconds."""
        process = self._process
        if process is not None and self.running():
            process.terminate()
            try:
                process.wait(timeout)
            except subprocess.TimeoutExpired:
                pass
        self.kill()

    def kill(self) -> None:
        """End the program and its children at once (SIGKILL to the group); returns when it is gone."""
        process = self._process
        if process is None:
            return
        _kill_group(process.pid)
        process.wait()
        _guard.forget(process.pid)
        self._process = None
        self._pid_file.unlink(missing_ok=True)

    def tail(self, *more: Path, lines: int = 25) -> str:
        """The last lines of its output, and of other log files, for an error message."""
        return "\n".join(_tail(path, lines) for path in (self.output, *more) if path.is_file())


def guarded(process: subprocess.Popen[bytes]) -> None:
    """Have a process, which leads its own process group, killed with its group when this one is gone."""
    _guard.watch(process.pid)


def unguarded(process: subprocess.Popen[bytes]) -> None:
    """It has ended."""
    _guard.forget(process.pid)


class _Guard:
    """The feeder's side of dev.guard: one guard for each process that starts servers."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0

    def watch(self, group: int) -> None:
        self._send(f"+{group}\n")

    def forget(self, group: int) -> None:
        self._send(f"-{group}\n")

    def _send(self, line: str) -> None:
        with self._lock:
            stdin = self._started().stdin
            assert stdin is not None
            try:
                stdin.write(line.encode())
                stdin.flush()
            except BrokenPipeError:  # someone ended the guard; the servers can do without it
                pass

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._owner != os.getpid():
            self._process = subprocess.Popen(
                [sys.executable, "-S", "-E", str(Path(__file__).with_name("guard.py"))],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            self._owner = os.getpid()
        return self._process

    def close(self) -> None:
        """Let the guard end, and kill what is left; called when the interpreter exits."""
        if self._process is not None and self._owner == os.getpid():
            try:
                self._process.communicate(timeout=5)
            except (BrokenPipeError, subprocess.TimeoutExpired):
                pass


_guard = _Guard()
atexit.register(_guard.close)


def end_recorded(pid_file: Path, timeout: float = 5) -> bool:
    """Kill the process group that an earlier run recorded in `pid_file`; True when there was one.

    The process's time of birth is compared, so that a process which merely got the same number is spared.
    """
    try:
        record = json.loads(pid_file.read_text(encoding="utf-8"))
        pid, born = int(record["pid"]), record["born"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    alive = born is not None and _born(pid) == str(born)
    if alive:
        _kill_group(pid)
        wait_until(lambda: _born(pid) != str(born), timeout)
    pid_file.unlink(missing_ok=True)
    return alive


def wait_until(done: Callable[[], bool], timeout: float, interval: float = 0.05) -> bool:
    """Ask `done` again and again; False when it was not true within `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not done():
        if time.monotonic() > deadline:
            return False
        time.sleep(interval)
    return True


def free_ports(names: Sequence[str]) -> dict[str, int]:
    """A free TCP port for each name, all different."""
    found: dict[str, int] = {}
    candidates = iter(random.sample(_PORTS, k=2_000))
    for name in names:
        found[name] = next(port for port in candidates if _is_free(port))
    return found


def kept_ports(folder: Path, names: Sequence[str]) -> dict[str, int]:
    """The ports that `folder` used before, where they are still free; else new ones, kept for next time."""
    kept = folder / "ports.json"
    try:
        ports: dict[str, int] = json.loads(kept.read_text(encoding="utf-8"))
        if set(ports) == set(names) and all(_is_free(port) for port in ports.values()):
            return ports
    except (OSError, ValueError):
        pass
    ports = free_ports(names)
    kept.write_text(json.dumps(ports), encoding="utf-8")
    return ports


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _kill_group(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):  # gone (macOS says the latter of a zombie)
        pass


def _born(pid: int) -> str | None:
    """When the process started, in the system's own words; None when it has ended."""
    stat = Path(f"/proc/{pid}/stat")
    if stat.parent.parent.joinpath("self").exists():
        try:
            state, *fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            return None
        return None if state == "Z" else fields[18]
    found = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True)
    return found.stdout.strip() or None


def _tail(path: Path, lines: int) -> str:
    text = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join([f"--- {path} (last lines)", *text[-lines:]])
