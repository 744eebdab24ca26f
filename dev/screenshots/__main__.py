"""`make screenshots`: start RabbitMQ 4, MongoDB and the services, bring about what an operator sees, take pictures."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from dev.mongo import LocalMongo
from dev.process import ServerError, wait_until
from dev.rabbit import LocalRabbit
from dev.runs import run_folder
from dev.screenshots.camera import Camera, Shot, camera, chromium, exchange, queue
from dev.screenshots.features import signs
from dev.screenshots.scene import LANES, Scene
from dev.signals import ending_unwinds
from dispatcher.core.topology import Names, build

DATA = Path(".servers")
FOLDER = Path("docs/images")
#: Seconds that the charts show.
CHARTS = 60.0
#: Taken while all is well.
USUAL = (
    Shot("rabbitmq-overview", "/", header=True, until="#main h2:has-text('Churn')"),
    Shot("rabbitmq-intake", names="^(intake|unrouted|rejected|history|unrecorded|scheduled|stray)"),
    Shot("rabbitmq-work", names="^(work|suspect|parked)"),
    Shot("rabbitmq-ladder", names="^delay"),
    Shot("rabbitmq-groups", names="^group"),
    Shot("rabbitmq-queue", queue("work.v1.default.normal"), opened=("Consumers",)),
    Shot(
        "rabbitmq-group", queue("group.v1.3"), opened=("Consumers",), until="#main table.list:has-text('Consumer tag')"
    ),
    Shot("rabbitmq-exchange", exchange("after.v1.03"), opened=("Bindings",), until=".bindings-wrapper table"),
    Shot("rabbitmq-connections", "/connections", until="#main table.list"),
    Shot("rabbitmq-user", "/users/shop", opened=("Permissions",), until="#main table.list"),
)
#: Taken when nobody records history, nobody serves the lane mail, and RabbitMQ has raised an alarm.
ALARMING = (
    Shot("rabbitmq-behind", names="^(history|unrecorded|intake.v1|work.v1.mail)"),
    Shot("rabbitmq-alarm", "/", header=True, opened=("Nodes",), until="#main h2:has-text('Churn')"),
    Shot("rabbitmq-blocked", "/connections", until="#main table.list"),
)


def main() -> int:
    """Take all pictures; returns the exit code."""
    os.environ.setdefault("RABBITMQ", "4")
    try:
        chromium()  # before the servers start, which takes a minute
        with ending_unwinds(), run_folder(DATA, log=print) as folder:
            cache = DATA / "cache"
            with (
                LocalRabbit(folder / "rabbitmq", cache=cache) as rabbit,
                LocalMongo(folder / "mongo", cache=cache) as mongo,
            ):
                scene = Scene(rabbit, mongo.url, folder / "services.log")
                with scene.services():
                    _take(scene, rabbit)
    except ServerError as error:
        print(f"screenshots: {error}", file=sys.stderr)
        return 1
    return 0


def _take(scene: Scene, rabbit: LocalRabbit) -> None:
    print("screenshots: jobs of every kind", flush=True)
    scene.prepare()
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (
        scene.traffic(),
        camera(rabbit.management_url, "operator", scene.passwords["operator"], FOLDER) as browser,
    ):
        print("screenshots: a minute of steady load, which the charts show", flush=True)
        browser.choose()
        _check_features(browser)
        time.sleep(CHARTS)
        _pictures(browser, USUAL)
        scene.stop("recorder")
        time.sleep(CHARTS / 3)
        rabbit.ctl("set_vm_memory_high_watermark", "absolute", "20MB", timeout=180)
        wait_until(lambda: bool(scene.management.call("nodes")[0]["mem_alarm"]), 30)
        time.sleep(CHARTS / 6)  # the lists are some seconds old
        _pictures(browser, ALARMING)
        rabbit.ctl("set_vm_memory_high_watermark", "absolute", "2GB", timeout=180)


def _check_features(browser: Camera) -> None:
    """The UI shows the signs that docs/rabbitmq-ui.md has, which a unit test holds to the topology."""
    shown = browser.features()
    for declared in build(Names(), LANES).queues:
        wanted = signs(declared.arguments)
        if shown.get(declared.name) != wanted:
            raise ServerError(f"{declared.name} is shown with {shown.get(declared.name)}, not with {wanted}")


def _pictures(browser: Camera, shots: tuple[Shot, ...]) -> None:
    for shot in shots:
        began = time.monotonic()
        browser.take(shot)
        print(f"screenshots: {FOLDER / shot.file}.png ({time.monotonic() - began:.1f} s)", flush=True)


if __name__ == "__main__":
    sys.exit(main())
