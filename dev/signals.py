"""What a command of ours does with signals while servers run: unwind, and clean up undisturbed."""

import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType

_ENDING = (signal.SIGTERM, signal.SIGHUP)


def _exit(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


@contextmanager
def ending_unwinds() -> Iterator[None]:
    """SIGTERM and SIGHUP raise SystemExit, as Ctrl-C raises KeyboardInterrupt: `finally` is reached.

    Ctrl-C's own signal is set too: a shell's background job ignores it, and so would the programs it starts.
    """
    with _handling(_ENDING, _exit), _handling((signal.SIGINT,), signal.default_int_handler):
        yield


@contextmanager
def undisturbed() -> Iterator[None]:
    """Ctrl-C, SIGTERM and SIGHUP are ignored: for a clean-up that must be finished."""
    with _handling((signal.SIGINT, *_ENDING), signal.SIG_IGN):
        yield


def run_child(command: Sequence[str], env: Mapping[str, str], grace: float = 15) -> int:
    """Run a command in the foreground; if we are asked to end, it is too, and given `grace` seconds."""
    child = subprocess.Popen(list(command), env=dict(env))
    try:
        return child.wait()
    except BaseException as why:
        with undisturbed():
            if not isinstance(why, KeyboardInterrupt):  # Ctrl-C reached the child by itself
                child.send_signal(signal.SIGINT)
            _end(child, grace)
        raise


def _end(child: subprocess.Popen[bytes], grace: float) -> None:
    for harder in (signal.SIGTERM, signal.SIGKILL):
        try:
            child.wait(grace)
            return
        except subprocess.TimeoutExpired:
            child.send_signal(harder)
    child.wait()


@contextmanager
def _handling(
    numbers: Sequence[signal.Signals], handler: signal.Handlers | Callable[[int, FrameType | None], None]
) -> Iterator[None]:
    """Handle the signals so meanwhile; only the main thread can, elsewhere nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier if earlier is not None else signal.SIG_DFL)
