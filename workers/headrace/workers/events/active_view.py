"""The requests of each model, as Celery's worker counts active ones."""

from __future__ import annotations

import os
import time
import uuid
from types import SimpleNamespace
from typing import Any, Final

from celery.worker import state as celery_state

from headrace.workers.events.wording import counted
from headrace.workers.request import ModelRef


class ActiveView:
    """Stands for the requests of one model in this worker, among those that Celery's worker takes for active.

    So `celery inspect active` and Flower tell which models are busy, and a heartbeat how many.
    """

    #: Celery's cold shutdown cancels what is active unless it was acknowledged; the engine puts it back by itself.
    acknowledged: Final = True
    task: Final = SimpleNamespace(acks_late=True)

    def __init__(self, served: ModelRef) -> None:
        """The model holds no request yet."""
        self.id = str(uuid.uuid4())
        self.held = 0
        self.time_start: float | None = None
        # Celery sets this on what it finds among reserved requests after a reconnect.
        self.eventer: object = None
        self._served = served

    def add(self, requests: int) -> None:
        """Count requests in, or out when negative."""
        before, self.held = self.held, self.held + requests
        if before == 0 < self.held:
            self.time_start = time.time()
            celery_state.active_requests.add(self)
            celery_state.reserved_requests.add(self)
        elif self.held == 0:
            celery_state.active_requests.discard(self)
            celery_state.reserved_requests.discard(self)

    def info(self, safe: bool = False) -> dict[str, Any]:  # noqa: ARG002 — Celery's interface
        """Describe the model in the form of a Celery request."""
        queue = self._served.queue
        return {
            "id": self.id,
            "name": queue,
            "type": queue,
            "args": f"{counted(self.held, 'request')} in this worker",
            "kwargs": {"version": self._served.package.version},
            "hostname": None,
            "time_start": self.time_start,
            "acknowledged": False,
            "delivery_info": {"exchange": "", "routing_key": queue, "priority": 0, "redelivered": False},
            "worker_pid": os.getpid(),
        }
