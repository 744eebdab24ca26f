"""What a full worker gives back, and what it consumes again: never the higher priorities before the lower ones."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest

from consumers.read_ahead import ReadAhead, outranking_nothing, rank
from dispatcher.core.topology import Names
from schemas import PRIORITIES

NAMES = Names("p.")
HIGH, LOW = NAMES.work_queue("default", "high"), NAMES.work_queue("default", "low")
OTHER_LANE = NAMES.work_queue("slow", "high")


class Consuming:
    """Stands for the consumer: queues with what waits in them and how many others consume them."""

    def __init__(self, counts: dict[str, tuple[int, int]], paused: Iterable[str] = ()) -> None:
        self._counts = counts
        self.paused = frozenset(paused)

    async def counts(self, queue: str) -> tuple[int, int]:
        """What was given."""
        return self._counts[queue]

    async def pause(self, queues: Iterable[str]) -> None:
        """Take note."""
        self.paused |= set(queues)

    async def resume(self, queues: Iterable[str]) -> None:
        """Take note."""
        self.paused -= set(queues)


def watching(consumer: Any, held: set[str], given: list[str]) -> ReadAhead:
    """A read-ahead of a worker that has held these queues' jobs for long."""
    return ReadAhead(consumer, lambda: held, given.extend)


@pytest.mark.parametrize("priority", PRIORITIES)
def test_the_rank_is_the_queues_priority(priority: str) -> None:
    """From its name, whatever the lane is called."""
    assert rank(NAMES.work_queue("low", priority)) == PRIORITIES.index(priority)


def test_what_outranks_something_that_stays_stays_too() -> None:
    """Within its lane; another lane's jobs are somebody else's."""
    assert outranking_nothing({HIGH: True, LOW: False}) == []
    assert outranking_nothing({HIGH: False, LOW: True}) == [LOW]
    assert outranking_nothing({HIGH: True, LOW: True}) == [LOW, HIGH]
    assert outranking_nothing({HIGH: True, LOW: False, OTHER_LANE: True}) == [OTHER_LANE]
    assert outranking_nothing({}) == []


@pytest.mark.parametrize(("waiting", "given_back"), [(500, []), (0, [LOW, HIGH])])
async def test_high_jobs_are_kept_while_low_ones_wait_everywhere(waiting: int, given_back: list[str]) -> None:
    """Low jobs in the broker mean that no other worker has a place; else both go."""
    consumer, given = Consuming({HIGH: (0, 2), LOW: (waiting, 2)}), list[str]()
    ahead = watching(consumer, {HIGH, LOW}, given)
    ahead.start()
    await asyncio.sleep(0.4)
    await ahead.stop()
    assert given[: len(given_back)] == given_back
    assert bool(given) == bool(given_back)
    assert consumer.paused == set(given_back)


async def test_a_place_that_a_low_job_took_brings_the_high_queue_back() -> None:
    """Else a worker whose low jobs never run out would receive no high one any more."""
    consumer = Consuming({}, {HIGH, NAMES.work_queue("default", "background")})
    ahead = watching(consumer, set(), [])
    ahead.place_taken(PRIORITIES.index("critical"))
    await asyncio.sleep(0)
    assert HIGH in consumer.paused
    ahead.place_taken(PRIORITIES.index("low"))
    await asyncio.sleep(0.01)
    assert consumer.paused == {NAMES.work_queue("default", "background")}
    ahead.place_free()
    await asyncio.sleep(0.01)
    assert consumer.paused == set()


async def test_a_stop_lets_a_question_to_the_broker_end() -> None:
    """aiormq closes the channel of a call that is cancelled, and the worker could not stop in good order any more."""
    asked, answered = asyncio.Event(), asyncio.Event()

    class Slow(Consuming):
        """Answers late."""

        async def counts(self, queue: str) -> tuple[int, int]:
            asked.set()
            await asyncio.sleep(0.05)
            answered.set()
            return await super().counts(queue)

    consumer, given = Slow({LOW: (0, 2)}), list[str]()
    ahead = watching(consumer, {LOW}, given)
    ahead.start()
    await asked.wait()
    await ahead.stop()
    assert answered.is_set()
    assert not given, "what is held is given back by the stop itself"
    assert not consumer.paused
