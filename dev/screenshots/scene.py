"""An installation in the middle of its work: something in every group of queues.

The jobs are real, and so is what becomes of them; only the services' owner is not.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from dev.process import guarded, unguarded, wait_until
from dev.rabbit import LocalRabbit
from dev.screenshots.management import Management
from dispatcher import Client

ROOT = Path(__file__).parents[2]
LANES = ["default", "mail", "reports"]
#: Lanes that the worker serves; nobody serves the third.
SERVED = ["default", "reports"]
#: User, its rights (configure, write, read) and its tag: the table of docs/rabbitmq-ui.md.
USERS = {
    "dispatcher": (".*", ".*", ".*", ""),
    "shop": ("^$", "^jobs$", "^$", ""),
    "watcher": ("^$", "^$", "^$", "monitoring"),
    "operator": (".*", ".*", ".*", "administrator"),
}
#: Seconds between two and two jobs of the steady load.
EVERY = 0.1

_PROGRAM = [sys.executable, "-m", "dispatcher.cli.main"]


class Scene:
    """The services of the scene, and what is published to them."""

    def __init__(self, rabbit: LocalRabbit, mongo_url: str, log: Path) -> None:
        self._log = log
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self.passwords = {user: secrets.token_hex(8) for user in USERS}
        self._add_users(Management(rabbit.management_url, "guest", "guest"))
        at = rabbit.url.partition("@")[2]
        self.url = {user: f"amqp://{user}:{password}@{at}" for user, password in self.passwords.items()}
        self.management = Management(rabbit.management_url, "operator", self.passwords["operator"])
        self._environment = os.environ | {
            "DISPATCHER_AMQP__URL": self.url["dispatcher"],
            "DISPATCHER_MONGO__URL": mongo_url,
            "DISPATCHER_LANES": json.dumps(LANES),
            "DISPATCHER_TYPES": '{"mail.#": "mail", "report.#": "reports", "image.#": "reports"}',
            "DISPATCHER_WORKER__LANES": json.dumps(SERVED),
            "DISPATCHER_WORKER__CONCURRENCY": "6",
        }

    def _add_users(self, guest: Management) -> None:
        for user, (configure, write, read, tag) in USERS.items():
            guest.call(f"users/{user}", {"password": self.passwords[user], "tags": tag}, "PUT")
            guest.call(f"permissions/%2F/{user}", {"configure": configure, "write": write, "read": read}, "PUT")

    @contextmanager
    def services(self) -> Iterator[None]:
        """Everything that runs, until the end of the block."""
        self._command("topology", "apply")
        try:
            for name in ("intake", "recorder", "scheduler"):
                self.start(name)
            self.start("worker")
            yield
        finally:
            for name in list(self._running):
                self.stop(name)

    def start(self, name: str) -> None:
        """Start a service."""
        words = ["worker", "dev.screenshots.handlers:jobs"] if name == "worker" else ["run", name]
        with self._log.open("ab") as log:
            command = [*_PROGRAM, *words]
            process = subprocess.Popen(
                command, env=self._environment, cwd=ROOT, stdout=log, stderr=log, start_new_session=True
            )
        guarded(process)
        self._running[name] = process

    def stop(self, name: str) -> None:
        """Stop a service in an orderly way."""
        process = self._running.pop(name)
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:  # the long jobs
            process.kill()
            process.wait()
        unguarded(process)

    def prepare(self) -> None:
        """Bring about what stays: a suspect, dead and refused jobs, retries, groups, backlogs."""
        asyncio.run(self._publish(_suspect))
        wait_until(self._suspect_found, 60, 0.2)
        asyncio.run(self._publish(_jobs))
        asyncio.run(self._publish(_refused))
        self.management.publish("", "history.v1", '{"v": 1, "events": [{"kind": "of a later version"}]}')

    @contextmanager
    def traffic(self) -> Iterator[None]:
        """Steady load until the end of the block."""
        ends = threading.Event()

        async def steady(client: Client) -> None:
            while not ends.is_set():
                await asyncio.gather(*(client.publish("order.confirm", {}, priority=p) for p in ("high", "critical")))
                await asyncio.sleep(EVERY)

        thread = threading.Thread(target=lambda: asyncio.run(self._publish(steady)))
        thread.start()
        try:
            yield
        finally:
            ends.set()
            thread.join()

    def _suspect_found(self) -> bool:
        """Whether the job that kills its worker runs alone; the worker is started again as long as it does not."""
        if self._running["worker"].poll() is not None:
            unguarded(self._running["worker"])
            self.start("worker")
        return self.management.total("suspect.v1.reports") > 0

    async def _publish(self, what: Callable[[Client], Any]) -> None:
        async with Client(self.url["shop"], self._key(), timeout=600) as client:  # the alarm may be long
            await what(client)

    def _key(self) -> str:
        return str(self._command("keys", "create", "--app", "shop", "--expires", "90d", "--json")["key"])

    def _command(self, *words: str) -> Mapping[str, Any]:
        done = subprocess.run([*_PROGRAM, *words], env=self._environment, cwd=ROOT, capture_output=True, check=True)
        with suppress(ValueError):
            return dict(json.loads(done.stdout))
        return {}


async def _suspect(client: Client) -> None:
    await client.publish("image.resize", {"image": 4711})


async def _jobs(client: Client) -> None:
    for number in range(2):
        await client.publish("report.build", {"number": number}, priority="low")
    waits: list[float] = [2.5 * 1.7**step for step in range(14)]  # a few seconds to half an hour and more
    retries: list[dict[str, Any]] = [{"retry": {"base": base, "max_delay": 86_400}} for base in waits for _ in range(6)]
    dead = [client.publish("invoice.charge", {"invoice": n}) for n in range(38)]
    late = [client.publish("warehouse.notify", {"order": n}, **retry) for n, retry in enumerate(retries)]
    await asyncio.gather(*dead, *late)
    for n in range(240):
        group = {"key": f"week-{n % 12}", "max_size": 1000, "max_wait": 900}
        await client.publish("mail.newsletter", {"to": n}, group=group)
    backlog = [("normal", 900), ("low", 350), ("background", 120)]
    works = [client.publish("catalog.sync", {"item": n}, priority=p) for p, count in backlog for n in range(count)]
    mails = [client.publish("mail.welcome", {"to": n}) for n in range(420)]
    await asyncio.gather(*works, *mails, *(client.publish("report.build", {}, delay=7200) for _ in range(25)))


async def _refused(client: Client) -> None:
    wrong: list[dict[str, Any]] = [{"lane": "mails"}, {"priority": "urgent"}, {"timeout": -1}]
    for n in range(27):
        await client.publish("order.confirm", {}, **wrong[n % 3])
