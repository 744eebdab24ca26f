"""Threads for sync handlers.

A thread cannot be stopped. One whose handler ran out of time is left to itself and another takes its place, so that
``worker.concurrency`` keeps its meaning and the worker goes on however many hang. They are daemons: none of them
keeps the process from ending.
"""

from __future__ import annotations

import concurrent.futures
import itertools
import queue
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from dispatcher.edges import log, metrics

_logger = log.get("worker")

_numbers = itertools.count(1)
_Task = tuple["concurrent.futures.Future[Any]", Callable[[], Any]]


class Call:
    """One call of a handler in a thread, which may be left to itself."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self._function = function
        self._lock = threading.Lock()
        self._ended = self._abandoned = False

    def __call__(self) -> Any:
        """Call it."""
        try:
            return self._function()
        finally:
            with self._lock:
                self._ended = True
            if self._abandoned:
                metrics.threads_abandoned.dec()
                _logger.info("a thread that was left to itself has ended")

    def abandon(self) -> bool:
        """Nobody waits for it any more; whether it still runs."""
        with self._lock:
            if self._ended:
                return False
            self._abandoned = True
        metrics.threads_abandoned.inc()
        return True


class Threads(concurrent.futures.Executor):
    """As many threads as are needed; those that are done are kept for the next calls.

    Args:
        most_idle: how many are kept.
    """

    def __init__(self, most_idle: int) -> None:
        self._most_idle = most_idle
        self._lock = threading.Lock()
        self._idle: list[queue.SimpleQueue[_Task | None]] = []
        self._closed = False

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> concurrent.futures.Future[Any]:
        """Have a thread call a function."""
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        with self._lock:
            tasks = self._idle.pop() if self._idle else None
        if tasks is None:
            tasks = queue.SimpleQueue()
            name = f"handler-{next(_numbers)}"
            threading.Thread(target=self._serve, args=(tasks,), name=name, daemon=True).start()
        tasks.put((future, partial(fn, *args, **kwargs)))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the idle threads; those that still run end with the process, or when they are done."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for tasks in idle:
            tasks.put(None)

    def _serve(self, tasks: queue.SimpleQueue[_Task | None]) -> None:
        while (task := tasks.get()) is not None:
            _work(task)
            del task  # what a job leaves must not live until the next one comes
            with self._lock:
                if self._closed or len(self._idle) >= self._most_idle:
                    return
                self._idle.append(tasks)


def _work(task: _Task) -> None:
    future, function = task
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = function()
    except BaseException as error:  # whatever a handler raises is its job's business
        future.set_exception(error)
    else:
        future.set_result(result)
