"""The same job as a Celery application, for `bench.celery_side` and its publisher.

Settings are those under which Celery promises what we promise: the task is acknowledged late, publishes are
confirmed, every result is stored in MongoDB. What it can do without is off.
"""

from __future__ import annotations

import os
from typing import Any

from celery import Celery

app = Celery("bench")
app.conf.update(
    broker_url=os.environ.get("BENCH_CELERY_BROKER"),
    broker_transport_options={"confirm_publish": True},
    broker_connection_retry_on_startup=True,
    result_backend=os.environ.get("BENCH_CELERY_BACKEND"),
    mongodb_backend_settings={"database": os.environ.get("BENCH_CELERY_NAME")},
    task_default_queue=os.environ.get("BENCH_CELERY_NAME", "celery"),
    task_acks_late=True,
    task_ignore_result=False,
    task_serializer="json",
    result_serializer="json",
    accept_content=["json"],
    worker_prefetch_multiplier=int(os.environ.get("BENCH_CELERY_PREFETCH", "4")),
    worker_send_task_events=False,
    worker_enable_remote_control=False,
    task_send_sent_event=False,
)


@app.task(name="bench.tiny")
def tiny(payload: dict[str, Any]) -> dict[str, Any]:
    """Next to no work, like the handler ``bench.tiny``."""
    return {"ok": True, "number": payload["number"]}
