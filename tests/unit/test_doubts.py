"""What workers tell each other about steps that came again, and what each concludes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from consumers import doubts as module
from consumers.doubts import Doubts, Known, answer_to, conclude, doubt
from consumers.steps import Step, StepKey, step_key
from schemas import Answer, Question
from schemas.peers import MAX_ASKED
from tests.support import eventually
from tests.unit.samples import make_work

STEPS = [Step(make_work(id=name), only=False) for name in ("one", "two", "three", "four")]
QUESTION = Question(steps=tuple(step.key for step in STEPS)).model_dump_json().encode()


def test_an_answer_names_what_is_known_by_its_index() -> None:
    """And nothing else; who knows nothing says nothing."""
    known = dict(zip([step.key for step in STEPS], [Known.HELD, None, Known.SETTLED, Known.IN_DOUBT], strict=True))
    body = answer_to(QUESTION, "w1", known.get)
    assert body is not None
    assert Answer.model_validate_json(body) == Answer(worker="w1", settled=(2,), held=(0,), in_doubt=(3,))
    assert answer_to(QUESTION, "w1", lambda _: None) is None


@pytest.mark.parametrize(
    "body", [b"", b"null", b'{"id":null,"status":"rejected"}', b'{"v":2,"steps":[]}', b'{"v":1,"steps":[["a"]]}']
)
def test_what_is_no_question_has_no_answer(body: bytes) -> None:
    """Whoever sent it."""
    assert answer_to(body, "w1", lambda _: Known.HELD) is None


@pytest.mark.parametrize(
    ("answers", "concluded"),
    [
        ([], None),
        ([Answer(worker="b", held=(0,))], Known.HELD),
        ([Answer(worker="b", settled=(0,))], Known.SETTLED),
        ([Answer(worker="b", settled=(0,)), Answer(worker="c", held=(0,))], Known.SETTLED),
        ([Answer(worker="c", held=(0,)), Answer(worker="b", settled=(0,))], Known.SETTLED),
        ([Answer(worker="b", in_doubt=(0,))], None),
        ([Answer(worker="A", in_doubt=(0,))], Known.HELD),
        ([Answer(worker="b", held=(1, 7))], None),
    ],
)
def test_what_answers_say_of_a_step(answers: list[Answer], concluded: Known | None) -> None:
    """Settled beats held; of two that are in doubt the lower name has it; an index too high says nothing."""
    bodies = [answer.model_dump_json().encode() for answer in answers]
    assert conclude("a", 1, [b"{", *bodies]) == [concluded]


@dataclass
class Others:
    """Peers that say what the test wants."""

    id: str = "m"
    ready: bool = True
    answers: list[Answer] = field(default_factory=list)
    asked: int = 0

    async def ask(self, question: bytes, wait: float) -> list[bytes]:
        """As the real one."""
        self.asked += 1
        return [answer.model_dump_json().encode() for answer in self.answers]


@dataclass
class Seen:
    """What became of the steps."""

    lost: bool = False
    forgotten: list[Step] = field(default_factory=list)
    settled: list[Step] = field(default_factory=list)
    #: Whether history has everything, and how often that was asked.
    recorded: asyncio.Event = field(default_factory=asyncio.Event)
    waited: int = 0
    cleared: list[Step] = field(default_factory=list)
    #: Whether a member of a batch is in other hands of this worker, and the members that were settled elsewhere.
    rivals: bool = False
    parts: list[StepKey] = field(default_factory=list)

    def settle(self, step: Step, keys: Sequence[StepKey]) -> None:
        """As the worker's."""
        self.parts += keys
        if len(keys) == len(list(step.keys)):
            self.settled.append(step)

    async def until_recorded(self) -> None:
        """As the worker's."""
        self.waited += 1
        await self.recorded.wait()

    async def clear(self, step: Step) -> None:
        """As the worker's."""
        self.cleared.append(step)


Made = tuple[Doubts, Others, Seen]


@pytest.fixture
async def made(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Made]:
    """Doubts that ask soon."""
    monkeypatch.setattr(module, "AGAIN", 0.01)
    monkeypatch.setattr(module, "TICK", 0.005)
    others, seen = Others(), Seen()
    peers: Any = others
    seen.recorded.set()
    doubts = Doubts(
        peers,
        lambda _: seen.lost,
        seen.forgotten.append,
        lambda _: seen.rivals,
        seen.settle,
        seen.until_recorded,
        seen.clear,
    )
    doubts.start()
    yield doubts, others, seen
    await doubts.stop()


async def soon(check: Callable[[], Any]) -> None:
    """Wait for it."""
    await eventually(check, "it happened", every=0.005)


async def test_a_step_that_nobody_has_is_cleared_after_a_while(made: Made) -> None:
    """Not before others had time to come back."""
    doubts, _, seen = made
    began = time.monotonic()
    doubts.add(STEPS[0], 0.05)
    await soon(lambda: seen.cleared == [STEPS[0]])
    assert time.monotonic() - began >= 0.05
    assert len(doubts) == 0


@pytest.mark.parametrize(
    ("again", "only", "since_reconnect", "wait"),
    [
        (False, True, 0.0, None),
        (False, False, float("inf"), None),
        (False, False, module.REPEATED + 1, None),
        (False, False, module.REPEATED - 1, 0.0),
        (True, False, float("inf"), module.READ),
        (True, False, module.RECONNECTED, module.READ),
        (True, False, 0.5, module.RECONNECTED - 0.5),
    ],
)
def test_when_others_are_asked(again: bool, only: bool, since_reconnect: float, wait: float | None) -> None:
    """What came again waits until others had time to come back; a retry after a crash may be there twice."""
    delivery: Any = SimpleNamespace(again=again, since_reconnect=since_reconnect)
    assert doubt(delivery, only) == wait


async def test_a_step_that_another_worker_has_is_asked_about_until_it_has_settled_it(made: Made) -> None:
    """It is neither run nor dropped before."""
    doubts, others, seen = made
    others.answers = [Answer(worker="a", held=(0,))]
    doubts.add(STEPS[0], 0.05)
    await soon(lambda: others.asked > 3)
    assert (seen.cleared, seen.settled) == ([], [])
    others.answers = [Answer(worker="a", settled=(0,))]
    await soon(lambda: seen.settled == [STEPS[0]])
    assert seen.cleared == []


async def test_a_step_is_run_when_the_worker_that_had_it_is_gone(made: Made) -> None:
    """Nobody answers any more."""
    doubts, others, seen = made
    others.answers = [Answer(worker="a", held=(0,))]
    doubts.add(STEPS[0], 0.05)
    await soon(lambda: others.asked > 1)
    others.answers = []
    await soon(lambda: seen.cleared == [STEPS[0]])


async def test_without_peers_a_step_is_run_at_last(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their connection may be away for longer than the consumer's."""
    doubts, others, seen = made
    monkeypatch.setattr(module, "PATIENCE", 0.3)
    others.ready = False
    began = time.monotonic()
    doubts.add(STEPS[0], 0.05)
    await soon(lambda: seen.cleared)
    assert time.monotonic() - began >= 0.3


async def test_what_the_broker_took_away_is_forgotten(made: Made) -> None:
    """It comes again, here or elsewhere."""
    doubts, _, seen = made
    seen.lost = True
    doubts.add(STEPS[0], 0.05)
    await soon(lambda: seen.forgotten == [STEPS[0]])
    assert (seen.cleared, len(doubts)) == ([], 0)


def came_again(again: bool = True) -> Step:
    """A step that was delivered before, or published twice."""
    delivery: Any = SimpleNamespace(again=again)
    return Step(make_work(), only=False, deliveries=[delivery])


async def test_history_counts_once_it_has_what_was_published(made: Made) -> None:
    """The events of a worker that died may wait for the recorder; what never was with another worker need not."""
    doubts, _, seen = made
    seen.recorded.clear()
    step, fresh = came_again(), came_again(again=False)
    doubts.add(step, 0.0)
    doubts.add(fresh, 0.0)
    await soon(lambda: seen.waited and seen.cleared == [fresh])
    assert (len(doubts), seen.waited) == (1, 1)
    seen.recorded.set()
    await soon(lambda: seen.cleared == [fresh, step])
    assert len(doubts) == 0


async def test_what_the_broker_took_away_before_history_had_all_is_forgotten(made: Made) -> None:
    """It comes again, here or elsewhere."""
    doubts, _, seen = made
    seen.recorded.clear()
    step = came_again()
    doubts.add(step, 0.0)
    await soon(lambda: seen.waited)
    seen.lost = True
    seen.recorded.set()
    await soon(lambda: seen.forgotten == [step])
    assert (seen.cleared, len(doubts)) == ([], 0)


async def test_a_worker_that_stops_does_not_wait_for_the_recorder(made: Made) -> None:
    """It gives back what it has in doubt."""
    doubts, _, seen = made
    seen.recorded.clear()
    waiting, asked = came_again(), came_again()
    doubts.add(waiting, 0.0)
    await soon(lambda: seen.waited)
    doubts.add(asked, 60.0)
    assert set(await doubts.stop()) == {waiting, asked}
    assert (seen.cleared, len(doubts)) == ([], 0)


async def test_two_workers_with_copies_of_one_step_run_it_once() -> None:
    """Each asks while the other is in doubt too: the lower name goes first, the other finds it held."""
    names = ("a", "b")
    cleared: list[str] = []
    pair: dict[str, Doubts] = {}
    step = {name: Step(make_work(), only=False) for name in names}

    @dataclass
    class Peer:
        id: str
        ready: bool = True

        async def ask(self, question: bytes, wait: float) -> list[bytes]:
            await asyncio.sleep(0)
            (other,) = set(names) - {self.id}
            what = Known.IN_DOUBT if step[other] in pair[other] else Known.HELD
            answer = answer_to(question, other, {step_key(make_work()): what}.get)
            assert answer is not None
            return [answer]

    def doubts_of(name: str) -> Doubts:
        async def clear(_: Step) -> None:
            cleared.append(name)

        peer: Any = Peer(name)

        async def recorded() -> None:
            """History has everything."""

        return Doubts(peer, lambda _: False, print, lambda _: False, print, recorded, clear)

    for name in names:
        pair[name] = doubts_of(name)
        pair[name]._steps[step[name]] = (0.0, 0.0)
    await asyncio.gather(*(doubts._look() for doubts in pair.values()))
    await asyncio.gather(*(doubts._look() for doubts in pair.values()))
    await asyncio.sleep(0)
    assert cleared == ["a"]


def a_batch(*names: str) -> Step:
    """A batch in doubt."""
    whole = Step(make_work(id=names[0], seq=2), batch="b")
    for name in names:
        member = Step(make_work(id=name, seq=2), batch="b", whole=whole)
        whole.members[member.key] = member
    return whole


async def test_of_a_batch_the_members_are_asked_about(made: Made) -> None:
    """It waits while anybody has one of them; then those that are settled are dropped, and the others are its own."""
    doubts, others, seen = made
    batch = a_batch(*"abc")
    others.answers = [Answer(worker="z", settled=(0,), held=(2,))]
    doubts.add(batch, 0.0)
    await soon(lambda: others.asked > 2)
    assert (seen.parts, seen.cleared, batch in doubts) == ([], [], True)
    others.answers = [Answer(worker="z", settled=(0, 2))]
    await soon(lambda: seen.cleared)
    keys = list(batch.members)
    assert (seen.parts, seen.settled, seen.cleared) == ([keys[0], keys[2]], [], [batch])


async def test_a_batch_whose_members_are_all_settled_is(made: Made) -> None:
    """Nothing of it is run."""
    doubts, others, seen = made
    batch = a_batch(*"ab")
    others.answers = [Answer(worker="z", settled=(1,)), Answer(worker="y", settled=(0,))]
    doubts.add(batch, 0.0)
    await soon(lambda: seen.settled)
    assert (seen.settled, seen.cleared, len(doubts)) == ([batch], [], 0)


async def test_a_batch_waits_for_another_of_the_same_worker(made: Made) -> None:
    """Until that is settled, or gone."""
    doubts, others, seen = made
    seen.rivals = True
    batch = a_batch(*"ab")
    doubts.add(batch, 0.0)
    await soon(lambda: others.asked > 2)
    assert (seen.cleared, batch in doubts) == ([], True)
    seen.rivals = False
    await soon(lambda: seen.cleared)


async def test_more_members_than_one_question_holds_are_asked_about(made: Made) -> None:
    """Each by its place in its own question."""
    doubts, others, seen = made
    batch = a_batch(*map(str, range(MAX_ASKED + 3)))
    others.answers = [Answer(worker="z", settled=(1,))]
    doubts.add(batch, 0.0)
    await soon(lambda: seen.cleared)
    keys = list(batch.members)
    assert seen.parts == [keys[1], keys[MAX_ASKED + 1]]
