"""docker-compose.yml, run: every service, the users' rights, how services end, and what a second start does."""

import json
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pika
import pika.exceptions
import pymongo
import pymongo.errors

from dev.image.checks import HARDENED, healthy
from dev.image.engine import Compose, docker, eventually, inspect, run
from dev.image.report import Report, expect
from dev.process import ServerError
from dispatcher import Client

HANDLERS = Path(__file__).with_name("handlers")
OURS = ("intake", "recorder", "scheduler", "worker")
JOBS = 8
CHANGED = "changed"
ACCESS_REFUSED, UNAUTHORIZED = 403, 13  # RabbitMQ's code, MongoDB's
#: What the demo's jobs come to.
STATES = ("succeeded", "failed", "timed_out", "cancelled", "rejected", "duplicate", "expired")


Act = Callable[[], object]


class Installation:
    """A project of docker-compose.yml that runs.

    Args:
        compose: the project.
        passwords: of the users, by variable.
        ports: on this machine, by variable.
        started: words of `docker compose up`: what is started, one list after the other.
    """

    def __init__(
        self, compose: Compose, passwords: Mapping[str, str], ports: Mapping[str, int], started: Sequence[Sequence[str]]
    ) -> None:
        self._compose = compose
        self._passwords = passwords
        self._ports = ports
        self._started = started
        self._client: Any = pymongo.MongoClient(self._mongo("dispatcher", "SERVICES_PASSWORD"), connect=False)

    def check(self, report: Report) -> None:
        """Start it, look at everything, and stop it service by service."""
        if not report.check("docker compose up --wait", self._up):
            report.check("its logs", lambda: self._compose("logs", "--tail", "15"))
            return
        report.check("our containers", self._hardened)
        report.check("the demo's jobs, by their state", self._states)
        report.check("dispatcher doctor", self._doctor)
        report.check("RabbitMQ's rights of a client", self._client_rights)
        report.check("MongoDB's rights of a worker", self._worker_rights)
        if any("prometheus" in words or "observability" in words for words in self._started):
            report.check("Prometheus' targets", self._targets)
        report.check("up: all services in one process", self._all_in_one)
        report.check("what child processes leave behind", lambda: self._left("tini"))
        report.check("the same without our first process", lambda: self._left("none"))
        report.check("a job that takes all memory", self._greedy)
        report.check("a second start, and a changed password", self._again)
        report.check("SIGTERM to a worker with a running job", self._ending)
        for service in ("demo", *OURS):
            report.check(f"SIGTERM to {service}", lambda service=service: self._stopped(service))  # type: ignore[misc]
        report.check("what our services were refused", self._refused)

    def _up(self, env: Mapping[str, str] | None = None) -> str:
        began = time.monotonic()
        for words in self._started:
            self._compose(*words, env=env)
        return f"after {time.monotonic() - began:.0f} s: {self._versions()}"

    def _versions(self) -> str:
        rabbit = self._compose("exec", "-T", "rabbitmq", "rabbitmqctl", "version").splitlines()[-1]
        mongo = self._compose("exec", "-T", "mongo", "mongod", "--version").splitlines()[0]
        return f"RabbitMQ {rabbit}, MongoDB {mongo.removeprefix('db version v')}"

    def _hardened(self) -> str:
        for service in (*OURS, "demo"):
            container = self._compose.container(service)
            found = inspect(container)["HostConfig"]
            expect(found["ReadonlyRootfs"] and found["CapDrop"] == ["ALL"] and found["Memory"], f"{service}: {found}")
            user = docker("exec", container, "id", "-u")
            expect(user == "10001", f"{service} runs as {user}")
            written = run("docker", "exec", container, "touch", "/opt/dispatcher/x")
            expect(written.returncode != 0 and "Read-only" in written.stderr, f"{service}: {written.stderr}")
        return "uid 10001, nothing written, no capability, memory limited"

    def _states(self) -> str:
        found: dict[str, int] = {}

        def seen() -> bool:
            found.update({state: self._jobs.count_documents({"state": state}) for state in STATES})
            return all(found.values())

        eventually(seen, "jobs in each state", timeout=240)
        return ", ".join(f"{number} {state}" for state, number in found.items())

    def _doctor(self) -> str:
        """It finds nothing wrong, once all has settled: on a busy machine its questions can take too long."""
        wrong: list[str] = []

        def fine() -> int:
            said = self._compose("run", "--rm", "-T", "dispatcher", "doctor", "--json", wanted=(0, 1))
            findings = json.loads(said)
            wrong[:] = [f"{f['check']}: {f['message']}" for f in findings if f["status"] not in ("ok", "skipped")]
            return 0 if wrong else len(findings)

        try:
            return f"{eventually(fine, 'it finds nothing wrong')} checks ok"
        except ServerError as error:
            raise AssertionError(f"{error}: {'; '.join(wrong)}") from None

    @property
    def _jobs(self) -> Any:
        return self._client["job_dispatcher"]["jobs"]

    def _amqp(self, password: str) -> str:
        return f"amqp://client:{password}@127.0.0.1:{self._ports['RABBITMQ_PORT']}"

    def _mongo(self, user: str, variable: str) -> str:
        at = f"127.0.0.1:{self._ports['MONGO_PORT']}"
        return f"mongodb://{user}:{self._passwords[variable]}@{at}/job_dispatcher?directConnection=true"

    def _refused(self) -> str:
        """A right that is missing shows in the logs: RabbitMQ closes the channel."""
        lines = self._compose("logs", "--no-log-prefix", *OURS).splitlines()
        refused = [line for line in lines if "refused the user" in line or "not authorized" in line.lower()]
        expect(not refused, f"{len(refused)} times, first: {''.join(refused[:1])[:300]}")
        return f"nothing, in {len(lines)} lines"

    def _client_rights(self) -> str:
        connection = pika.BlockingConnection(pika.URLParameters(self._amqp(self._passwords["CLIENT_PASSWORD"])))
        queues = ("intake.v1", "rejected", "history.v1", "work.v1.default.normal", "parked.v1.default")
        refused = 0
        for queue in queues:
            try:
                connection.channel().basic_get(queue)
            except pika.exceptions.ChannelClosedByBroker as closed:
                refused += closed.reply_code == ACCESS_REFUSED
        connection.close()
        expect(refused == len(queues), f"it could read {len(queues) - refused} of {len(queues)} queues")
        return f"its jobs are accepted (above); {refused} of {len(queues)} queues refused"

    def _worker_rights(self) -> str:
        client: Any = pymongo.MongoClient(self._mongo("worker", "WORKER_PASSWORD"))
        db = client["job_dispatcher"]
        db["jobs"].find_one()
        attempts: dict[str, Act] = {
            "read keys": db["api_keys"].find_one,
            "write a job": lambda: db["jobs"].update_one({}, {"$set": {"state": "succeeded"}}),
            "drop a collection": db["jobs"].drop,
        }
        for what, attempt in attempts.items():
            try:
                attempt()
            except pymongo.errors.OperationFailure as error:
                expect(error.code == UNAUTHORIZED, f"{what}: {error}")
            else:
                expect(False, f"it may {what}")
        client.close()
        return f"reads jobs; may not {', '.join(attempts)}"

    def _targets(self) -> str:
        url = f"http://127.0.0.1:{self._ports['PROMETHEUS_PORT']}/api/v1/targets"
        health: dict[str, str] = {}

        def up() -> bool:
            with urllib.request.urlopen(url, timeout=10) as answer:
                targets = json.load(answer)["data"]["activeTargets"]
            health.update({target["scrapeUrl"]: target["health"] for target in targets})
            return len(health) == len(OURS) + 3 and set(health.values()) == {"up"}

        eventually(up, "every target is up")
        return f"{len(health)} up"

    def _as(self, service: str) -> tuple[str, list[str]]:
        """The image, and options of `docker run` that put a container where a service is, with its settings."""
        config = inspect(self._compose.container(service))["Config"]
        env = [word for value in config["Env"] if value.startswith("DISPATCHER_") for word in ("--env", value)]
        return str(config["Image"]), ["--network", f"{self._compose.project}_default", *env]

    def _all_in_one(self) -> str:
        image, options = self._as("intake")
        return f"healthy {healthy(image, 'up', options=options)}"

    @contextmanager
    def _worker_of_ours(self, *options: str) -> Iterator[str]:
        """A container with a worker of the handlers beside this module."""
        image, words = self._as("worker")
        words += ["--volume", f"{HANDLERS}:/handlers:ro", *HARDENED, *options]
        container = docker("run", "--detach", *words, image, "worker", "leaving:jobs")
        try:
            yield container
        finally:
            run("docker", "rm", "--force", container)

    def _left(self, init: str) -> str:
        """Dead processes that nobody waited for, in a worker whose handlers leave some behind."""
        options = ("--entrypoint", "dispatcher") if init == "none" else ()
        with self._worker_of_ours(*options) as container:
            dead = self._zombies_in(container, f"{init}-{time.time_ns()}")
        if init == "none":
            expect(dead > 0, "no zombie without it either: the check above shows nothing")
        else:
            expect(dead == 0, f"{dead} zombies")
        return f"{JOBS} jobs, half of them killed: {dead} zombies"

    def _greedy(self) -> str:
        """Its process is killed, and not its worker: that goes on, and runs the next."""
        name = f"greedy-{time.time_ns()}"
        with self._worker_of_ours("--memory", "256m", "--memory-swap", "256m") as container:
            self._publish("leaving.greedy", {}, name)
            killed = self._final(name)
            self._publish("leaving.modest", {}, f"{name}-next")
            following = self._final(f"{name}-next")
            running = inspect(container)["State"]["Running"]
        outcomes = [attempt["outcome"] for attempt in killed["attempts"]]
        expect(outcomes == ["crashed"], f"its attempts ended as {outcomes}")
        expect(running and following["state"] == "succeeded", f"worker runs: {running}, next job: {following['state']}")
        return f"{killed['error']['message']}; its worker runs the next"

    def _zombies_in(self, container: str, name: str) -> int:
        for number in range(JOBS):
            self._publish("leaving.behind" if number % 2 else "leaving.timeout", {}, f"{name}-{number}")
        for number in range(JOBS):
            self._final(f"{name}-{number}")

        def states() -> list[str]:
            lines = docker("exec", container, "sh", "-c", "cat /proc/[0-9]*/stat 2> /dev/null || true").splitlines()
            return [" ".join([line.split("(")[1].split(")")[0], line.rpartition(")")[2].split()[0]]) for line in lines]

        eventually(lambda: not {"sleep S", "sleep R"} & set(states()), "what was left behind has ended")
        return sum(state.endswith(" Z") for state in states())

    def _publish(self, kind: str, payload: dict[str, Any], job: str) -> None:
        key = docker("exec", self._compose.container("demo"), "cat", "/var/lib/dispatcher/key")
        with Client(self._amqp(self._passwords["CLIENT_PASSWORD"]), key) as client:
            receipt = client.submit_sync(kind, payload, id=job, retry={"max_attempts": 1})
        expect(receipt.accepted, f"{job}: {receipt}")

    def _job(self, job: str) -> dict[str, Any]:
        return dict(self._jobs.find_one({"_id": f"demo:{job}"}) or {"state": "unknown"})

    def _final(self, job: str) -> dict[str, Any]:
        eventually(lambda: self._job(job)["state"] in STATES, f"job {job} is over")
        return self._job(job)

    def _again(self) -> str:
        old = self._passwords["CLIENT_PASSWORD"]
        self._up({"CLIENT_PASSWORD": CHANGED})
        expect(self._opens(CHANGED), "the new password is refused")
        expect(not self._opens(old), "the old password is still taken")
        self._up()
        expect(self._opens(old), "the old password, set again, is refused")
        return "nothing fails; the old password is refused, and taken again once it is set"

    def _opens(self, password: str) -> bool:
        try:
            pika.BlockingConnection(pika.URLParameters(self._amqp(password))).close()
        except pika.exceptions.AMQPConnectionError:
            return False
        return True

    def _ending(self) -> str:
        job = f"ending-{time.time_ns()}"
        self._publish("demo.sleep", {"seconds": 15}, job)
        eventually(lambda: self._job(job)["state"] == "running", f"{job} runs")
        said, ended = self._stopped("worker"), self._final(job)
        expect(ended["state"] == "succeeded" and len(ended["attempts"]) == 1, f"{ended['state']}, {ended['attempts']}")
        self._compose("start", "worker")
        return f"{said}; the job succeeded at its one attempt"

    def _stopped(self, service: str) -> str:
        began = time.monotonic()
        self._compose("stop", service)
        code = inspect(self._compose.container(service))["State"]["ExitCode"]
        seconds = time.monotonic() - began
        expect(code == 0, f"exit code {code} after {seconds:.1f} s")
        return f"exit code 0 after {seconds:.1f} s"
