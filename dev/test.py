"""`make test`: run pytest on real servers; what is given besides is passed on to it."""

import os
import sys
from collections.abc import Sequence

from dev.servers import ServerError, Servers, servers, shown
from dev.signals import ending_unwinds, run_child

_NO_TESTS = 5  # pytest's exit code when it ran none: a failure, since then nothing was tested


def main(arguments: Sequence[str]) -> int:
    """Start what is needed, run pytest, and return its exit code."""
    try:
        with ending_unwinds(), servers(containers="testcontainers") as found:
            _say(found)
            code = run_child(_command(arguments), os.environ | found.environment())
    except ServerError as error:
        print(f"test: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    if code == _NO_TESTS:
        print("test: no test ran, which counts as a failure", file=sys.stderr)
    return code


def _say(found: Servers) -> None:
    started = ", ".join(found.started) or "nothing"
    print(f"test: AMQP {shown(found.amqp_url)}, MongoDB {shown(found.mongo_url)}")
    print(f"test: started {started}", flush=True)


def _command(arguments: Sequence[str]) -> list[str]:
    """Two processes by default, a file in one of them: its tests share a prefix and a database.

    Files keep their order, in which the slow ones come first: otherwise one process has the slowest left at the end.
    """
    spread = ["-n", "2", "--dist", "loadfile", "--no-loadscope-reorder"]
    chosen = any(argument.startswith(("-n", "--numprocesses", "--pdb")) for argument in arguments)
    return [sys.executable, "-m", "pytest", *([] if chosen else spread), *arguments]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
