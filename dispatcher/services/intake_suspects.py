"""Messages that were there each time when intake died: one of them may be what kills it.

They stay in their queue, unacknowledged, and are judged one after the other in a child process, which touches the
body instead of intake. A message that kills two children is refused; the others, which a dying intake merely held,
are judged as if nothing had been.
"""

from __future__ import annotations

import asyncio
import contextlib
import pickle
from collections.abc import Callable
from dataclasses import dataclass, replace

from dispatcher.core.keys import KeyRecord
from dispatcher.core.refusals import Refusal
from dispatcher.core.verdicts import Case, Refused, Verdict, crashed
from dispatcher.edges import log, metrics
from dispatcher.edges.amqp import Consumer, Delivery
from dispatcher.edges.children import Child, ChildDied, ChildNotStarted

_logger = log.get("intake")

#: Longest time for one verdict, in seconds: what hangs intake would hang the child as well.
JUDGE_TIMEOUT = 30.0
#: Pause before messages go back to their queue because no child process can be started, in seconds.
START_PAUSE = 1.0
#: How long a stop waits for the verdicts that are due, in seconds; the rest goes back to the queue.
STOP_GRACE = 5.0

#: What judges in the child process.
CHILD_MODULE = "dispatcher.services.intake_child"

_KILLS = crashed("this message kills the process that judges it")


@dataclass(frozen=True, slots=True, eq=False)
class _Suspect:
    delivery: Delivery
    case: Case


class Suspects:
    """Judges messages apart, one at a time, and settles each.

    Args:
        consumer: where the messages came from.
        settle: called with a message, the record of its key and the verdict.
    """

    def __init__(self, consumer: Consumer, settle: Callable[[Delivery, KeyRecord | None, Verdict], None]) -> None:
        self._consumer = consumer
        self._settle = settle
        self._waiting: asyncio.Queue[_Suspect] = asyncio.Queue()
        self._child: Child | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to judge, in the background."""
        self._task = asyncio.create_task(self._run(), name="intake suspects")

    async def stop(self) -> None:
        """Finish what can be finished soon; the broker gives the rest to others."""
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._waiting.join(), STOP_GRACE)
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def add(self, delivery: Delivery, case: Case) -> None:
        """Take a message; it is settled later."""
        metrics.intake_suspects.inc()
        self._waiting.put_nowait(_Suspect(delivery, case))

    async def _run(self) -> None:
        try:
            while True:
                suspect = await self._waiting.get()
                await self._decide(suspect)
                self._waiting.task_done()
        finally:
            await self._end_child()

    async def _decide(self, suspect: _Suspect) -> None:
        delivery, case = suspect.delivery, suspect.case
        if not self._consumer.holds(delivery):
            return  # it comes again, here or elsewhere
        try:
            self._settle(delivery, case.key, await self._verdict(case))
        except ChildNotStarted as error:
            _logger.error("no message that may kill intake can be judged", error=str(error))
            await asyncio.sleep(START_PAUSE)
            await self._give_back(suspect)
        except Exception as error:
            _logger.exception("intake failed on a message", error=type(error).__name__)
            self._settle(delivery, case.key, _unseen(crashed("intake failed on this message"), case))

    async def _verdict(self, case: Case) -> Verdict:
        """The child's verdict; a child may die for other reasons than its message, two in a row hardly do."""
        for each in (case, case, replace(case, refusal=_KILLS)):
            try:
                return await self._ask(each)
            except (ChildDied, TimeoutError) as death:
                app = case.key.app if case.key else None
                _logger.error("a child process died of a message", app=app, error=str(death) or "it took too long")
        return _unseen(_KILLS, case)

    async def _ask(self, case: Case) -> Verdict:
        child = await self._living_child()
        try:
            async with asyncio.timeout(JUDGE_TIMEOUT):
                # from a child of ours; whoever could forge its answer could forge ours
                verdict, fault = pickle.loads(await child.call(pickle.dumps(case)))
        except BaseException:
            await self._end_child()
            raise
        if fault:
            _logger.error("intake failed on a message", error=fault)
        judged: Verdict = verdict
        return judged

    async def _living_child(self) -> Child:
        if self._child is not None and not await self._child.answers():
            await self._end_child()
        if self._child is None:
            _logger.warning("messages were there each time when intake died: they are judged in a child process")
            self._child = await Child.start(CHILD_MODULE)
        return self._child

    async def _end_child(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            await asyncio.shield(child.kill())

    async def _give_back(self, first: _Suspect) -> None:
        """Return this and all that wait: another intake may be able to start a child."""
        await self._consumer.give_back(first.delivery)
        while not self._waiting.empty():
            await self._consumer.give_back(self._waiting.get_nowait().delivery)
            self._waiting.task_done()


def _unseen(refusal: Refusal, case: Case) -> Refused:
    """A refusal that shows nothing of a body that none of ours can look at."""
    return Refused(refusal, b"", case.submission.size)
