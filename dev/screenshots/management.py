"""RabbitMQ's management API, as far as the scene needs it."""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import quote


class Management:
    """Asks with one user's rights."""

    def __init__(self, url: str, user: str, password: str) -> None:
        self._url = url
        self._authorization = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()

    def call(self, path: str, body: Any = None, method: str | None = None) -> Any:
        """What a path below /api answers; with a body it is posted.

        Raises:
            urllib.error.HTTPError: it answers with an error.
        """
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": self._authorization, "Content-Type": "application/json"}
        request = urllib.request.Request(f"{self._url}/api/{path}", data, headers, method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def total(self, queue: str) -> int:
        """Messages of a queue, held ones too; 0 while the statistics do not know it yet."""
        try:
            return int(self.call(f"queues/%2F/{quote(queue, safe='')}").get("messages", 0))
        except urllib.error.HTTPError:
            return 0

    def publish(self, exchange: str, key: str, payload: str) -> None:
        """Publish a message."""
        name = quote(exchange or "amq.default", safe="")
        message = {"routing_key": key, "payload": payload, "payload_encoding": "string"}
        self.call(f"exchanges/%2F/{name}/publish", message | {"properties": {"delivery_mode": 2}})
