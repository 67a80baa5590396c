"""An ordinary Celery app: it has the URL of the broker, late acknowledgement, and tasks that write down that they ran.

`HEADRACE_CHAOS_LEDGER` names the folder that they write into; a file rather than Postgres, because what a task does
when its own database is away is its author's to say.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final

from celery import Celery
from tests.chaos.ledger import Journal

#: Tasks of this app wait here.
QUEUE: Final = "ordinary"

#: A task takes so long, so that a killed worker dies with some that run and some that wait.
TASK_S: Final = 0.01

app: Final = Celery("chaos-plain")
app.conf.update(
    broker_url=os.environ.get("HEADRACE_CHAOS_PLAIN_URL"),
    broker_transport_options={"lease_s": float(os.environ.get("HEADRACE_LEASE_S", "60"))},
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    task_default_queue=QUEUE,
    task_acks_late=True,
    task_ignore_result=True,
    worker_enable_prefetch_count_reduction=False,
)


@app.task
def note(number: int) -> None:
    """Take a moment, then write down that this number was worked on."""
    time.sleep(TASK_S)
    with Journal(Path(os.environ["HEADRACE_CHAOS_LEDGER"]) / f"ran-{os.getpid()}") as journal:
        journal.add([str(number)])
