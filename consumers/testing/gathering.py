"""The groups of a simulation, gathered as the dispatcher gathers them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import NamedTuple

from config import Settings
from consumers.testing.virtual import VirtualLoop
from dispatcher.core.grouping import Batch, Groups, Member, group_key, partition_of
from dispatcher.edges import clock
from schemas import WorkMessage


class Unit(NamedTuple):
    """What starts together: one step, or those of a batch, which has an id."""

    works: tuple[WorkMessage, ...]
    batch: str | None = None

    @property
    def type(self) -> str:
        """The type that all of them have."""
        return self.works[0].type

    @property
    def priority(self) -> str:
        """The priority that all of them have."""
        return self.works[0].priority

    def apart(self) -> list[Unit]:
        """Its steps one by one, which still know their batch."""
        return [Unit((work,), self.batch) for work in self.works]


class Gathering:
    """The open groups.

    Args:
        loop: whose time counts.
        settings: how many members may wait.
        complete: called with each batch.
    """

    def __init__(self, loop: VirtualLoop, settings: Settings, complete: Callable[[Unit], None]) -> None:
        self._loop = loop
        self._groups = Groups(settings.intake.group_members, settings.intake.group_bytes)
        self._complete = complete
        self._timer: asyncio.TimerHandle | None = None

    def add(self, work: WorkMessage) -> bool:
        """Take a step that is a member of a group; whether it is."""
        partition = partition_of(work)
        if work.group is None or partition is None:
            return False
        alone = work.model_copy(update={"group": None, "seq": work.seq + 1})
        member = Member(work.id, work.run, work.seq, work.accepted_at, alone.encode(), [])
        key = group_key(work, work.group)
        # its age is 0: here a step arrives when it is accepted, or at the time for which it asked
        self._flush(self._groups.add(partition, key, work.group, member, 0.0, self._loop.time()))
        return True

    def _flush(self, batches: Iterable[Batch]) -> None:
        for group, _ in batches:
            works = (WorkMessage.decode(member.body) for member in group.members.values())
            self._complete(Unit(tuple(works), clock.new_id()))
        if self._timer is not None:
            self._timer.cancel()
        at = self._groups.next_at()
        self._timer = None if at is None else self._loop.call_at(at, self._wait_is_over, at)

    def _wait_is_over(self, at: float) -> None:
        self._flush(self._groups.due(at))  # the loop's clock may be a little short of it
