"""Handlers whose child processes leave processes behind (who reaps them?), or take more memory than there is."""

import subprocess
from typing import Any

from consumers import Registry

jobs = Registry()


@jobs.handler("leaving.behind", isolate="process")
def behind(payload: dict[str, Any]) -> None:
    """Start a program and leave it: it outlives its parent, and nobody of ours waits for it."""
    subprocess.run(["sh", "-c", "setsid sleep 0.5 &"], check=True)


@jobs.handler("leaving.timeout", isolate="process", timeout=0.5)
def timeout(payload: dict[str, Any]) -> None:
    """Is killed at its timeout."""
    subprocess.run(["sleep", "60"], check=True)


@jobs.handler("leaving.greedy", isolate="process")
def greedy(payload: dict[str, Any]) -> None:
    """Take memory until there is none left."""
    taken = []
    while True:
        taken.append(b"x" * 2**20)


@jobs.handler("leaving.modest")
async def modest(payload: dict[str, Any]) -> None:
    """Take none."""
