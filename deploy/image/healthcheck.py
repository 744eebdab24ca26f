"""The image's health check: exit code 0 where /healthz (or the path that is given) answers 200, else 1 with the reason.

A command that is no service (`topology apply`, `jobs list`, …) has no /healthz; it is healthy while it runs.
Standard library only, started with ``python -I -S`` every few seconds.
"""

import http.client
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

#: Commands of `dispatcher` that serve /healthz (dispatcher/cli/run.py).
SERVICES = ("run", "worker", "up")
#: Longest wait for the answer, in seconds; shorter than the check's own timeout.
TIMEOUT = 4.0


def is_service(command: str) -> bool:
    """Whether a command line serves /healthz. One that does not name `dispatcher`, as a script of one's own, may."""
    found = re.search(r"(?:^|[/\s])dispatcher\s+(\S+)", command)
    return found is None or found[1] in SERVICES


def problem(port: int, path: str = "/healthz") -> str:
    """What is wrong with a path on this machine's port; empty where nothing is."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
    try:
        connection.request("GET", path)
        status = connection.getresponse().status
    except OSError as error:
        return f"{path} on port {port} does not answer: {error}"
    finally:
        connection.close()
    return "" if status == 200 else f"{path} on port {port} answers {status}"


def main(arguments: Sequence[str]) -> int:
    """Check the container's first process, by the path in the arguments where there is one."""
    command = Path("/proc/1/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    if not is_service(command):
        print("healthy: no service, so there is no /healthz to ask")
        return 0
    reason = problem(int(os.environ.get("DISPATCHER_HTTP__PORT") or 8080), *arguments)
    print(reason or "healthy")
    return 1 if reason else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
