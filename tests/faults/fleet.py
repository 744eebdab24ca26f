"""Services as processes of their own, which a test can kill and start again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

#: The command of each member.
COMMANDS = {
    "intake": ["run", "intake"],
    "recorder": ["run", "recorder"],
    "scheduler": ["run", "scheduler"],
    "worker": ["worker", "tests.faults.handlers:jobs"],
}


class Fleet:
    """One process a service; their logs are kept in a folder."""

    def __init__(self, environment: Mapping[str, str], folder: Path) -> None:
        self._environment = os.environ | dict(environment)
        self._folder = folder
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        #: How often each was killed.
        self.kills: dict[str, int] = dict.fromkeys(COMMANDS, 0)

    def start(self, *names: str) -> None:
        """Start services."""
        for name in names:
            with (self._folder / f"{name}.log").open("ab") as log:
                self._processes[name] = subprocess.Popen(
                    [sys.executable, "-m", "dispatcher.cli.main", *COMMANDS[name]],
                    env=self._environment,
                    stderr=log,
                    stdout=log,
                )

    def kill(self, name: str) -> None:
        """``kill -9``, then start it again."""
        process = self._processes[name]
        assert process.poll() is None, f"{name} had ended by itself: {self.log(name)[-2000:]}"
        process.send_signal(signal.SIGKILL)
        process.wait()
        self.kills[name] += 1
        self.start(name)

    def ended(self) -> list[str]:
        """Services that ended by themselves."""
        return [name for name, process in self._processes.items() if process.poll() is not None]

    def log(self, name: str) -> str:
        """What a service logged, over all its lives."""
        return (self._folder / f"{name}.log").read_text(errors="replace")

    def __enter__(self) -> Fleet:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes.values():
            process.terminate()
        for process in self._processes.values():
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
