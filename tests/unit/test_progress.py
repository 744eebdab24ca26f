"""Progress: what handlers may report, how often history hears of it, and how it is merged."""

from __future__ import annotations

import asyncio
import itertools
import math
import threading
from typing import Any, cast

import pytest

from consumers import Context, progress
from consumers.progress import Progress, Throttled, checked
from consumers.progress_notice import ProgressNotice
from dispatcher.core.history import merge
from dispatcher.core.types import TypeTable
from dispatcher.edges.amqp import Outbox
from schemas import Event, Progressed, Rerun, Started
from schemas.events import about
from tests.support import eventually
from tests.unit.samples import make_work

PLAIN = TypeTable().of("a.b")
FIELDS: dict[str, Any] = {**about(make_work()), "n": 1, "execution": "e", "started_at": 1, "worker": "w"}


class Told:
    """An outbox that keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[Progressed] = []

    def add(self, messages: Any, events: list[Progressed]) -> None:
        """Keep it."""
        self.events += events

    @property
    def values(self) -> list[Any]:
        """What was reported."""
        return [event.done for event in self.events]


def notice(told: Told, rules: Any = PLAIN) -> ProgressNotice:
    """A notice of one execution."""
    return ProgressNotice(cast(Outbox, told), FIELDS, rules)


def test_what_is_no_number_is_refused() -> None:
    """The handler hears of it; nothing that MongoDB could not hold goes on."""
    wrong: list[Any] = [math.nan, math.inf, "3", None, True, 2**63]
    for value in wrong:
        with pytest.raises(ValueError, match="progress: done"):
            checked(value, None, None)
    with pytest.raises(ValueError, match="progress: total"):
        checked(1, math.inf, None)
    with pytest.raises(ValueError, match="progress: message"):
        checked(1, 2, b"bytes")
    assert checked(1, 2.5, " half ") == Progress(1, 2.5, "half")


def test_a_message_is_trimmed_and_redacted() -> None:
    """No key, and no more than is shown."""
    key = "jd_live_X6yHEznGjNAS_" + "a" * 36
    said = checked(1, None, f"{key} " + "x" * 2_000).message
    assert said is not None
    assert key not in said
    assert len(said) <= progress.MAX_MESSAGE


def test_without_a_worker_a_report_goes_nowhere() -> None:
    """As in a test of a handler; what is wrong is refused all the same."""
    context = Context(id="j", app="a", type="t", run=1, attempt=1, execution="e")
    context.progress(1, 2, "fine")
    with pytest.raises(ValueError, match="finite"):
        context.progress(math.nan)


async def test_history_hears_the_first_at_once_then_the_last_value(monkeypatch: pytest.MonkeyPatch) -> None:
    """However often the handler reports; and the final one together with the end."""
    monkeypatch.setattr(progress, "INTERVAL", 0.2)
    told = Told()
    reporting = notice(told)
    for done in range(100):
        reporting.tell(Progress(done))
    assert told.values == [0]
    await eventually(lambda: told.values == [0, 99], "the last value of the interval")
    reporting.tell(Progress(100, 100, "all"))
    (last,) = reporting.end()
    assert (last.done, last.total, last.message, last.n, last.execution) == (100, 100, "all", 1, "e")
    reporting.tell(Progress(101))
    assert reporting.end() == []


async def test_a_thread_may_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """However fast: the loop hears of it once at a time."""
    told = Told()
    reporting = notice(told)

    def work() -> None:
        for done in range(10_000):
            reporting.tell(Progress(done))

    await asyncio.to_thread(work)
    await eventually(lambda: told.values, "the first report")
    assert [*told.values, *(event.done for event in reporting.end())][-1] == 9_999
    assert len(told.values) == 1


async def test_a_type_whose_errors_are_private_keeps_its_messages_too() -> None:
    """Its numbers are told, its texts may repeat what it was given."""
    rules = TypeTable({"a.b": {"record_payload": False}}).of("a.b")
    told = Told()
    notice(told, rules).tell(Progress(1, 2, "ann@example.org"))
    assert [(event.done, event.message) for event in told.events] == [(1, None)]


def test_a_child_passes_on_the_first_and_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is lost at the end, and nothing is said after it."""
    sent: list[Any] = []
    throttled = Throttled(lambda execution, said: sent.append((execution, said.done)), interval=60)
    threads = [threading.Thread(target=throttled.tell, args=("e", Progress(n))) for n in range(20)]
    for thread in threads:
        thread.start()
        thread.join()
    throttled.tell("other", Progress(5))
    throttled.end()
    throttled.tell("e", Progress(99))
    assert sent == [("e", 0), ("e", 19), ("other", 5)]


def test_any_order_of_arrival_gives_the_same_progress() -> None:
    """The latest report of the latest run stands, also where a start or a whole run comes late."""
    second = make_work(run=2)

    def report(work: Any, n: int, at: int, done: int) -> Progressed:
        return Progressed(**about(work), n=n, execution=f"e{work.run}{n}", at=at, done=done)

    start = Started(**about(make_work()), n=1, execution="e11", started_at=5, worker="w")
    events: list[Event] = [start, report(make_work(), 1, 20, 9), report(second, 1, 10, 3), report(second, 1, 10, 4)]
    rerun = Rerun(**about(second), at=9, by="retry")
    found = [merge(None, order) for order in itertools.permutations([*events, rerun])]
    assert all(doc == found[0] for doc in found)
    assert (found[0]["progress"]["run"], found[0]["progress"]["done"], found[0]["state"]) == (2, 4, "running")
    assert merge(found[0], events) == found[0]
