"""Waiting for the end of a run: every job final, every queue empty; as long as there is progress."""

from __future__ import annotations

import asyncio
import contextlib
import time

import pymongo
from pymongo.errors import PyMongoError

from dispatcher.core.lifecycle import FINAL
from tests.faults.faults import Scene
from tests.faults.load import Published

#: Seconds between two looks.
EVERY = 0.5


class Settling:
    """Waits; `final` is how many jobs were final when it last looked."""

    def __init__(self, scene: Scene, published: Published, patience: float) -> None:
        self._scene = scene
        self._published = published
        self._executions = scene.executions
        self._patience = patience
        self.final = 0

    async def wait(self) -> tuple[dict[str, int], list[str]]:
        """Wait for the end, or until nothing moved for as long as the patience lasts.

        Returns:
            Messages left by queue, the parked ones apart, and what there is to say.
        """
        known: tuple[int, ...] = ()
        moved = time.monotonic()
        while True:
            open_jobs, left, now = await asyncio.to_thread(self._look)
            if not open_jobs and not any(left.values()):
                return left, []
            if now != known:
                known, moved = now, time.monotonic()
            if time.monotonic() - moved > self._patience:
                left = await asyncio.to_thread(self._left)
                return left, [f"nothing moved for {self._patience:g} s: {open_jobs} jobs are not final, left {left}"]
            await asyncio.sleep(EVERY)

    def look(self) -> dict[str, int]:
        """Documents by state; none where MongoDB is away."""
        jobs = self._scene.installation.db.jobs
        counts: dict[str, int] = {}
        with contextlib.suppress(PyMongoError), pymongo.timeout(5):
            counts = {row["_id"]: row["count"] for row in jobs.aggregate([{"$sortByCount": "$state"}])}
            self.final = sum(n for state, n in counts.items() if state in FINAL)
        return counts

    def _look(self) -> tuple[int, dict[str, int], tuple[int, ...]]:
        """Jobs that are not final, messages left, and everything that moves while there is progress."""
        counts = self.look()
        written = self._executions.stat().st_size if self._executions.exists() else 0
        waiting = sum(counts.values()) - self.final
        missing = max(len(self._published.acknowledged) - sum(counts.values()), 0)
        left = self._left() if not waiting + missing else {}
        return waiting + missing, left, (self.final, waiting, written, sum(left.values()))

    def _left(self) -> dict[str, int]:
        """Messages, ready or not, in every queue but those of parked jobs."""
        prefix, counts = self._scene.installation.names.prefix, {}
        for line in self._scene.rabbit.ctl("list_queues", "name", "messages").splitlines():
            name, _, count = line.partition("\t")
            if name.startswith(prefix) and count.isdigit() and not name.startswith(f"{prefix}parked."):
                counts[name.removeprefix(prefix)] = int(count)
        return {name: count for name, count in counts.items() if count}
