"""The parts of a worker that its bulk side needs."""

from __future__ import annotations

from collections.abc import Container

import msgspec

from headrace.workers.events.celery_events import Monitor
from headrace.workers.execution.executor import Executor
from headrace.workers.models.table import ModelTable
from headrace.workers.process.event_loop import EventLoop


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of a worker that its bulk side needs. revoked: ids of cancelled requests and shards."""

    worker: str
    models: ModelTable
    executor: Executor
    revoked: Container[str]
    monitor: Monitor
    loop: EventLoop
