"""Which steps cannot have a double, so that history need not be asked about their run; and which are doubles.

A run forks where a step is delivered again although the next one is on its way: its acknowledgement was lost, with
the channel that it belonged to. As long as that channel lives, the step that it delivered cannot come back. So a
step is known to be the only one of its run if it is the run's first and delivered for the first time, or if this
worker sent it out itself, from a step known to be the only one, and gets it on the same channel.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

from consumers.steps import StepKey, step_key
from dispatcher.edges.amqp import Delivery
from schemas import WorkMessage

#: Most steps to remember; a forgotten one costs a question, or another execution.
MOST = 10_000
#: Settled steps to remember, at least: as many as a worker settles while others reconnect after a crash of the broker.
MOST_SETTLED = 50_000


class Lineage:
    """The steps that this worker sent into the delay ladder, and the channel on which each one's parent came."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._sent: OrderedDict[StepKey, Hashable] = OrderedDict()

    def sent(self, following: WorkMessage, parent: Delivery) -> None:
        """A step that was the only one of its run is followed by this one."""
        self._sent[step_key(following)] = parent.session
        if len(self._sent) > self._most:
            self._sent.popitem(last=False)

    def is_only(self, work: WorkMessage, delivery: Delivery) -> bool:
        """Whether this step, just delivered, is known to be the only one of its run. To be asked once a delivery."""
        if delivery.redelivered:
            return False
        return work.seq == 1 or self._sent.pop(step_key(work), None) is delivery.session


class Settled:
    """The steps that this worker settled last, at least ``most`` of them: everything that follows is confirmed.

    What comes back of them, because an acknowledgement was lost or somebody published them twice, says nothing new.
    History would say so too, but not before the recorder has written it; under load that may take a while. An id whose
    job was erased may come again as that of another job, which was accepted at another time.
    """

    def __init__(self, most: int = MOST_SETTLED) -> None:
        self._most = most
        self._latest: dict[StepKey, int] = {}
        self._before: dict[StepKey, int] = {}

    def __contains__(self, key: StepKey) -> bool:
        return key in self._latest or key in self._before

    def has(self, work: WorkMessage, again: bool) -> bool:
        """Whether a step is one of them; ``again``: it may have been delivered or published before.

        Intake says so of a job that it publishes a second time, with another time of acceptance.
        """
        key = step_key(work)
        accepted_at = self._latest.get(key, self._before.get(key))
        return accepted_at is not None and (again or accepted_at == work.accepted_at)

    def add(self, work: WorkMessage) -> None:
        """What replaces the step is confirmed."""
        self._latest[step_key(work)] = work.accepted_at
        if len(self._latest) == self._most:
            self._before, self._latest = self._latest, {}
