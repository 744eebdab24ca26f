"""A step of a job that a worker holds."""

from __future__ import annotations

from dataclasses import dataclass, field

from dispatcher.edges.amqp import Delivery
from schemas import WorkMessage

StepKey = tuple[str, str, int, int]


def step_key(work: WorkMessage) -> StepKey:
    """What tells a step from every other: app, id, run and number in the run."""
    return (work.app, work.id, work.run, work.seq)


#: The payload of a larger message is read again when its handler is to run, in bytes: as Python objects a hostile one
#: takes some twenty times as much.
LARGE = 4_096


@dataclass(slots=True, eq=False)
class Step:
    """A step with every delivery of it (a duplicate joins the first)."""

    work: WorkMessage
    #: Whether no other step of its run can be on its way; else history is asked whether the run is over.
    only: bool
    #: Whether it is run in a child process, since it may kill its process.
    alone: bool = False
    deliveries: list[Delivery] = field(default_factory=list)
    #: Whether its handler runs, or ran.
    started: bool = False
    #: Whether what follows from it is on its way: it is settled by that, and not given back any more.
    followed: bool = False
    #: Since when it has waited for a free place, in seconds of the monotonic clock.
    ready_at: float = 0.0
    #: When history was last asked about its run, in seconds of the monotonic clock.
    asked_at: float = float("-inf")

    def lighten(self) -> None:
        """Let go of a large payload while the step waits; the message has it."""
        if len(self.deliveries[0].body) > LARGE:
            self.work = self.work.model_copy(update={"payload": {}})

    def load(self) -> None:
        """Read a large payload again."""
        if len(body := self.deliveries[0].body) > LARGE:
            self.work = WorkMessage.decode(body)

    @property
    def queue(self) -> str:
        """The queue that it came from."""
        return self.deliveries[0].queue

    @property
    def key(self) -> StepKey:
        """What tells it from every other."""
        return step_key(self.work)
