"""The Celery app of a worker: `celery -A headrace.workers.app worker`, or `headrace worker`.

Settings come from `HEADRACE_*` or the running local stack. Each model of the model directory is a task and a queue
of the same name, `infer.MODEL`.
"""

from __future__ import annotations

from typing import Any

from celery import Celery, Task
from kombu import Exchange, Queue

from headrace.contracts import ModelDirectory, Settings, load_settings
from headrace.contracts.message import MAX_PRIORITY, queue_name
from headrace.contracts.tensors import CONTENT_TYPE
from headrace.queueing import headrace_url, tls_options
from headrace.results_store.celery_backend import backend_url
from headrace.workers.steps import ConsumerHooks, EngineStep


class InferenceTask(Task[Any, Any]):
    """A model as Celery sees it: requests go to the micro-batcher instead of a pool."""

    Strategy = "headrace.workers.intake:inference_strategy"
    acks_late = True
    abstract = True

    def run(self, *args: Any, **kwargs: Any) -> None:
        """Refuse to run outside a worker, as `task_always_eager` would."""
        raise NotImplementedError(f"{self.name} runs in a headrace worker; submit it, don't call it")


def make_app(settings: Settings) -> Celery:
    """Make the app that serves the models of `settings.models`."""
    app = Celery("headrace", set_as_current=False)
    names = ModelDirectory(settings.models).names()
    app.conf.update(
        broker_url=headrace_url(settings.require_broker_url()),
        broker_use_ssl=tls_options(settings.require_broker_url()) or False,
        broker_connection_retry_on_startup=True,
        broker_transport_options={
            "lease_s": settings.lease_s,
            "max_message_bytes": message_bytes(settings.max_payload_bytes),
        },
        result_backend=backend_url(settings.require_database_url()),
        accept_content=["json", CONTENT_TYPE],
        task_serializer="json",
        task_default_queue="headrace",
        task_create_missing_queues=True,
        task_queues=[
            Queue(queue_name(name), Exchange(""), routing_key=queue_name(name), max_priority=MAX_PRIORITY)
            for name in names
        ],
        worker_pool="solo",
        worker_send_task_events=True,
        # One process a device: the executor is its thread, so the pool only runs what remote control asks for.
        worker_concurrency=1,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_hijack_root_logger=True,
    )
    for name in names:
        app.register_task(type(name, (InferenceTask,), {"name": queue_name(name), "abstract": False})())
    app.steps["worker"].add(EngineStep)
    app.steps["consumer"].add(ConsumerHooks)
    app.headrace_settings = settings  # type: ignore[attr-defined]  # read by the steps
    return app


def message_bytes(payload_bytes: int) -> int:
    """Give the size of the queue's message that carries a request of `payload_bytes`: base64 and room for headers."""
    return payload_bytes * 4 // 3 + 65_536


def __getattr__(name: str) -> Celery:
    """Make `app` when it is first asked for, so that importing this module connects to nothing and reads nothing."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    app = make_app(load_settings())
    globals()["app"] = app
    return app
