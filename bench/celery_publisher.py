"""The publisher's process on Celery's side; the same protocol as `bench.publisher`.

    python -m bench.celery_publisher COUNT THREADS

A publish of Celery waits for its confirm, so several threads keep several in flight.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator

from bench.celery_app import app, tiny
from bench.work import payload


def _publish(numbers: Iterator[int], lock: threading.Lock) -> None:
    with app.connection_for_write() as connection, app.amqp.Producer(connection) as producer:
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            tiny.apply_async((payload(number),), producer=producer, ignore_result=False)


def _main(count: int, threads: int) -> None:
    tiny.apply_async((payload(0),), ignore_result=False)
    print("ready", flush=True)
    sys.stdin.readline()
    numbers, lock = iter(range(count)), threading.Lock()
    workers = [threading.Thread(target=_publish, args=(numbers, lock)) for _ in range(threads)]
    began = time.monotonic()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    print(began, time.monotonic(), flush=True)
    sys.stdin.readline()


if __name__ == "__main__":
    _main(int(sys.argv[1]), int(sys.argv[2]))
