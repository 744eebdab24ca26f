"""What happens, on stderr."""

from __future__ import annotations

import sys
import time

_BEGAN = time.monotonic()


def say(line: object) -> None:
    """One line of progress."""
    print(f"bench {time.monotonic() - _BEGAN:6.1f} s  {line}", file=sys.stderr, flush=True)
