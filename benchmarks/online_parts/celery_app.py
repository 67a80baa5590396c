"""The rival: a plain Celery app that scores one request a task, set up for speed.

Events, gossip, mingle and heartbeat are off; acknowledgement is early (Celery's fastest); results go to Redis.
"""

from __future__ import annotations

import base64
import functools
import os
from pathlib import Path
from typing import Any

import numpy as np
from celery import Celery
from numpy.typing import NDArray

from online_parts.models import open_session

QUEUE = "score"


def make_app(backend: str) -> Celery:
    """Make the app; backend: a Redis URL, or `disabled://` for producers that never read results."""
    made = Celery("rival", broker=os.environ["RIVAL_BROKER"], backend=backend, set_as_current=False)
    made.conf.update(
        task_default_queue=QUEUE,
        task_serializer="json",
        result_serializer="json",
        accept_content=["json"],
        task_ignore_result=False,
        task_acks_late=False,
        task_track_started=False,
        task_send_sent_event=False,
        worker_send_task_events=False,
        worker_disable_rate_limits=True,
        worker_prefetch_multiplier=int(os.environ.get("RIVAL_PREFETCH", "64")),
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        broker_connection_retry_on_startup=True,
    )
    made.task(name="score_base64")(score_base64)
    made.task(name="score_list")(score_list)
    return made


@functools.cache
def _session() -> Any:
    """Open the model once a process."""
    return open_session(Path(os.environ["RIVAL_MODEL"]))


def score_base64(x: str) -> list[float]:
    """Score one row sent as base64 of its float32 bytes."""
    row = np.frombuffer(base64.b64decode(x), dtype="<f4")
    return _scores(row[None])


def score_list(x: list[float]) -> list[float]:
    """Score one row sent as a JSON list."""
    return _scores(np.array([x], dtype=np.float32))


def _scores(batch: NDArray[np.float32]) -> list[float]:
    scores: list[float] = _session().run(None, {"x": batch})[0][0].tolist()
    return scores


def encode(encoding: str, row: NDArray[np.float32]) -> str | list[float]:
    """Write one row as the task's `x`."""
    return base64.b64encode(row.tobytes()).decode() if encoding == "base64" else row.tolist()
