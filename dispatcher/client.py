"""The client for applications in Python: publishes jobs, confirmed, many in flight, async and sync."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeVar

import pydantic_core

from dispatcher.core.errors import DispatcherError
from dispatcher.core.keys import KEY_HEADER
from dispatcher.core.topology import MAX_MESSAGE_BYTES, Names
from dispatcher.edges import clock
from dispatcher.edges.amqp import Outbox, Outgoing, Publisher
from dispatcher.edges.amqp.link import without_password
from dispatcher.edges.amqp.publisher import REPLY_TO

Result = TypeVar("Result")

#: What AMQP can carry as a routing key. More would fail in each attempt to send it, and hold up others.
MAX_ROUTING_KEY_BYTES = 255


class PublishFailed(DispatcherError):
    """The broker did not confirm in time: the job may or may not have been published.

    Publishing again with the same ``id`` is safe: one app, one id, one job.
    """

    def __init__(self, job_id: str, reason: str) -> None:
        super().__init__(f"job {job_id}: no confirm from the broker ({reason})")
        self.job_id = job_id


@dataclass(frozen=True, slots=True)
class Receipt:
    """Intake's answer. ``code`` and ``message`` explain a refusal."""

    id: str | None
    accepted: bool
    duplicate: bool = False
    code: str | None = None
    message: str | None = None


class Client:
    """Publishes jobs.

    Use it as ``async with Client(url, key) as client: await client.publish(...)`` or, in sync code, as
    ``with Client(url, key) as client: client.publish_sync(...)``. A publish returns once the broker holds the job,
    and is sent again when a connection was lost in between. Any number may be in flight.

    Args:
        url: the broker, ``amqp://user:password@host:port/vhost``.
        api_key: the application's key.
        prefix: the installation's prefix, if it has one.
        timeout: seconds to wait for the broker.
    """

    def __init__(self, url: str, api_key: str, *, prefix: str = "", timeout: float = 30.0) -> None:
        self._url = url
        self._headers = {KEY_HEADER: api_key}
        self._jobs = Names(prefix).jobs
        self._timeout = timeout
        self._publisher: Publisher | None = None
        self._outbox: Outbox | None = None
        self._in_flight: set[asyncio.Future[None]] = set()
        self._answers: dict[str, asyncio.Future[Receipt]] = {}
        self._thread: _LoopThread | None = None

    async def connect(self) -> None:
        """Begin to connect; publishing waits for the broker."""
        self._publisher = Publisher(self._url, "client", timeout=self._timeout, on_reply=self._answer)
        self._outbox = Outbox(self._publisher, "", _nothing, _nothing)
        await self._publisher.start()
        self._outbox.start()

    async def close(self) -> None:
        """Wait for publishes that somebody waits for, at most the timeout, and close."""
        if self._outbox is None or self._publisher is None:
            return
        try:
            # not for what has failed already: that may stay in the outbox for as long as the broker is away
            if self._in_flight:
                await asyncio.wait(self._in_flight, timeout=self._timeout)
        finally:
            await self._outbox.close()
            await self._publisher.close()
            self._outbox = self._publisher = None

    async def publish(self, job_type: str, payload: Any = None, *, id: str | None = None, **fields: Any) -> str:
        """Publish a job; returns its id once the broker holds it.

        Args:
            job_type: the job's type, which is the routing key.
            payload: a dict, or anything pydantic writes as a JSON object.
            id: the job's id; a UUIDv7 where none is given. Sent again with the same id, it is the same job.
            fields: the message's other fields: ``priority``, ``timeout``, ``retry``, ``lane``, ``tags``, ``unique``,
                ``group``, ``delay`` or ``run_at`` (text or a datetime with its offset), ``expires``, ``deadline``.

        Raises:
            PublishFailed: no confirm in time.
            ValueError: the payload cannot be written as JSON, or it or the type is longer than RabbitMQ takes.
        """
        job_id = id or clock.new_id()
        await self._send(job_id, self._message(job_type, payload, job_id, fields))
        return job_id

    async def submit(
        self, job_type: str, payload: Any = None, *, id: str | None = None, wait: float = 10.0, **fields: Any
    ) -> Receipt:
        """Publish a job and wait for intake's answer.

        Args:
            wait: seconds to wait for the answer; the other arguments are those of `publish`.

        Raises:
            PublishFailed: no confirm in time.
            TimeoutError: the job is published, but intake has not answered.
        """
        job_id = id or clock.new_id()
        correlation = clock.new_id()
        answer: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
        self._answers[correlation] = answer
        try:
            await self._send(job_id, self._message(job_type, payload, job_id, fields, correlation))
            return await asyncio.wait_for(answer, wait)
        finally:
            self._answers.pop(correlation, None)

    def _message(
        self, job_type: str, payload: Any, job_id: str, fields: dict[str, Any], correlation: str | None = None
    ) -> Outgoing:
        if len(job_type.encode()) > MAX_ROUTING_KEY_BYTES:
            raise ValueError(f"a job type has at most {MAX_ROUTING_KEY_BYTES} bytes; intake takes 100 characters")
        fields = {"id": job_id, **({} if payload is None else {"payload": payload}), **fields}
        body = pydantic_core.to_json(fields)
        if len(body) > MAX_MESSAGE_BYTES:
            raise ValueError(f"the job has {len(body)} bytes, RabbitMQ takes at most {MAX_MESSAGE_BYTES}")
        reply_to = REPLY_TO if correlation else None
        return Outgoing(self._jobs, job_type, body, self._headers, correlation, reply_to)

    async def _send(self, job_id: str, message: Outgoing) -> None:
        outbox, publisher = self._outbox, self._publisher
        if outbox is None or publisher is None:
            raise RuntimeError("the client is not connected: use it in a with block, or call connect()")
        confirmed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def settled() -> None:
            if not confirmed.done():
                confirmed.set_result(None)

        self._in_flight.add(confirmed)
        entry = outbox.add([message], (), settled)
        try:
            async with asyncio.timeout(self._timeout):
                await confirmed
        except TimeoutError:
            silent = f"RabbitMQ at {without_password(self._url)} did not answer"
            raise PublishFailed(job_id, publisher.problem or silent) from None
        finally:
            # while the broker is away, what its callers gave up must not fill the application's memory
            outbox.withdraw(entry)
            self._in_flight.discard(confirmed)

    def _answer(self, correlation: str | None, body: bytes) -> None:
        waiting = self._answers.get(correlation or "")
        if waiting is None or waiting.done():
            return
        answer = json.loads(body)
        error = answer.get("error") or {}
        waiting.set_result(
            Receipt(
                answer.get("id"),
                answer["status"] == "accepted",
                bool(answer.get("duplicate")),
                error.get("code"),
                error.get("message"),
            )
        )

    async def __aenter__(self) -> Client:
        await self.connect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def publish_sync(self, job_type: str, payload: Any = None, *, id: str | None = None, **fields: Any) -> str:
        """`publish` for sync code; may be called from any thread."""
        return self._run(self.publish(job_type, payload, id=id, **fields))

    def submit_sync(
        self, job_type: str, payload: Any = None, *, id: str | None = None, wait: float = 10.0, **fields: Any
    ) -> Receipt:
        """`submit` for sync code; may be called from any thread."""
        return self._run(self.submit(job_type, payload, id=id, wait=wait, **fields))

    def publish_many_sync(self, jobs: Sequence[tuple[str, Any]], **fields: Any) -> list[str]:
        """Publish many ``(type, payload)`` at once; returns their ids in order."""

        async def publish_all() -> list[str]:
            return await asyncio.gather(*(self.publish(job_type, payload, **fields) for job_type, payload in jobs))

        return self._run(publish_all())

    def _run(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        if self._thread is None:
            coroutine.close()
            raise RuntimeError("the client is not connected: use it in a with block")
        return self._thread.run(coroutine)

    def __enter__(self) -> Client:
        self._thread = _LoopThread()
        self._thread.run(self.connect())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._thread is not None:
            thread, self._thread = self._thread, None
            try:
                thread.run(self.close())
            finally:
                thread.stop()


async def _nothing() -> None:
    pass


class _LoopThread:
    """An event loop in a thread of its own, for sync callers."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="job-dispatcher client", daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
