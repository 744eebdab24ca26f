"""What replaces a message: publish it, have it confirmed, and only then let the message be acknowledged.

Entries are taken as they come and sent together; the more arrives while a batch is under way, the larger the next.
Events of all entries share batch messages. An entry settles when everything of it is confirmed.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from dispatcher.edges import log
from dispatcher.edges.amqp.bound import ConnectionLost
from dispatcher.edges.amqp.publisher import Outgoing, Publisher
from schemas import Event
from schemas.events import encode_event, pack

_logger = log.get("outbox")

#: Batches under way at once. What comes meanwhile makes the next one larger, and a large batch costs the broker, and
#: us, hardly more than a small one: two under way at once cost a third more CPU a job, and made retries later.
MAX_BATCHES = 1
#: The same while something urgent waits, or hardly anything is under way.
MAX_URGENT_BATCHES = 4
#: While fewer entries than this are under way, the next need not wait: under light load what has happened is told at
#: once, and a process that dies has little untold. Under load a batch holds more than this, and the rule above counts.
FEW = 4
#: Seconds after the beginning of a batch from which on the next need not wait for its end, unless so many are under
#: way: while a disk makes the broker's confirms wait, a process that dies has little untold.
PACE = 0.01
MAX_PACED_BATCHES = 32
#: Most entries in one batch, so that the first of them need not wait for a great many.
MAX_ENTRIES = 500
#: Most bytes in one batch (or one entry): a batch is written in one piece, which is a copy of all of it, or two. While
#: so many are under way, no batch begins beside another.
MAX_BYTES = 8 << 20
#: Pause before a message that no queue took is tried again, in seconds.
UNROUTABLE_PAUSE = 1.0


@dataclass(slots=True, eq=False)
class Entry:
    """Messages and events that settle together; ``taken`` once they are being published."""

    messages: Sequence[Outgoing]
    events: Sequence[bytes]
    settled: Callable[[], None] | None
    urgent: bool = False
    in_turn: bool = False
    void: Callable[[], bool] | None = None
    taken: bool = False

    @property
    def size(self) -> int:
        """Bytes to publish."""
        return sum(len(message.body) for message in self.messages) + sum(map(len, self.events))


@dataclass(slots=True)
class _Batch:
    messages: list[Outgoing] = field(default_factory=list)
    owners: list[Entry | None] = field(default_factory=list)


class Outbox:
    """Publishes entries in batches and calls back when each is safe.

    Args:
        publisher: where to publish.
        history: the queue of events.
        after_batch: awaited after the entries of a batch settled; flushes acknowledgements.
        on_unroutable: awaited when a queue is missing, before the message is tried again; declares it anew.
    """

    def __init__(
        self,
        publisher: Publisher,
        history: str,
        after_batch: Callable[[], Awaitable[None]],
        on_unroutable: Callable[[], Awaitable[None]],
    ) -> None:
        self._publisher = publisher
        self._history = history
        self._after_batch = after_batch
        self._on_unroutable = on_unroutable
        self._waiting: list[Entry] = []
        self._wake = asyncio.Event()
        self._under_way = 0
        self._entries_under_way = 0
        self._bytes_under_way = 0
        #: Runs from the beginning of the last batch until the next need not wait.
        self._pace: asyncio.TimerHandle | None = None
        self._batches: set[asyncio.Task[None]] = set()
        self._task: asyncio.Task[None] | None = None
        #: Messages that no queue took and that are being tried again.
        self.stuck = 0

    def start(self) -> None:
        """Begin to publish, in the background."""
        self._task = asyncio.create_task(self._run(), name="outbox")

    def add(
        self,
        messages: Sequence[Outgoing],
        events: Sequence[Event | bytes],
        settled: Callable[[], None] | None = None,
        *,
        urgent: bool = False,
        in_turn: bool = False,
        void: Callable[[], bool] | None = None,
    ) -> Entry:
        """Take an entry; ``settled`` is called once all of it is confirmed, unreturned.

        An ``urgent`` one does not wait for the batch under way (a delay's clock starts only in the broker). Of one
        that goes ``in_turn`` the events are published when the messages are confirmed: whoever hears of an event
        knows that they exist. One that became ``void`` before it is published is left out, and never settles.

        Events that are not encoded yet are so here: a fault in one reaches its own caller and no other entry.
        """
        encoded = [event if isinstance(event, bytes) else encode_event(event) for event in events]
        entry = Entry(messages, encoded, settled, urgent, in_turn and bool(messages), void)
        self._waiting.append(entry)
        self._wake.set()
        return entry

    def withdraw(self, entry: Entry) -> None:
        """Forget an entry that nobody waits for any more, unless it is being published already."""
        if not entry.taken:
            with contextlib.suppress(ValueError):  # its batch is about to begin
                self._waiting.remove(entry)

    async def drain(self) -> None:
        """Wait until everything taken so far is settled."""
        while self._waiting or self._batches:
            await asyncio.sleep(0)
            if self._batches:
                await asyncio.wait(self._batches)

    async def close(self) -> None:
        """Stop; what is not settled is given up, and its messages come back from the broker."""
        if self._pace is not None:
            self._pace.cancel()
        tasks = [*self._batches, *([self._task] if self._task else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting and self._may_send():
                count, size = self._next_batch()
                entries, self._waiting = self._waiting[:count], self._waiting[count:]
                self._under_way += 1
                self._entries_under_way += count
                self._bytes_under_way += size
                self._begin_pace()
                task = asyncio.create_task(self._flush(entries))
                self._batches.add(task)
                task.add_done_callback(partial(self._finished, count, size))

    def _begin_pace(self) -> None:
        if self._pace is not None:
            self._pace.cancel()
        self._pace = asyncio.get_running_loop().call_later(PACE, self._end_pace)

    def _end_pace(self) -> None:
        self._pace = None
        self._wake.set()

    def _next_batch(self) -> tuple[int, int]:
        """How many of the waiting entries make the next batch, and their bytes."""
        count = size = 0
        for entry in self._waiting[:MAX_ENTRIES]:
            larger = size + entry.size
            if count and larger > MAX_BYTES:
                break
            count, size = count + 1, larger
        return count, size

    def _may_send(self) -> bool:
        if self._under_way < MAX_BATCHES:
            return True
        if self._bytes_under_way >= MAX_BYTES:
            return False
        if self._pace is None and self._publisher.ready:
            return self._under_way < MAX_PACED_BATCHES
        pressing = self._entries_under_way < FEW or any(entry.urgent for entry in self._waiting)
        return pressing and self._under_way < MAX_URGENT_BATCHES

    def _finished(self, count: int, size: int, task: asyncio.Task[None]) -> None:
        self._batches.discard(task)
        self._under_way -= 1
        self._entries_under_way -= count
        self._bytes_under_way -= size
        self._wake.set()
        error = None if task.cancelled() else task.exception()
        if isinstance(error, ConnectionLost):  # what was to be replaced is delivered anew
            _logger.warning("not published: the connection is gone", entries=count)
        elif error:
            _logger.error("batch failed", exc_info=(type(error), error, error.__traceback__))

    async def _flush(self, entries: list[Entry]) -> None:
        entries = [entry for entry in entries if entry.void is None or not entry.void()]
        batch = self._pack(entries)
        returned = await self._publisher.publish(batch.messages) if batch.messages else []
        stuck: dict[int, list[Outgoing]] = {}
        for index in returned:
            owner = batch.owners[index]
            for entry in entries if owner is None else [owner]:
                stuck.setdefault(id(entry), []).append(batch.messages[index])
        for entry in entries:
            if id(entry) in stuck:
                self._retry_later(entry, stuck[id(entry)])
            else:
                self._confirmed(entry)
        await self._after_batch()

    def _confirmed(self, entry: Entry) -> None:
        """What was published of an entry is confirmed."""
        if entry.in_turn:
            self._waiting.append(Entry((), entry.events, entry.settled))
            self._wake.set()
        elif entry.settled is not None:
            entry.settled()

    def _pack(self, entries: list[Entry]) -> _Batch:
        batch = _Batch()
        for entry in entries:
            entry.taken = True
            for message in entry.messages:
                batch.messages.append(message)
                batch.owners.append(entry)
        for body in pack(event for entry in entries if not entry.in_turn for event in entry.events):
            batch.messages.append(Outgoing("", self._history, body))
            batch.owners.append(None)
        return batch

    def _retry_later(self, entry: Entry, messages: list[Outgoing]) -> None:
        task = asyncio.create_task(self._unroutable(entry, messages))
        self._batches.add(task)
        task.add_done_callback(self._batches.discard)

    async def _unroutable(self, entry: Entry, messages: list[Outgoing]) -> None:
        """A queue is missing: declare it and try again, holding only this entry back."""
        self.stuck += 1
        try:
            while messages:
                _logger.error("no queue took a message", routing_key=messages[0].routing_key)
                await self._on_unroutable()
                returned = await self._publisher.publish(messages)
                messages = [messages[i] for i in returned]
                if messages:
                    await asyncio.sleep(UNROUTABLE_PAUSE)
        except ConnectionLost:
            return
        finally:
            self.stuck -= 1
        self._confirmed(entry)
        await self._after_batch()
