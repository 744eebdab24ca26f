"""The command line with a fault that no exception tells of: a body with a marker kills the process that parses it.

``python -m tests.faults.deadly run intake`` runs it; intake's child processes have the same fault.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

from dispatcher.core import admission, keys

#: This module, whose `answering` is that of intake's child processes.
MODULE = "tests.faults.deadly"
#: In a body: kills at once whoever parses it.
PARSED = b"kills-the-parser"
#: In a body: kills whoever looks for keys in it, even to show it.
SEEN = b"kills-whoever-looks"
#: In a body: whoever parses it never ends.
HANGS = b"hangs-the-parser"


def answering() -> Callable[[bytes], bytes]:
    """In the child: the product's own, with the fault."""
    from dispatcher.services import intake_child

    infect()
    return intake_child.answering()


def infect() -> None:
    """Put the fault into this process, and into the children that it will start."""
    from dispatcher.services import intake_suspects

    intake_suspects.CHILD_MODULE = MODULE
    parse_body, redact = admission.parse_body, keys.redact

    def parse(body: bytes) -> dict[str, Any]:
        _die_of(body, PARSED, SEEN)
        while HANGS in body:
            signal.pause()
        return parse_body(body)

    def look(body: bytes) -> bytes:
        _die_of(body, SEEN)
        return redact(body)

    admission.parse_body, keys.redact = parse, look


def _die_of(body: bytes, *markers: bytes) -> None:
    if any(marker in body for marker in markers):
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    from dispatcher.cli.main import main

    infect()
    main()
