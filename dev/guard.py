"""Kills the server processes of a run whose Python process is gone, however it went (kill -9 too).

Run by dev.process, which feeds it lines: `+GROUP` to watch a process group, `-GROUP` to forget it. The end of
the input means that the feeder is gone: what is still watched is killed. Standard library only.
"""

import os
import signal
import sys


def main() -> None:
    """Follow the lines until the feeder is gone, then kill what it left behind."""
    watched: set[int] = set()
    for line in sys.stdin:
        group = int(line[1:])
        if line[0] == "+":
            watched.add(group)
        else:
            watched.discard(group)
    for group in watched:
        try:
            os.killpg(group, signal.SIGKILL)
        except ProcessLookupError:
            pass


if __name__ == "__main__":
    main()
