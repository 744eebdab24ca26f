"""Publishing what a worker holds and does not run to a queue, where it is taken anew: its own, or another."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from consumers.holding import Holding
from consumers.steps import Step
from dispatcher.core.dated import not_work
from dispatcher.core.topology import Names
from dispatcher.edges import clock, log, metrics
from dispatcher.edges.amqp import Delivery, Outbox, Outgoing, marked_again

_logger = log.get("worker")


class PassingOn:
    """Passes on for one worker.

    Args:
        names, suspects: of queues; the queues of suspects.
        outbox: publishes.
        held: what it holds; what is passed on is another delivery when it comes again, to be settled by itself.
        done: called with deliveries that are replaced.
    """

    def __init__(
        self,
        names: Names,
        suspects: frozenset[str],
        outbox: Outbox,
        held: Holding,
        done: Callable[[Iterable[Delivery]], None],
    ) -> None:
        self._names = names
        self._outbox = outbox
        self._held = held
        self._done = done
        self._suspects = suspects

    def set_apart(self, step: Step) -> None:
        """The processes that held this step died again and again, perhaps because of it."""
        work = step.work
        _logger.warning("set apart: its workers died", app=work.app, job=work.id, run=work.run, attempt=work.n)
        metrics.of(metrics.suspects, work.lane).inc()
        self.take_apart(step, self._names.suspect(self._lane_of(step.queue)))

    def take_apart(self, step: Step, queue: str) -> None:
        """Publish a step to a queue, the members of a batch each by itself."""
        self._held.forget(step)
        if step.is_batch:
            step.load()
            self._publish(step, [Outgoing("", queue, part.work.encode(), part.work.headers) for part in step.parts])
        else:
            self._publish(step, [Outgoing("", queue, step.deliveries[0].body, step.headers)])

    def give_up(self, step: Step) -> None:
        """Publish a step to its queue anew: another worker may have a place."""
        metrics.of(metrics.given_back, step.work.lane).inc()
        self._publish(step, [Outgoing("", step.queue, step.deliveries[0].body, step.headers)])

    def _publish(self, step: Step, messages: list[Outgoing]) -> None:
        if step.is_batch and not step.only:  # some of its members may be settled
            messages = list(map(marked_again, messages))
        self._outbox.add(messages, [], partial(self._done, step.deliveries))

    def park_poison(self, delivery: Delivery) -> None:
        """Park what is no work message."""
        _logger.error("message in a work queue is not ours", queue=delivery.queue)
        parked = self._names.parked(self._lane_of(delivery.queue))
        message = Outgoing("", parked, delivery.body, not_work(clock.now_ms()))
        self._outbox.add([message], [], partial(self._done, [delivery]))

    def _lane_of(self, queue: str) -> str:
        """The lane of a work queue, or of a queue of suspects."""
        if queue in self._suspects:
            return queue.removeprefix(self._names.suspect(""))
        return queue.removeprefix(self._names.work + ".").rpartition(".")[0]
