"""An ordinary Celery app that knows its broker by URL: PLAIN_BROKER_URL. Its task leaves its word in PLAIN_FOLDER."""

from __future__ import annotations

import os
from pathlib import Path

from celery import Celery

app = Celery("plain", broker=os.environ.get("PLAIN_BROKER_URL", "memory://"))
app.conf.task_ignore_result = True
app.conf.broker_connection_retry_on_startup = True


@app.task
def leave(word: str) -> None:
    (Path(os.environ["PLAIN_FOLDER"]) / word).touch()
