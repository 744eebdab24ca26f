"""Stopping a process of ours exactly between two steps of its work; the product itself knows nothing of it.

    python -m tests.faults.seams --at written --message work.v1 --holding job-7 --note FILE -- run intake

runs the command line with a few functions of `dispatcher.edges` wrapped in this process. Where the seam is met for the
chosen message, it is noted in the file and the process sends SIGKILL to itself. The seams:

- of a publish: `unwritten`, nothing of its batch was handed to the connection; `written`, the broker has it and what
  stands before it in its batch, nothing of what stands behind it, and its confirm lies unread in the process's socket;
  `confirmed`, the confirms of the whole batch were read and nothing followed yet;
- of an acknowledgement: `unflushed`, it was gathered and no byte of it was written;
- of the database: see `_CALLS`.

With ``--cut`` it breaks the connection instead (`written` alone), once, and goes on.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import json
import os
import re
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import aiormq.connection

from dispatcher.edges.amqp import BoundPublisher, Consumer, Delivery, Outgoing, Publisher, publisher
from dispatcher.edges.mongo import AuditStore, CancelStore, JobStore, KeyStore, ScheduledStore, StatisticsStore
from dispatcher.edges.mongo.claims import Claims

PUBLISHES = ("unwritten", "written", "confirmed")


class Call(NamedTuple):
    """A call to the database's edge; the seam is after it (MongoDB acknowledged) or before."""

    owner: type
    method: str
    after: bool = True
    #: Only a call that returned something is one.
    found: bool = False


_CALLS: dict[str, Call] = {
    "unmarked": Call(StatisticsStore, "mark_dirty", after=False),
    "marked": Call(StatisticsStore, "mark_dirty"),
    "inserted": Call(JobStore, "_bulk"),
    "recorded": Call(JobStore, "record"),
    "counted": Call(StatisticsStore, "_count"),
    "unmade": Call(Claims, "make", after=False),
    "made": Call(Claims, "make"),
    "undone": Call(Claims, "mark_done", after=False),
    "done": Call(Claims, "mark_done"),
    "unkept": Call(ScheduledStore, "insert", after=False),
    "kept": Call(ScheduledStore, "insert"),
    "claimed": Call(ScheduledStore, "claim", found=True),
    "unreleased": Call(ScheduledStore, "mark_released", after=False),
    "released": Call(ScheduledStore, "mark_released"),
    "unmoved": Call(ScheduledStore, "replace", after=False),
    "moved": Call(ScheduledStore, "replace"),
    "uncancelled": Call(CancelStore, "put", after=False),
    "cancelled": Call(CancelStore, "put"),
    "unscheduled": Call(CancelStore, "unschedule"),
    "uncreated": Call(KeyStore, "create", after=False),
    "created": Call(KeyStore, "create"),
    "retired": Call(KeyStore, "retire"),
    "closed": Call(AuditStore, "_close"),
}
MOMENTS = (*PUBLISHES, "unflushed", *_CALLS)
#: Seconds between two looks at what the socket holds.
_LOOK = 0.001
_PEEKED = 1 << 16


@dataclass
class Seam:
    """Where to stop: at a moment, for the nth message that fits.

    ``message`` is the exchange that it is published to (the queue, for the default exchange), or for `unflushed` the
    queue that it came from; ``holding`` are texts that its body has.
    """

    at: str
    message: str = ""
    holding: Sequence[str] = ()
    nth: int = 1
    note: Path = field(default_factory=Path)
    cut: bool = False

    def meets(self, name: str, body: bytes) -> bool:
        """Whether this is the chosen message; to be asked once for each."""
        if self.nth < 1 or name != self.message or not all(text.encode() in body for text in self.holding):
            return False
        return self.counted()

    def counted(self) -> bool:
        """Whether this was the nth."""
        self.nth -= 1
        return self.nth == 0

    def die(self) -> None:
        """Note it, and kill this process."""
        self._tell()
        os.kill(os.getpid(), signal.SIGKILL)

    def _tell(self) -> None:
        self.note.write_text(json.dumps({"at": self.at, "message": self.message, "pid": os.getpid()}))

    def stop(self, transport: asyncio.Transport) -> None:
        """Die, or break the connection where that was asked for."""
        if not self.cut:
            self.die()
        self._tell()
        transport.abort()


def install(seam: Seam) -> None:
    """Wrap what the seam needs, in this process."""
    if seam.at in ("unwritten", "written"):
        _at_writing(seam)
    elif seam.at == "confirmed":
        _at_confirm(seam)
    elif seam.at == "unflushed":
        _at_flush(seam)
    else:
        _at_call(seam, _CALLS[seam.at])


def _name(message: Outgoing) -> str:
    return message.exchange or message.routing_key


def _at_writing(seam: Seam) -> None:
    """Before a batch is handed to the connection; or after its beginning, up to the message, got to the broker."""
    encode, write, frames_of = Publisher._encode, publisher.write, publisher.publish_frames
    writers = _kept_writers()
    sizes: list[int] = []
    #: Bytes of the batch up to the chosen message, and that one's delivery tag.
    chosen: list[tuple[int, int]] = []

    @functools.wraps(frames_of)
    def measured(*args: Any, **named: Any) -> bytes:
        frames = frames_of(*args, **named)
        sizes.append(len(frames))
        return frames

    @functools.wraps(encode)
    def encoded(self: Publisher, channel: Any, messages: Sequence[Outgoing], batch: Any) -> bytes:
        index = next((i for i, m in enumerate(messages) if seam.meets(_name(m), m.body)), None)
        if index is not None and seam.at == "unwritten":
            seam.die()
        sizes.clear()
        first = channel.delivery_tag + 1
        payload = encode(self, channel, messages, batch)
        if index is not None:
            chosen.append((sum(sizes[: index + 1]), first + index))
        return payload

    @functools.wraps(write)
    async def written(channel: Any, frames: bytes) -> None:
        if not chosen:
            await write(channel, frames)
            return
        length, tag = chosen.pop()
        transport = writers[channel.connection].transport
        transport.pause_reading()
        await write(channel, frames[:length])
        while not _confirms(transport, channel.number, tag):
            await asyncio.sleep(_LOOK)
        seam.stop(transport)

    Publisher._encode = encoded  # type: ignore[method-assign]
    publisher.write = written  # type: ignore[attr-defined]
    publisher.publish_frames = measured  # type: ignore[attr-defined]


def _kept_writers() -> dict[Any, asyncio.StreamWriter]:
    """The stream of each of aiormq's connections, which keeps it in a local variable."""
    writers: dict[Any, asyncio.StreamWriter] = {}
    start = aiormq.connection.Connection._Connection__writer  # type: ignore[attr-defined]

    @functools.wraps(start)
    def kept(self: Any, writer: asyncio.StreamWriter) -> Any:
        writers[self] = writer
        return start(self, writer)

    aiormq.connection.Connection._Connection__writer = kept  # type: ignore[attr-defined]
    return writers


def _confirms(transport: asyncio.Transport, channel: int, tag: int) -> bool:
    """Whether a ``basic.ack`` of the tag has arrived in this process's socket and was not read."""
    with socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno())) as sock:
        try:
            unread = sock.recv(_PEEKED, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
    method = re.escape(b"\x01" + channel.to_bytes(2, "big") + b"\x00\x00\x00\x0d\x00\x3c\x00\x50")
    for found, multiple in re.findall(method + rb"(.{8})(.)\xce", unread, re.DOTALL):
        number = int.from_bytes(found, "big")
        if number == tag or (number > tag and multiple[0] & 1):
            return True
    return False


def _at_confirm(seam: Seam) -> None:
    for kind in (Publisher, BoundPublisher):
        _at_confirm_of(kind, seam)


def _at_confirm_of(kind: type[Publisher], seam: Seam) -> None:
    publish = kind.publish

    @functools.wraps(publish)
    async def published(self: Publisher, messages: Sequence[Outgoing]) -> list[int]:
        met = sum(seam.meets(_name(message), message.body) for message in messages)
        returned = await publish(self, messages)
        if met:
            seam.die()
        return returned

    kind.publish = published  # type: ignore[method-assign]


def _at_flush(seam: Seam) -> None:
    begin, done, write = Consumer.__init__, Consumer.done, Consumer._write
    met: list[Delivery] = []
    #: Bodies as they came: a service may let go of them.
    bodies: dict[Delivery, bytes] = {}

    @functools.wraps(begin)
    def begun(self: Consumer, url: str, name: str, subscriptions: Any, on_delivery: Any, **named: Any) -> None:
        def noted(delivery: Delivery) -> None:
            bodies[delivery] = delivery.body
            on_delivery(delivery)

        begin(self, url, name, subscriptions, noted, **named)

    @functools.wraps(done)
    def gathered(self: Consumer, delivery: Delivery) -> None:
        done(self, delivery)
        if seam.meets(delivery.queue, bodies.pop(delivery, b"")):
            met.append(delivery)

    @functools.wraps(write)
    async def flushed(self: Consumer, session: Any, frames: bytes) -> None:
        if met and frames:
            seam.die()
        await write(self, session, frames)

    Consumer.__init__ = begun  # type: ignore[method-assign]
    Consumer.done = gathered  # type: ignore[method-assign]
    Consumer._write = flushed  # type: ignore[method-assign]


def _at_call(seam: Seam, call: Call) -> None:
    method = getattr(call.owner, call.method)

    @functools.wraps(method)
    async def called(*args: Any, **named: Any) -> Any:
        if not call.after and seam.counted():
            seam.die()
        result = await method(*args, **named)
        if call.after and (result or not call.found) and seam.counted():
            seam.die()
        return result

    setattr(call.owner, call.method, called)


def main(arguments: Sequence[str]) -> None:
    """Install the seam that the arguments name, and run the command after ``--``."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.seams")
    parser.add_argument("--at", choices=MOMENTS, required=True)
    parser.add_argument("--message", default="")
    parser.add_argument("--holding", action="append", default=[])
    parser.add_argument("--nth", type=int, default=1)
    parser.add_argument("--note", type=Path, required=True)
    parser.add_argument("--cut", action="store_true")
    own = arguments[: arguments.index("--")]
    install(Seam(**vars(parser.parse_args(own))))
    from dispatcher.cli.main import main as dispatcher

    dispatcher(arguments[len(own) + 1 :])


if __name__ == "__main__":
    main(sys.argv[1:])
