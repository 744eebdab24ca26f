"""The chart's pods as processes, with the arguments, variables and files that a cluster gives them, on real servers."""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.chart.charts import MINIMAL, Manifest, Pod, config_of, pods, rendered
from tests.conftest import make_settings
from tests.processes import _PROGRAM, ROOT, Finished, ServiceProcess
from tests.support import Installation, eventually

#: Stands for the port of the value files: several pods share this machine's.
ANY_PORT = {"DISPATCHER_HTTP__HOST": "127.0.0.1", "DISPATCHER_HTTP__PORT": "0"}


class Cluster:
    """Secrets and files of rendered manifests, as a cluster would give them to containers."""

    def __init__(self, manifests: list[Manifest], secrets: dict[str, dict[str, str]], folder: Path) -> None:
        self._manifests, self._secrets, self._folder = manifests, secrets, folder
        self.pods = {pod.labels.get("app.kubernetes.io/component", ""): pod for pod in pods(manifests)}

    def environment(self, pod: Pod) -> dict[str, str]:
        """The container's variables and nothing else of ours; a key that the Secret does not have is an error."""
        file = self._folder / f"{pod.owner.replace('/', '-')}.yaml"
        file.write_text(config_of(self._manifests, pod))
        plain = {name: value for name, value in os.environ.items() if not name.startswith("DISPATCHER_")}
        for name, value in pod.env.items():
            if isinstance(value, str):
                plain[name] = value
            else:
                reference = value["secretKeyRef"]
                plain[name] = self._secrets[reference["name"]][reference["key"]]
        return plain | ANY_PORT | {"DISPATCHER_CONFIG": str(file), "PYTHONUNBUFFERED": "1"}

    async def run(self, component: str, *arguments: str, **more: str) -> Finished:
        """A pod's container to its end, or another command of it, as `kubectl exec` runs it."""
        pod = self.pods[component]
        process = await asyncio.create_subprocess_exec(
            *_PROGRAM,
            *(arguments or pod.container["args"]),
            cwd=ROOT,
            env=self.environment(pod) | more,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
        return Finished(process.returncode or 0, out.decode(), err.decode())


class PodProcess(ServiceProcess):
    """A Deployment's container that runs until it is told to stop."""

    def __init__(self, cluster: Cluster, pod: Pod) -> None:
        self._arguments = tuple(pod.container["args"])
        self._folder = ROOT
        self._env = cluster.environment(pod)
        self.process, self.url = None, ""


def cluster_of(installation: Installation, folder: Path) -> Cluster:
    """The minimal value file with this installation's prefix and database, and the examples as its worker."""
    sets = {
        "config.amqp.prefix": installation.settings.amqp.prefix,
        "config.mongo.database": installation.settings.mongo.database,
        "config.lanes": "{default,bulk}",
        "workers.mail.handlers": "examples.handlers:jobs",
        "workers.mail.concurrency": "3",
    }
    values = ",".join(f"{name}={value}" for name, value in sets.items())
    urls = {"amqp-url": installation.amqp_url, "mongo-url": installation.settings.mongo.url.get_secret_value()}
    return Cluster(
        rendered(MINIMAL, "--set", values, "--set-json", "workers.mail.grace=7.5"),
        {"job-dispatcher-servers": urls},
        folder,
    )


async def test_the_hook_may_run_twice(tmp_path: Path) -> None:
    """On servers that have nothing yet, and again: the second time changes nothing, in the broker and the database."""
    fresh = Installation(make_settings())
    cluster = cluster_of(fresh, tmp_path)
    assert not _indexes(fresh)
    try:
        first = await cluster.run("topology")
        assert first.code == 0, first.err
        indexes = _indexes(fresh)
        assert "jobs" in indexes
        second = await cluster.run("topology")
        assert (second.code, second.out) == (0, first.out), second.err
        assert _indexes(fresh) == indexes
        with fresh.channel() as channel:
            channel.queue_declare(fresh.names.work_queue("bulk", "low"), passive=True)
    finally:
        fresh.remove()


def _indexes(installed: Installation) -> dict[str, object]:
    return {name: installed.db[name].index_information() for name in sorted(installed.db.list_collection_names())}


@pytest.mark.timeout(300)
async def test_every_deployment_runs_a_job_and_stops(installed: Installation, tmp_path: Path) -> None:
    """Ready by its own probe; key and job made as NOTES.txt says; `helm test` finds nothing that failed; SIGTERM."""
    cluster = cluster_of(installed, tmp_path)
    lasting = [pod for pod in cluster.pods.values() if pod.owner.startswith("Deployment/")]
    assert len(lasting) == 4
    async with AsyncExitStack() as stack:
        running = [await stack.enter_async_context(PodProcess(cluster, pod)) for pod in lasting]
        for pod, process in zip(lasting, running, strict=True):
            assert (await process.get(pod.container["livenessProbe"]["httpGet"]["path"]))[0] == 200
            await process.ready()
        made = await cluster.run("intake", "keys", "create", "--app", "shop")
        assert made.code == 0, made.err
        job = ("email.send", json.dumps({"to": "ann@example.org"}), "--id", "welcome-1")
        sent = await cluster.run("intake", "publish", *job, DISPATCHER_API_KEY=made.out.strip())
        assert sent.code == 0, sent.err
        await eventually(lambda: _state(installed) == "succeeded", "the job is in history")
        doctor = await cluster.run("doctor")
        assert doctor.code == 0, doctor.out
        assert "failed" not in [line.split()[0] for line in doctor.out.splitlines() if line.strip()]
        assert [await process.terminate(timeout=60) for process in running] == [0, 0, 0, 0]


def _state(installed: Installation) -> str | None:
    found = installed.db.jobs.find_one({"_id": "shop:welcome-1"})
    return found["state"] if found else None
