"""Looking for a secret everywhere that an installation keeps something."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument

from dispatcher import composition
from tests.support import Installation, taken


@dataclass(frozen=True)
class Taken:
    """A message taken out of a queue: everything of it."""

    queue: str
    routing_key: str
    headers: dict[str, Any]
    properties: Any
    body: bytes

    def holds(self, text: str) -> bool:
        """Whether the text stands anywhere in the message."""
        return text.encode() in self.body or text in f"{self.routing_key} {self.properties!r} {self.headers!r}"


def take(installation: Installation, queue: str, channel: Any = None) -> list[Taken]:
    """Take everything out of a queue, with all its properties; on a connection of its own where none is given."""
    if channel is None:
        with installation.channel() as channel:
            return take(installation, queue, channel)
    found = []
    for method, properties, body in taken(channel, queue):
        headers = dict(properties.headers or {})
        headers.pop("x-delivery-count", None)  # the broker's own, on every quorum queue
        found.append(Taken(queue, method.routing_key, headers, properties, body))
    return found


def take_all(installation: Installation) -> list[Taken]:
    """Take everything out of every queue of the installation."""
    topology = composition.topology_of(installation.settings)
    return [message for queue in topology.queues for message in take(installation, queue.name)]


def documents_with(installation: Installation, text: str) -> list[str]:
    """Collections that hold a document with this text anywhere in its bytes."""
    raw: CodecOptions[Any] = CodecOptions(document_class=RawBSONDocument)
    found = []
    for name in installation.db.list_collection_names():
        for document in installation.db.get_collection(name, codec_options=raw).find():
            if text.encode() in document.raw:
                found.append(name)
    return found
