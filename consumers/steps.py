"""A step of a job that a worker holds, or a batch of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from dispatcher.edges.amqp import Delivery
from schemas import BatchMessage, WorkMessage, is_batch

StepKey = tuple[str, str, int, int]


def step_key(work: WorkMessage) -> StepKey:
    """What tells a step from every other: app, id, run and number in the run."""
    return (work.app, work.id, work.run, work.seq)


#: The payload of a larger message is read again when its handler is to run, in bytes: as Python objects a hostile one
#: takes some twenty times as much.
LARGE = 4_096


@dataclass(slots=True, eq=False)
class Step:
    """A step with every delivery of it (a duplicate joins the first).

    Of a batch ``work`` is the first member's, which has app, type, lane and priority in common with the others. A
    member shares the deliveries of its batch, and is settled by itself; they are when none is left in ``members``.
    """

    work: WorkMessage
    #: Whether no other step of its run can be on its way; else history is asked whether the run is over.
    only: bool = False
    #: Whether it is run in a child process, since it may kill its process.
    alone: bool = False
    deliveries: list[Delivery] = field(default_factory=list)
    #: Of a batch and of its members: the batch's id.
    batch: str | None = None
    #: Of a batch: those of its steps that are not settled.
    members: dict[StepKey, Step] = field(default_factory=dict)
    #: Of a member: its batch.
    whole: Step | None = None
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
            for step in {self, *self.parts}:
                step.work = step.work.model_copy(update={"payload": {}})

    def load(self) -> None:
        """Read a large payload again."""
        body = self.deliveries[0].body
        if len(body) <= LARGE:
            return
        if not self.is_batch:
            self.work = WorkMessage.decode(body)
            return
        for work in BatchMessage.decode(body).members:
            if (member := self.members.get(step_key(work))) is not None:
                member.work = work

    @property
    def is_batch(self) -> bool:
        """Whether it is a batch, of which none, some or all members are left."""
        return self.batch is not None and self.whole is None

    @property
    def parts(self) -> Iterable[Step]:
        """The steps that it consists of: the members of a batch, else itself."""
        return self.members.values() if self.is_batch else (self,)

    @property
    def keys(self) -> Iterable[StepKey]:
        """Their keys."""
        return self.members if self.is_batch else (self.key,)

    @property
    def queue(self) -> str:
        """The queue that it came from."""
        return self.deliveries[0].queue

    @property
    def key(self) -> StepKey:
        """What tells it from every other, also a batch from its members."""
        if self.batch is None or self.whole is not None:
            return step_key(self.work)
        return ("", self.batch, self.work.run, self.work.seq)

    @property
    def first(self) -> bool:
        """Whether it is its run's first, which follows from no other of a worker's."""
        return self.work.seq == (2 if self.is_batch else 1)

    @property
    def headers(self) -> dict[str, str] | None:
        """The headers of a message that carries it."""
        return None if self.is_batch else self.work.headers


def read_step(delivery: Delivery) -> Step:
    """The step, or the batch of steps, that was delivered.

    Raises:
        pydantic.ValidationError: the message is neither.
    """
    if not is_batch(delivery.body):
        return Step(WorkMessage.decode(delivery.body), deliveries=[delivery])
    message = BatchMessage.decode(delivery.body)
    whole = Step(message.members[0], deliveries=[delivery], batch=message.batch)
    for work in message.members:
        member = Step(work, deliveries=whole.deliveries, batch=message.batch, whole=whole)
        whole.members[step_key(work)] = member
    return whole
