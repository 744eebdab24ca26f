"""A command in a child process that is started anew whenever a Python file changes; for development.

The parent watches and signals, and does nothing else. The child holds one end of a pipe whose other end is the
parent's: when the parent dies, however that happens, the child stops as if it had been told to.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dispatcher.core.errors import DispatcherError

#: Milliseconds between two looks at the child and the signals, for which changes are gathered at most, and for which
#: nothing may change before they count.
_LOOK, _GATHERED, _QUIET = 200, 1_000, 100
#: Folders whose files are not the project's own, besides those that watchfiles leaves out and environments of Python.
_NOT_OURS = ("build", "dist", "site-packages")
_HOME = str(Path(__file__).resolve().parents[2])
#: The current folder is kept out (-P) until our own packages are imported, as for `dispatcher.edges.children`.
_CHILD = """
import sys
home, fd, *arguments = sys.argv[1:]
if home not in sys.path:
    sys.path.append(home)
from dispatcher.edges.reloading import end_with_parent
end_with_parent(int(fd))
from dispatcher.cli.main import main
main(arguments, prog_name="dispatcher")
"""


class ReloadUnavailable(DispatcherError):
    """The library that watches files is not installed."""


def end_with_parent(fd: int) -> None:
    """In the child: stop in good order once the parent, which holds the other end of the pipe, is gone."""

    def wait() -> None:
        os.read(fd, 1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="parent", daemon=True).start()


def supervise(arguments: Sequence[str], folder: Path, patience: float, tell: Callable[[str], None]) -> None:
    """Run ``dispatcher ARGUMENTS…`` until SIGTERM or Ctrl-C, and anew whenever a Python file in the folder changes.

    Args:
        arguments: of the command.
        folder: what is watched, with the folders in it.
        patience: seconds that the command gets to stop; then it is killed.
        tell: where messages go.

    Raises:
        ReloadUnavailable: watchfiles is not installed.
    """
    try:
        from watchfiles import PythonFilter, watch
    except ImportError:
        raise ReloadUnavailable("--reload needs the library watchfiles: pip install 'job-dispatcher[reload]'") from None

    class OwnFiles(PythonFilter):  # type: ignore[misc, unused-ignore]  # Any, where the library is not installed
        """Python files, but for those of environments."""

        ignore_dirs = (*PythonFilter.ignore_dirs, *_NOT_OURS)

        def __call__(self, change: Any, path: str) -> bool:
            return bool(super().__call__(change, path)) and not _in_environment(Path(path), folder)

    child = _Child(arguments, patience, tell)
    with _told_to_stop() as stop, child:
        turns = watch(
            folder,
            watch_filter=OwnFiles(),
            debounce=_GATHERED,
            step=_QUIET,
            rust_timeout=_LOOK,
            yield_on_timeout=True,
            stop_event=stop,
        )
        # the first turn comes when the watch is set: no change after the child's start is missed
        for changes in turns:
            if stop.is_set():
                break
            if changes:
                names = sorted({os.path.relpath(path, folder) for _, path in changes})
                tell(f"changed: {', '.join(names[:5])}{' …' if len(names) > 5 else ''}; starting again")
            child.keep_running(anew=bool(changes))


def _in_environment(path: Path, folder: Path) -> bool:
    return any((parent / "pyvenv.cfg").exists() for parent in path.parents if parent.is_relative_to(folder))


@contextmanager
def _told_to_stop() -> Iterator[threading.Event]:
    """An event that SIGTERM and SIGINT set."""
    stop = threading.Event()
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, lambda *_: stop.set()) for number in numbers]
    try:
        yield stop
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


class _Child:
    """The command's process, and the pipe by which it knows that we live."""

    def __init__(self, arguments: Sequence[str], patience: float, tell: Callable[[str], None]) -> None:
        self._arguments = arguments
        self._patience = patience
        self._tell = tell
        self._process: subprocess.Popen[bytes] | None = None
        self._ended = False
        self._theirs, self._ours = os.pipe()

    def __enter__(self) -> _Child:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()
        os.close(self._ours)
        os.close(self._theirs)

    def keep_running(self, *, anew: bool) -> None:
        """Start it, where it has not been or is to be anew; say so once where it ended by itself."""
        if self._process is None or anew:
            self._stop()
            self._start()
        elif not self._ended and (code := self._process.poll()) is not None:
            self._ended = True
            self._tell(f"the worker ended (exit code {code}); it starts again after the next change")

    def _start(self) -> None:
        # a file that changes twice within a second may keep its size: bytecode would be taken for the newer one
        env = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, "-P", "-c", _CHILD, _HOME, str(self._theirs), *self._arguments]
        self._process = subprocess.Popen(command, env=env, pass_fds=[self._theirs])
        self._ended = False

    def _stop(self) -> None:
        """Let it finish what it runs within its grace period and give the rest back."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(self._patience)
        except subprocess.TimeoutExpired:
            self._tell("the worker does not stop: killed; the broker gives what it held to the next one")
            self._process.kill()
            self._process.wait()
