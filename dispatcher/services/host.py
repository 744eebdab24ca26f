"""Running services in a process: logs, probes, signals, an orderly stop."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Sequence
from typing import Protocol

from config import Settings
from dispatcher.edges import allocator, log, meters
from dispatcher.edges.http import HttpServer

_logger = log.get("host")

#: Seconds after which a thread that waits may take the interpreter from another.
SWITCH_INTERVAL = 0.0005
#: Seconds between two times that free memory is returned to the system.
GIVE_BACK_EVERY = 30.0


class Service(Protocol):
    """What a process can run. Starting never waits for a server that is away."""

    name: str

    async def start(self) -> None:
        """Begin to work, in the background."""

    async def stop(self) -> None:
        """Finish what is under way and stop."""

    def checks(self) -> dict[str, bool]:
        """Everything that must be fine for readiness, by name."""


async def serve(settings: Settings, services: Sequence[Service], stop: asyncio.Event | None = None) -> None:
    """Run services until SIGTERM, SIGINT or ``stop``; they stop in reverse order.

    Raises:
        HttpError: the port of the probes is taken.
    """
    # Motor does its I/O in threads; with the default of 5 ms each of its steps may wait that long for a busy loop
    sys.setswitchinterval(SWITCH_INTERVAL)
    stop = stop or asyncio.Event()
    http = HttpServer(settings.http.host, settings.http.port, lambda: _checks(services))
    await http.start()
    giving_back = asyncio.create_task(_give_back(), name="memory")
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    started: list[Service] = []
    try:
        for service in services:
            await service.start()
            started.append(service)
            meters.show_ready(service.name, service.checks)
            _logger.info("started", service=service.name)
        await stop.wait()
        _logger.info("stopping")
    finally:
        for service in reversed(started):
            await service.stop()
        giving_back.cancel()
        await http.close()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
    _logger.info("stopped")


async def _give_back() -> None:
    """A peak (a backlog, a huge result) must not be this process's size for good."""
    while True:
        await asyncio.sleep(GIVE_BACK_EVERY)
        await asyncio.to_thread(allocator.give_back)


def _checks(services: Sequence[Service]) -> dict[str, bool]:
    checks = {f"{service.name}.{name}": fine for service in services for name, fine in service.checks().items()}
    return checks or {"host": True}
