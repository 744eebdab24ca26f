"""Asking, all the time and each in a thread of its own: every member whether it is ready, and a server what is so."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

import pika
import pymongo
from pika.exceptions import AMQPChannelError, AMQPError
from pymongo.errors import PyMongoError

from schemas import PRIORITIES
from tests.faults.faults import Scene
from tests.faults.fleet import Fleet
from tests.faults.scrape import ready
from tests.faults.truth import Said, Seen
from tests.support import Installation

#: Seconds between two questions, and until one is given up.
EVERY = 0.2
GIVEN_UP = 2.0
#: How often a queue without consumers is asked.
ASKED = 3

Look = Callable[[], Mapping[str, int] | None]


class NotSeen(Exception):
    """A look that failed by itself: it says nothing of the server."""


class Watch:
    """Use it as ``with Watch(fleet, look) as watch``; ``look`` says how many members of each kind work now.

    Answers are in `said`, looks in `seen`, each in the order of its time.
    """

    def __init__(self, fleet: Fleet, look: Look) -> None:
        self._fleet = fleet
        self._look = look
        self._ended = threading.Event()
        self._threads: list[threading.Thread] = []
        self.said: list[Said] = []
        self.seen: list[Seen] = []

    def all_back(self, since: float) -> bool:
        """Whether, since then, every member's last answer was yes and the last look saw all of them work."""
        latest = {answer.member: answer.ready for answer in self.said[:] if answer.at > since}
        seen = self.seen[-1] if self.seen else Seen(0.0, 0.0, None)
        working = all(seen.of(member.kind) >= len(self._fleet.of_kind(member.kind)) for member in self._members())
        return seen.at > since and working and len(latest) == len(self._members()) and all(latest.values())

    def _members(self) -> list[Any]:
        return list(self._fleet.members.values())

    def __enter__(self) -> Watch:
        asks: list[Callable[[], None]] = [lambda m=member: self._ask(m) for member in self._members()]  # type: ignore[misc]
        for ask in [*asks, self._see]:
            thread = threading.Thread(target=self._repeat, args=(ask,), daemon=True)
            thread.start()
            self._threads.append(thread)
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _repeat(self, ask: Callable[[], None]) -> None:
        while not self._ended.wait(EVERY):
            ask()

    def _ask(self, member: Any) -> None:
        answer = ready(member, GIVEN_UP)
        self.said.append(Said(time.time(), member.name, answer))

    def _see(self) -> None:
        at = time.time()
        with contextlib.suppress(NotSeen):
            working = self._look()
            self.seen.append(Seen(at, time.time(), working))


def consumed_queues(installation: Installation) -> dict[str, list[str]]:
    """The queues that each member of a kind consumes."""
    names, lanes = installation.names, installation.settings.lanes
    return {
        "scheduler": [names.stray],
        "recorder": [names.history],
        "intake": [names.intake, names.unrouted, names.intake_dead],
        "worker": [
            *(names.work_queue(lane, priority) for lane in lanes for priority in PRIORITIES),
            *(names.suspect(lane) for lane in lanes),
        ],
    }


class Consumers:
    """Asks the broker, not through the proxy, how many consumers the least consumed queue of each kind has."""

    def __init__(self, scene: Scene) -> None:
        self._queues = consumed_queues(scene.installation)
        self._url = (
            f"{scene.rabbit.url}/?heartbeat=4&connection_attempts=1&socket_timeout={GIVEN_UP:g}"
            f"&stack_timeout={2 * GIVEN_UP:g}&blocked_connection_timeout={GIVEN_UP:g}"
        )
        self._connection: Any = None

    def __call__(self) -> Mapping[str, int] | None:
        """The counts by kind; None where nothing listens any more.

        Raises:
            NotSeen: the broker is there, but did not say.
        """
        try:
            if self._connection is None or not self._connection.is_open:
                self._connection = pika.BlockingConnection(pika.URLParameters(self._url))
            channel = self._connection.channel()
            counts = {kind: min(_count(channel, q) for q in queues) for kind, queues in self._queues.items()}
            channel.close()
        except AMQPChannelError:  # not yet each of its queues
            return {}
        except (AMQPError, OSError):
            self._connection = None
            if _listens(self._url):
                raise NotSeen from None
            return None
        return counts


def _listens(url: str) -> bool:
    parts = urlsplit(url)
    try:
        socket.create_connection((parts.hostname, parts.port), GIVEN_UP).close()
    except ConnectionRefusedError:
        return False
    except OSError:
        return True
    return True


def _count(channel: Any, queue: str) -> int:
    """A quorum queue that does not answer the broker within 250 ms has 0 consumers, it says: ask again then."""
    counts = (channel.queue_declare(queue, passive=True).method.consumer_count for _ in range(ASKED))
    return next((int(count) for count in counts if count), 0)


def database(scene: Scene) -> Look:
    """A look whether MongoDB answers, not through the proxy: without it no member can do all of its work."""
    client: Any = pymongo.MongoClient(scene.mongo.url, serverSelectionTimeoutMS=int(GIVEN_UP * 1000))
    counts = {kind: len(scene.fleet.of_kind(kind)) for kind in consumed_queues(scene.installation)}

    def look() -> Mapping[str, int] | None:
        try:
            client.admin.command("ping")
        except PyMongoError:
            return None
        return counts

    return look
