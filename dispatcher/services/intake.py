"""Intake: every message of ``intake.v1`` becomes a job in a work queue, or a refusal in ``rejected``.

A message is acknowledged once the broker has confirmed what replaces it: the work message with its event, the
refusal, or the message itself put off. The id and the unique key of a job are claimed before that (see
`dispatcher.services.claiming`). What happens at a ``kill -9``:

- before that confirm: the message is delivered again. A job with an id of its client's is published again, marked, and
  the worker that gets it asks the others first; one without an id is another job then, and both may be published;
- after it and before the acknowledgement: likewise, unless its claim is marked done by then: then nothing is published;
- again and again: what was there each time is judged in a child process; see `dispatcher.services.intake_suspects`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from config import Settings
from dispatcher.core import claims, keys
from dispatcher.core.admission import Rules, Submission, admit, authenticate, identify, is_type, read_trace, too_large
from dispatcher.core.claims import Claim
from dispatcher.core.dated import REASON_HEADER, SIZE_HEADER, TYPE_HEADER, dated
from dispatcher.core.refusals import Code, Refusal
from dispatcher.core.timing import route
from dispatcher.core.topology import Names, build
from dispatcher.core.types import TypeTable
from dispatcher.core.verdicts import CUT_BYTES, Case, Job, Refused, Verdict, accepted, crashed, refused
from dispatcher.edges import clock, log, meters, metrics
from dispatcher.edges.amqp import (
    Consumer,
    Delivery,
    Outbox,
    Outgoing,
    Publisher,
    Subscription,
    declare_again,
    marked_again,
    routed,
)
from dispatcher.edges.mongo import Database, KeyStore, UsageStore
from dispatcher.services.claiming import Claiming, Pending
from dispatcher.services.grouping import Grouping
from dispatcher.services.intake_suspects import Suspects
from dispatcher.services.key_cache import KeyCache, KeysAway, NotLoaded
from dispatcher.services.key_watch import KeyWatch
from schemas import Event, JobState
from schemas import Refused as RefusedEvent

_logger = log.get("intake")

#: Seconds from one look-up of unseen keys to the next, at least: however many wrong keys arrive, MongoDB is asked no
#: more often, and each time about all that are held. A new key waits for so long at most.
LOOK_UP_EVERY = 0.05
#: Messages held at a time have at most so many bytes, as far as they are kept: with large limits the prefetch is less.
MAX_HELD_BYTES = 128 << 20

_REPLY_QUEUES = ("amq.rabbitmq.reply-to.", "amq.gen-")


class Intake:
    """The intake service."""

    name = "intake"

    def __init__(self, settings: Settings) -> None:
        amqp, url = settings.amqp, settings.amqp.url.get_secret_value()
        self._settings = settings
        self._names = names = Names(amqp.prefix)
        self._rules = Rules(frozenset(settings.lanes), TypeTable(settings.type_entries), settings.intake.max_body_bytes)
        self._database = Database(settings.mongo.url.get_secret_value(), settings.mongo.database)
        self._keys = KeyCache(
            KeyStore(self._database), refresh=settings.intake.key_refresh, grace=settings.intake.key_grace
        )
        meter = meters.PublishMeter("intake")
        self._key_watch = KeyWatch(UsageStore(self._database), self._keys.records, settings.keys.warn_days)
        self._publisher = Publisher(url, "intake", timeout=amqp.publish_timeout, heartbeat=amqp.heartbeat, meter=meter)
        redeclare = partial(declare_again, url, build(names, settings.lanes))
        self._consumer = Consumer(
            url,
            "intake",
            [
                self._subscription(names.intake, settings.intake.prefetch),
                self._subscription(names.unrouted, 50),
                self._subscription(names.intake_dead, 50),
            ],
            self._take,
            heartbeat=amqp.heartbeat,
            on_missing=redeclare,
        )
        self._outbox = Outbox(self._publisher, names.history, self._consumer.flush, redeclare)
        self._suspects = Suspects(self._consumer, self._settle)
        self._claiming = Claiming(self._database, self)
        self._grouping = Grouping(settings)
        self._unseen: list[tuple[str, Delivery]] = []
        self._unseen_wake = asyncio.Event()
        self._lookup: asyncio.Task[None] | None = None
        self._replies: set[asyncio.Task[None]] = set()

    def _subscription(self, queue: str, prefetch: int) -> Subscription:
        """Of what is too large, no more is kept than a refusal shows, keys taken out; AMQP allows gigabytes."""
        largest = max(self._rules.max_body_bytes, 2 * CUT_BYTES)
        return Subscription(queue, min(prefetch, max(MAX_HELD_BYTES // largest, 1)), largest)

    def checks(self) -> dict[str, bool]:
        """Broker, database, consumers, and no queue missing."""
        return {
            "publisher": self._publisher.ready,
            "consumer": self._consumer.ready,
            "database": self._keys.ready,
            "routable": not self._outbox.stuck,
            **self._grouping.checks(),
        }

    async def start(self) -> None:
        """Begin to work; RabbitMQ and MongoDB may be away."""
        meters.intake_begins(self._settings.lanes, Code)
        self._keys.start()
        self._key_watch.start()
        self._lookup = asyncio.create_task(self._look_up(), name="key look-ups")
        await self._publisher.start()
        self._outbox.start()
        self._suspects.start()
        self._claiming.start()
        await self._grouping.start()
        await self._consumer.start()

    async def stop(self) -> None:
        """Finish what was taken, then close."""
        await self._consumer.stop()
        await self._suspects.stop()
        await self._claiming.settle()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._outbox.drain(), 10)
        await self._consumer.flush()
        await self._outbox.close()
        await self._consumer.close()
        await self._publisher.close()
        await self._claiming.stop()
        await self._grouping.stop()
        if self._lookup is not None:
            self._lookup.cancel()
        await self._key_watch.stop()
        await self._keys.stop()
        self._database.close()

    def _take(self, delivery: Delivery) -> None:
        """Decide on one message; a fault of ours refuses that message and nothing else."""
        try:
            if delivery.queue == self._names.intake:
                self._judge(delivery)
            else:
                self._empty(delivery)
        except NotLoaded:
            self._unseen.append((identify(delivery.headers.get(keys.KEY_HEADER)), delivery))
            self._unseen_wake.set()
        except KeysAway:
            self._without_keys(delivery)
        except Exception as error:
            _logger.exception("intake failed on a message", error=type(error).__name__)
            self._refuse(delivery, crashed("intake failed on this message"), None)

    def _judge(self, delivery: Delivery) -> None:
        record: keys.KeyRecord | None = None
        now = clock.now_ms()
        try:
            record = self._authenticated(delivery, now)
            if delivery.suspect:
                self._judge_apart(delivery, record)
                return
            submission = _submission(delivery)
            job = accepted(admit(submission, record, self._rules, now, clock.random_bits()), submission)
        except Refusal as refusal:
            self._refuse(delivery, refusal, record)
            return
        self._accept(delivery, record, job)

    def holds(self, delivery: Delivery) -> bool:
        """Whether a message is still this intake's."""
        return self._consumer.holds(delivery)

    def _lost(self, delivery: Delivery) -> bool:
        return not self.holds(delivery)

    def _authenticated(self, delivery: Delivery, now: int) -> keys.KeyRecord:
        api_key = delivery.headers.get(keys.KEY_HEADER)
        record = self._keys.get(identify(api_key))
        try:
            return authenticate(api_key, record, now)
        except Refusal as refusal:
            if record is not None and refusal.code in (Code.REVOKED_KEY, Code.EXPIRED_KEY):
                self._key_watch.refused(record)  # somebody still uses it
            raise

    def _empty(self, delivery: Delivery) -> None:
        """A message that missed intake (``unrouted``) or that the broker took away from it goes to ``rejected``."""
        record = None
        with contextlib.suppress(Refusal, KeysAway):
            record = self._authenticated(delivery, clock.now_ms())
        if delivery.queue == self._names.unrouted:
            sentence = "no intake queue took this message; publish it again after `dispatcher topology apply`"
        else:
            sentence = "intake gave this message up; publish it again"
        self._refuse(delivery, crashed(sentence), record)

    def _refuse(self, delivery: Delivery, refusal: Refusal, record: keys.KeyRecord | None) -> None:
        if delivery.suspect:
            self._judge_apart(delivery, record, refusal)
        else:
            self._reject(delivery, record, refused(refusal, _submission(delivery), self._rules.max_body_bytes))

    def _judge_apart(self, delivery: Delivery, record: keys.KeyRecord | None, refusal: Refusal | None = None) -> None:
        now, bits = clock.now_ms(), clock.random_bits()
        self._suspects.add(delivery, Case(_submission(delivery), record, self._rules, now, bits, refusal))

    def _settle(self, delivery: Delivery, record: keys.KeyRecord | None, verdict: Verdict) -> None:
        """Do as the verdict on a suspect says."""
        if isinstance(verdict, Job):
            assert record is not None
            self._accept(delivery, record, verdict)
        else:
            self._reject(delivery, record, verdict)

    def _accept(self, delivery: Delivery, record: keys.KeyRecord, job: Job) -> None:
        pending = Pending(delivery, record, job, delivery.again)
        if job.id_claim is None and job.key_claim is None:
            self.proceed(pending)
        else:
            self._claiming.add(pending)

    def proceed(self, pending: Pending) -> None:
        """Publish a job that has all that it needs."""
        delivery, job = pending.delivery, pending.job
        self._key_watch.accepted(pending.key)
        to = route(self._names, job.lane, job.priority, job.due_at, clock.now_ms(), job.partition)
        message = routed(to, job.body, job.headers)
        if pending.again:  # what it became the first time may be with a worker
            message = marked_again(message)
        meters.admitted(pending.key.app, job.lane, job.priority)
        self._outbox.add(
            [message],
            [job.event],
            partial(self._published, pending, {"id": job.id, "status": "accepted"}),
            urgent=to.stay_ms is not None,
            # a message that the broker has queued again is judged again: published now, it would be two
            void=partial(self._lost, delivery),
        )
        delivery.body = b""  # the work message stands for it; held twice it would be twice as large

    def _published(self, pending: Pending, reply: dict[str, Any]) -> None:
        self._claiming.published(pending.job)
        self._settled(pending.delivery, reply)

    def resent(self, pending: Pending, first: Claim) -> None:
        """The id is that of another job: this message makes none."""
        delivery = pending.delivery
        self._key_watch.accepted(pending.key)
        meters.repeated(pending.key.app, "resent")
        events: list[Event] = []
        if not delivery.redelivered:  # else it may be the first one itself
            events.append(claims.resent(first, clock.now_ms(), clock.new_id()))
        reply = {"id": first.job, "status": "accepted", "duplicate": True}
        self._outbox.add([], events, partial(self._settled, delivery, reply), void=partial(self._lost, delivery))

    def duplicate(self, pending: Pending, of: str) -> None:
        """The unique key is that of another job: this one ends without being run."""
        delivery, job = pending.delivery, pending.job
        self._key_watch.accepted(pending.key)
        meters.admitted(pending.key.app, job.lane, job.priority)
        metrics.of(metrics.final, job.lane, JobState.DUPLICATE).inc()
        meters.repeated(pending.key.app, "duplicate")
        assert job.key_claim is not None
        ended = claims.duplicate(job.key_claim, of, clock.now_ms())
        reply = {"id": job.id, "status": "accepted", "duplicate": True}
        settled = partial(self._published, replace(pending, job=replace(job, key_claim=None)), reply)
        self._outbox.add([], [job.event, ended], settled, void=partial(self._lost, delivery))

    def put_off(self, pending: Pending) -> None:
        """Nobody can say yet whose the id or the key is."""
        self._put_off(pending.delivery, pending.again)

    def failed(self, pending: Pending) -> None:
        """A fault of ours refuses the message that it comes with."""
        self._refuse(pending.delivery, crashed("intake failed on this message"), pending.key)

    def _reject(self, delivery: Delivery, record: keys.KeyRecord | None, shown: Refused) -> None:
        refusal = shown.refusal
        meters.turned_away(record.app if record else None, refusal.code)
        self._key_watch.refusal(refusal.code)
        reason = {REASON_HEADER: f"{refusal.code}: {refusal.sentence}"}
        headers = dated(reason, clock.now_ms(), record.app if record else None)
        known_type = delivery.routing_key if is_type(delivery.routing_key) else ""
        if known_type:
            headers[TYPE_HEADER] = known_type
        if shown.size is not None:
            headers[SIZE_HEADER] = shown.size
        events: list[Event] = []
        reply: dict[str, Any] = {"id": None, "status": "rejected"}
        reply["error"] = {"code": str(refusal.code), "message": refusal.sentence}
        if record is not None:
            self._key_watch.refused(record)
            reply["id"] = job_id = clock.new_id()
            events.append(
                RefusedEvent(
                    app=record.app,
                    id=job_id,
                    key_id=record.id,
                    type=known_type,
                    at=clock.now_ms(),
                    code=refusal.code,
                    message=refusal.sentence,
                )
            )
        message = Outgoing("", self._names.rejected, shown.body, headers)
        self._outbox.add([message], events, partial(self._settled, delivery, reply))

    def _without_keys(self, delivery: Delivery) -> None:
        """Nobody can say whether the key is good; one that is too large is refused whatever its key."""
        if delivery.cut_from is None:
            metrics.deferred.inc()
            self._put_off(delivery, delivery.again)
        else:
            self._refuse(delivery, too_large(delivery.size, self._rules.max_body_bytes), None)

    def _put_off(self, delivery: Delivery, again: bool) -> None:
        """The message waits in the broker, out of the way of others."""
        kept = {keys.KEY_HEADER: delivery.headers[keys.KEY_HEADER]}
        trace = read_trace(delivery.headers.get("traceparent"), delivery.headers.get("tracestate"))
        kept |= trace.model_dump(exclude_none=True) if trace else {}
        message = Outgoing(
            self._names.intake_deferred,
            delivery.routing_key,
            delivery.body,
            kept,
            delivery.correlation_id,
            delivery.reply_to,
        )
        if again:
            message = marked_again(message)
        self._outbox.add([message], [], partial(self._consumer.done, delivery))

    def _settled(self, delivery: Delivery, reply: dict[str, Any]) -> None:
        self._consumer.done(delivery)
        if delivery.reply_to and self._may_reply(delivery.reply_to):
            task = asyncio.create_task(self._publisher.send(_reply(delivery, reply)))
            self._replies.add(task)
            task.add_done_callback(self._replies.discard)

    def _may_reply(self, reply_to: str) -> bool:
        allowed = (*_REPLY_QUEUES, *self._settings.intake.reply_prefixes)
        return reply_to.startswith(allowed) and not reply_to.startswith(self._names.own_queues)

    async def _look_up(self) -> None:
        """Ask the database for keys that are not in memory, many at once, while other messages go on."""
        while True:
            await self._unseen_wake.wait()
            self._unseen_wake.clear()
            unseen, self._unseen = self._unseen, []
            again: Callable[[Delivery], None] = self._take
            try:
                await self._keys.load(key_id for key_id, _ in unseen)
            except KeysAway:
                again = self._without_keys
            except Exception:
                _logger.exception("keys cannot be looked up")
                again = self._without_keys
            for _, delivery in unseen:
                again(delivery)
            await asyncio.sleep(LOOK_UP_EVERY)


def _submission(delivery: Delivery) -> Submission:
    headers = delivery.headers
    return Submission(
        delivery.routing_key,
        delivery.body,
        headers.get(keys.KEY_HEADER),
        headers.get("traceparent"),
        headers.get("tracestate"),
        delivery.cut_from,
    )


def _reply(delivery: Delivery, reply: dict[str, Any]) -> Outgoing:
    correlation = delivery.correlation_id
    if correlation and keys.redact(correlation.encode()) != correlation.encode():
        correlation = None
    return Outgoing("", delivery.reply_to or "", json.dumps(reply).encode(), correlation_id=correlation)
