"""RabbitMQ's management API, which can list what AMQP cannot: bindings and policies. Optional."""

from __future__ import annotations

import asyncio
import base64
import json
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

from dispatcher.core.errors import DispatcherError
from dispatcher.core.topology import Binding, Topology

#: Longest wait for an answer, in seconds, and its largest size in bytes: a broker's 100,000 queues have room in it.
TIMEOUT, MAX_ANSWER = 5.0, 64 << 20


class ManagementError(DispatcherError):
    """The management API cannot be used; the sentence says why, without the password."""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Goes nowhere else: the password would go along."""

    def redirect_request(self, *_: Any) -> None:
        """None, so that the answer is an error."""


class Management:
    """Asks the management API.

    Args:
        url: its address, ``http://host:15672``; a user and password in it come before those of ``amqp_url``.
        amqp_url: the broker, for user, password and virtual host.
    """

    def __init__(self, url: str, amqp_url: str) -> None:
        own, broker = urllib.parse.urlsplit(url), urllib.parse.urlsplit(amqp_url)
        who = own if own.username else broker
        user = urllib.parse.unquote(who.username or "guest")
        password = urllib.parse.unquote(who.password or "guest")
        self._base = urllib.parse.urlunsplit((own.scheme, own.netloc.rpartition("@")[2], own.path.rstrip("/"), "", ""))
        self._authorization = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
        self._opener = urllib.request.build_opener(_NoRedirects)
        self._vhost = urllib.parse.quote(urllib.parse.unquote(broker.path[1:]) or "/", safe="")

    async def missing_bindings(self, topology: Topology) -> list[str]:
        """The bindings of a topology that do not exist.

        Raises:
            ManagementError: it cannot be asked.
        """
        stored = await self._get(f"/api/bindings/{self._vhost}")
        there = {
            Binding(b["source"], b["destination"], b["routing_key"], b.get("destination_type") == "exchange")
            for b in stored
            if not b.get("arguments") and {"source", "destination", "routing_key"} <= b.keys()
        }
        return [f"{b.source} to {b.destination} ({b.routing_key})" for b in topology.bindings if b not in there]

    async def policies(self, topology: Topology) -> dict[str, str]:
        """What policies change of a topology's queues, by queue.

        Raises:
            ManagementError: it cannot be asked.
        """
        ours = {queue.name for queue in topology.queues}
        columns = "name,policy,operator_policy,effective_policy_definition"
        stored = await self._get(f"/api/queues/{self._vhost}?columns={columns}")
        return {q["name"]: _told(q) for q in stored if q.get("name") in ours and q.get("effective_policy_definition")}

    async def unacknowledged(self) -> dict[str, int]:
        """Messages that consumers hold, by queue, up to some 5 s old (the broker's ``collect_statistics_interval``).

        Raises:
            ManagementError: it cannot be asked.
        """
        stored = await self._get(f"/api/queues/{self._vhost}?columns=name,messages_unacknowledged")
        return {q["name"]: int(q["messages_unacknowledged"]) for q in stored if "messages_unacknowledged" in q}

    async def _get(self, path: str) -> list[dict[str, Any]]:
        answer = await asyncio.to_thread(self._ask, path)
        if not isinstance(answer, list) or not all(isinstance(row, dict) for row in answer):
            raise ManagementError(f"what {self._base} answers is no list; is amqp.management_url right?")
        return answer

    def _ask(self, path: str) -> Any:
        request = urllib.request.Request(self._base + path, headers={"Authorization": self._authorization})
        try:
            with self._opener.open(request, timeout=TIMEOUT) as response:
                answer = response.read(MAX_ANSWER + 1)
            if len(answer) > MAX_ANSWER:
                raise ManagementError(f"{self._base} answers with more than {MAX_ANSWER >> 20} MiB")
            return json.loads(answer)
        except urllib.error.HTTPError as error:
            raise ManagementError(f"{self._base} answers {error.code} {error.reason}") from None
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            raise ManagementError(f"cannot use {self._base} ({reason}); is amqp.management_url right?") from None


def _told(queue: dict[str, Any]) -> str:
    definition = ", ".join(f"{name}={value}" for name, value in queue["effective_policy_definition"].items())
    return f"policy {queue.get('policy') or queue.get('operator_policy')}: {definition}"
