"""The run of dev.golden: services one after another, and what they left in queues and collections in between."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any

import pika
import pymongo
from click.testing import CliRunner

from config import Settings
from consumers.worker import Worker
from dev.golden_handlers import jobs
from dispatcher import composition
from dispatcher.cli.main import main
from dispatcher.core.topology import Names
from dispatcher.edges.mongo import Database, StatisticsStore
from dispatcher.services.host import Service
from dispatcher.services.intake import Intake
from dispatcher.services.recorder import Recorder
from dispatcher.services.scheduler import Scheduler

#: Seconds within which a service must do what the next step needs.
PATIENCE = 60.0
TRACE = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "tracestate": "a=1"}
#: A message with every field of the contract but those that exclude each other.
FULL: dict[str, Any] = {
    "id": "full",
    "payload": {"to": "ann@example.org", "cents": 1, "rate": 0.5, "list": [None, True]},
    "priority": "high",
    "lane": "default",
    "expires": 3600,
    "deadline": 600,
    "timeout": 30,
    "retry": {
        "max_attempts": 3,
        "base": 1.0,
        "factor": 2.0,
        "max_delay": 60.0,
        "jitter": 0.5,
        "on": ["ConnectionError"],
        "never": ["KeyError"],
    },
    "tags": ["welcome"],
}
_GROUP = {"key": "g", "max_size": 2, "max_wait": 60.0}
_UNIQUE = {"key": "k", "for": 60.0, "until": "success"}
#: What intake gets, by job type; ``full`` comes twice.
SENT: tuple[tuple[str, dict[str, Any]], ...] = (
    ("golden.idle", FULL),
    ("golden.idle", FULL),
    ("golden.idle", {"id": "bare"}),
    ("golden.idle", {"id": "delayed", "delay": 60}),
    ("golden.idle", {"id": "scheduled", "delay": 7200}),
    ("golden.idle", {"id": "moved", "delay": 7200}),
    ("golden.batch", {"id": "member", "delay": 60, "group": {**_GROUP, "key": "later"}}),
    ("golden.batch", {"id": "first", "group": _GROUP}),
    ("golden.batch", {"id": "second", "group": _GROUP}),
    ("golden.idle", {"id": "holder", "unique": _UNIQUE}),
    ("golden.idle", {"id": "duplicate", "unique": _UNIQUE}),
    ("golden.works", {"id": "works"}),
    ("golden.fails", {"id": "fails"}),
    ("golden.dead", {"id": "dead"}),
    ("golden.slow", {"id": "slow"}),
    ("golden.snoozes", {"id": "snoozes"}),
    ("golden.cancels", {"id": "cancels"}),
    ("golden.dies", {"id": "dies"}),
    ("golden.idle", {"id": "refused", "payloud": {}}),
)
#: Steps that a worker runs, of those that it is given, and how many of their executions end.
RUN = ("works", "fails", "dead", "slow", "snoozes", "cancels", "dies", "bare")
#: Events by what tells one from another, beside their kind.
_TELLING = ("outcome", "state", "by", "by_hand")


class Capture:
    """One capture on an installation of which nothing is there yet; ``env`` names it to commands."""

    def __init__(self, settings: Settings, env: dict[str, str]) -> None:
        worker = settings.worker.model_copy(update={"no_handler_delay": 60.0})
        self._settings = settings.model_copy(update={"worker": worker})
        self._env = env
        self._names = Names(settings.amqp.prefix)
        self._url = settings.amqp.url.get_secret_value()
        self._mongo: Any = pymongo.MongoClient(settings.mongo.url.get_secret_value(), tz_aware=True)
        self._db = self._mongo[settings.mongo.database]
        self._taken: dict[str, Any] = {}
        self._events: list[bytes] = []
        self._key = ""

    async def run(self) -> dict[str, Any]:
        """What was taken, by name: messages with headers and body, and documents."""
        await composition.apply_topology(self._settings)
        created = await self._command("keys create --app shop --types golden.* --expires 90d --json")
        self._key = json.loads(created)["key"]
        async with self._running(Intake(self._settings)):
            await self._publish()
        waiting = self._set_out()
        await self._work(waiting)
        await self._record()
        self._documents()
        self._mongo.close()
        return self._taken

    async def _publish(self) -> None:
        """Give intake everything; its replies say when it is done."""
        with self._channel() as channel:
            queue = channel.queue_declare("", exclusive=True).method.queue
            for number, (job_type, body) in enumerate(SENT):
                if body["id"] == "refused":
                    body = {k: v for k, v in body.items() if k != "id"}  # noqa: PLW2901 -- it claims none
                self._send(channel, job_type, body, queue, str(number))
                await self._until(partial(self._reply, channel, queue))

    def _send(self, channel: Any, job_type: str, body: dict[str, Any], reply_to: str, number: str) -> None:
        headers = {"x-api-key": self._key, **(TRACE if body.get("id") == "full" else {})}
        properties = pika.BasicProperties(
            delivery_mode=2,
            content_type="application/json",
            headers=headers,
            reply_to=reply_to,
            correlation_id=number,
        )
        channel.basic_publish(self._names.jobs, job_type, json.dumps(body).encode(), properties)

    def _reply(self, channel: Any, queue: str) -> bool:
        method, _, body = channel.basic_get(queue, auto_ack=True)
        if method is None:
            return False
        reply = json.loads(body)
        what = "duplicate" if reply.get("duplicate") else reply["status"]
        self._keep(f"reply.{what}", {}, body)
        self._taken.setdefault("request.full", {"body": FULL})
        return True

    def _set_out(self) -> dict[str, bytes]:
        """Take what intake left; returns the bodies of the work queues by id."""
        found: dict[str, bytes] = {}
        for queue in self._queues(self._names.work + "."):
            for headers, body in self._drain(queue):
                told = json.loads(body)
                self._keep("batch.whole" if "batch" in told else f"work.{told['id']}", headers, body)
                found[told.get("id", "batch")] = body
        self._laddered()
        for headers, body in self._drain(self._names.scheduled):
            self._keep("work.scheduled", headers, body)
            found["scheduled" if b'"moved"' not in body else "moved"] = body
        for headers, body in self._drain(self._names.rejected):
            self._keep("rejected.unknown-field", headers, body)
        self._take_events()
        return found

    def _laddered(self) -> None:
        """What waits in the delay ladder."""
        for queue in self._queues(self._names.delay(0)[:-2]):
            for headers, body in self._drain(queue):
                self._keep(f"work.{json.loads(body)['id']}", headers, body)

    async def _work(self, waiting: dict[str, bytes]) -> None:
        """Run a worker without a recorder, and take what follows from each step."""
        with self._channel() as channel:
            for name in (*RUN, "batch"):
                channel.basic_publish("", self._names.work_queue("default", "normal"), waiting[name])
            for name in ("scheduled", "moved"):
                channel.basic_publish("", self._names.scheduled, waiting[name])
        for name in RUN:
            self._taken[f"work.{name}-first"] = self._taken.pop(f"work.{name}")
        async with self._running(self._worker()):
            await self._until(self._all_ran)
        self._laddered()
        for headers, body in self._drain(self._names.parked("default")):
            self._keep(f"work.{json.loads(body)['id']}-parked", headers, body)

    def _all_ran(self) -> bool:
        self._take_events()
        told = [event for body in self._events for event in json.loads(body)["events"]]
        over = {event["id"] for event in told if event["kind"] == "ended"}
        over |= {event["id"] for event in told if event["kind"] == "moved" and event["id"] == "bare"}
        return over >= {*RUN, "first", "second"}

    async def _record(self) -> None:
        """Give the recorder all events, then commands something to do; ask a worker about a step."""
        await self._recorded(lambda: self._state("works") == "succeeded" and self._state("dies") == "retrying")
        for command in (
            "jobs retry works --app shop --yes",
            "jobs reschedule moved --app shop --delay 3h",
            "keys rotate {key} --grace 24h",
        ):
            await self._command(command)
        # it waits until history shows the end, of which it has told first
        cancelling = asyncio.create_task(self._command("jobs cancel scheduled --app shop --reason 'not needed'"))
        await self._until(self._is_cancelled)
        async with self._asking():
            await self._recorded(lambda: self._state("scheduled") == "cancelled" and self._ran_again())
        await cancelling
        database = Database(self._settings.mongo.url.get_secret_value(), self._settings.mongo.database)
        self._db.stats.update_many({}, [{"$set": {"dirty_at": {"$subtract": ["$$NOW", 3_600_000]}}}])
        await StatisticsStore(database).roll_up(60)
        database.close()

    def _is_cancelled(self) -> bool:
        self._take_events()
        return "events.moved.cancelled" in self._taken

    async def _recorded(self, done: Callable[[], bool]) -> None:
        """Run a recorder and a scheduler until history has what was taken."""
        with self._channel() as channel:
            for body in self._events:
                channel.basic_publish("", self._names.history, body)
        self._events.clear()
        async with self._running(Recorder(self._settings), Scheduler(self._settings)):
            await self._until(lambda: done() and self._db.scheduled.count_documents({}) == 2)

    @asynccontextmanager
    async def _asking(self) -> AsyncIterator[None]:
        """A worker that gets a step again asks the others, here us; then we ask it."""
        queue = self._names.work_queue("default", "normal")
        with self._channel() as channel:
            mine = channel.queue_declare("", exclusive=True).method.queue
            channel.queue_bind(mine, self._names.peers)
            await self._until(lambda: self._given_back(channel, queue))
            async with self._running(self._worker()):
                question = await self._until(lambda: channel.basic_get(mine, auto_ack=True)[2])
                self._keep("question.of-a-worker", {}, question)
                answers = f"{self._names.peers}.golden"
                channel.queue_declare(answers, exclusive=True)
                properties = pika.BasicProperties(reply_to=answers, correlation_id="1")
                channel.basic_publish(self._names.peers, "", question, properties)
                answer = await self._until(lambda: channel.basic_get(answers, auto_ack=True)[2])
                self._keep("answer.of-a-worker", {}, answer)
                yield

    @staticmethod
    def _given_back(channel: Any, queue: str) -> bool:
        """Take the step of the retry and give it back, so that it comes again."""
        method, _, _ = channel.basic_get(queue)
        if method is None:
            return False
        channel.basic_nack(method.delivery_tag, requeue=True)
        return True

    def _documents(self) -> None:
        """One document of each collection, of jobs one of each."""
        for doc in self._db.jobs.find():
            name = "refused" if doc["state"] == "rejected" else doc["id"]
            self._taken[f"job.{name}"] = {"document": doc}
        for collection, query in (
            ("claims", {"_id": "shop:full"}),
            ("unique_keys", {}),
            ("api_keys", {"replaced_by": {"$ne": None}}),
            ("key_usage", {}),
            ("audit", {"action": "key.rotated"}),
            ("cancels", {}),
            ("scheduled", {"id": "moved"}),
        ):
            self._taken[f"{collection}.document"] = {"document": self._db[collection].find_one(query)}
        minute: Any = self._db.stats.find_one({"cells.type": "golden.works"})
        minute["cells"] = [cell for cell in minute["cells"] if cell["type"] == "golden.works"]
        self._taken["stats.document"] = {"document": minute}

    def _state(self, job: str) -> Any:
        return (self._db.jobs.find_one({"id": job}) or {}).get("state")

    def _ran_again(self) -> bool:
        return bool(self._db.jobs.count_documents({"id": "works", "run": 2, "state": "succeeded"}))

    def _take_events(self) -> None:
        """Keep one event of each kind and outcome, as a batch of its own."""
        for _, body in self._drain(self._names.history):
            self._events.append(body)
            told = json.loads(body)
            for event in told["events"]:
                more = [f"{n}-{event[n]}" if event[n] is True else event[n] for n in _TELLING if n in event]
                more += ["batch"] if "batch" in event else []
                self._keep(".".join(["events", event["kind"], *more]), {}, json.dumps({**told, "events": [event]}))

    def _keep(self, name: str, headers: dict[str, Any], body: bytes | str) -> None:
        ours = {k: v for k, v in headers.items() if not k.startswith(("x-delivery", "x-death", "x-first", "x-last"))}
        self._taken.setdefault(name, {"body": json.loads(body)} | ({"headers": ours} if ours else {}))

    def _worker(self) -> Worker:
        return Worker(self._settings, jobs, "dev.golden_handlers:jobs")

    def _queues(self, beginning: str) -> list[str]:
        return [q.name for q in composition.topology_of(self._settings).queues if q.name.startswith(beginning)]

    def _drain(self, queue: str) -> Iterator[tuple[dict[str, Any], bytes]]:
        with self._channel() as channel:
            while (answer := channel.basic_get(queue, auto_ack=True))[0] is not None:
                yield answer[1].headers or {}, answer[2]

    @contextmanager
    def _channel(self) -> Iterator[Any]:
        connection = pika.BlockingConnection(pika.URLParameters(self._url))
        try:
            yield connection.channel()
        finally:
            connection.close()

    async def _command(self, typed: str) -> str:
        typed = typed.replace("{key}", self._key.split("_")[2] if self._key else "")
        blank = {name: None for name in os.environ if name.startswith("DISPATCHER_")}
        arguments = shlex.split(typed)
        done = await asyncio.to_thread(lambda: CliRunner().invoke(main, arguments, env={**blank, **self._env}))
        if done.exit_code:
            raise RuntimeError(f"{typed}: exit code {done.exit_code}: {done.output}") from done.exception
        return done.stdout

    @staticmethod
    @asynccontextmanager
    async def _running(*services: Service) -> AsyncIterator[None]:
        for service in services:
            await service.start()
        try:
            yield
        finally:
            for service in reversed(services):
                await service.stop()

    @staticmethod
    async def _until(condition: Callable[[], Any]) -> Any:
        """What a condition returns, once it does; it asks a server, which may take a while."""
        deadline = time.monotonic() + PATIENCE
        while not (value := condition()):
            if time.monotonic() > deadline:
                raise RuntimeError("a step of the capture took too long")
            await asyncio.sleep(0.05)
        return value
