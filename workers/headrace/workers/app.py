"""The Celery app of a worker: `celery -A headrace.workers.app worker`, or `headrace worker`.

Settings come from `HEADRACE_*` or the running local stack. Each model of the model directory is a task and a queue
of the same name, `infer.MODEL`.
"""

from __future__ import annotations

import os
from typing import Any, Final

from celery import Celery, Task
from kombu import Exchange, Queue

from headrace.contracts import ModelDirectory, Settings, load_settings
from headrace.contracts.jobs import score_queue
from headrace.contracts.message import MAX_PRIORITY, queue_name
from headrace.contracts.tensors.codec import CONTENT_TYPE
from headrace.queueing import connect, headrace_url, tls_options
from headrace.queueing.connection.bounded import transport_bounds
from headrace.results_store.celery_backend import PredictionBackend, shown_url
from headrace.workers.bulk.making import has_bulk
from headrace.workers.celery_app.bootsteps import ConsumerHooks, EngineStep, RelayStep

#: Variables by which Celery would take another broker or result backend than the settings'. `celery -b` sets the first.
DIVERTING: Final = (
    "CELERY_BROKER_URL",
    "CELERY_BROKER_READ_URL",
    "CELERY_BROKER_WRITE_URL",
    "CELERY_RESULT_BACKEND",
)


class App(Celery):
    """A Celery app whose result backend is the store, and whose workers serve the broker of the settings only."""

    events_cls = "headrace.workers.celery_app.dispatcher:Events"
    headrace_settings: Settings
    #: Variables that a worker found and ignored.
    ignored_variables: tuple[str, ...] = ()

    def _get_backend(self) -> PredictionBackend:
        """Return the store's backend; the address in `result_backend` is for people to read, and holds no password."""
        return PredictionBackend(self, url=self.headrace_settings.require_database_url())

    @property
    def Worker(self) -> Any:  # noqa: N802 — Celery's name
        """Return the class of this app's worker. Flower, another process of this app, may go by Celery's variables."""
        self.ignored_variables += tuple(name for name in DIVERTING if os.environ.pop(name, None))
        return self.subclass_with_self("celery.apps.worker:Worker")  # type: ignore[arg-type]  # takes names too


class ScoreTask(Task[Any, Any]):
    """The bulk jobs of a model as Celery sees them: a message is a ticket, which wakes the worker's bulk side."""

    Strategy = "headrace.workers.bulk.tickets:ticket_strategy"
    acks_late = True
    abstract = True

    def run(self, *args: Any, **kwargs: Any) -> None:
        """Refuse to run outside a worker."""
        raise NotImplementedError(f"{self.name} runs in a headrace worker; start a job with `headrace score`")


class InferenceTask(Task[Any, Any]):
    """A model as Celery sees it: requests go to the micro-batcher instead of a pool."""

    Strategy = "headrace.workers.intake.strategy:inference_strategy"
    acks_late = True
    abstract = True

    def run(self, *args: Any, **kwargs: Any) -> None:
        """Refuse to run outside a worker, as `task_always_eager` would."""
        raise NotImplementedError(f"{self.name} runs in a headrace worker; submit it, don't call it")


def make_app(settings: Settings) -> App:
    """Make the app that serves the models of `settings.models`. Raises ConfigurationError for URLs that can't be read.

    Of Celery's ways to take tasks off a lost connection none is needed: the engine holds requests, not Celery.
    """
    app = App("headrace", set_as_current=False, loader="app")
    app.headrace_settings = settings
    connect(settings.require_broker_url()).close()  # Celery's error about a URL that can't be read may quote it
    app.conf.update(
        broker_url=headrace_url(settings.require_broker_url()),
        broker_use_ssl=tls_options(settings.require_broker_url()) or False,
        broker_transport_options={
            "global_keyprefix": settings.key_prefix,
            "lease_s": settings.lease_s,
            "max_message_bytes": message_bytes(settings.max_payload_bytes),
            "refusal_pause_s": 0,  # the consumer pauses
            **transport_bounds(settings.broker_timeout_s),
        },
        result_backend=shown_url(settings.require_database_url()),
        accept_content=["json", CONTENT_TYPE],
        task_serializer="json",
        task_default_queue="headrace",
        task_create_missing_queues=True,
        worker_consumer="headrace.workers.celery_app.consumer:Consumer",
        worker_pool="solo",
        worker_send_task_events=True,
        # One process a device: the executor is its thread, so the pool only runs what remote control asks for.
        worker_concurrency=1,
        worker_hijack_root_logger=True,
    )
    _add_models(app, settings)
    app.steps["worker"].update((EngineStep, RelayStep))
    app.steps["consumer"].add(ConsumerHooks)
    return app


def _add_models(app: App, settings: Settings) -> None:
    """Add the tasks and queues of the models, as far as the worker is to serve them."""
    names = ModelDirectory(settings.models).names()
    scored = names if settings.serve != "online" and has_bulk() else []
    for name in names:
        app.register_task(type(name, (InferenceTask,), {"name": queue_name(name), "abstract": False})())
    for name in scored:
        app.register_task(type(f"score_{name}", (ScoreTask,), {"name": score_queue(name), "abstract": False})())
    queues = [Queue(score_queue(name), Exchange(""), routing_key=score_queue(name)) for name in scored]
    if settings.serve != "bulk":
        queues += [
            Queue(queue_name(name), Exchange(""), routing_key=queue_name(name), max_priority=MAX_PRIORITY)
            for name in names
        ]
    app.conf.update(task_queues=queues)


def message_bytes(payload_bytes: int) -> int:
    """Return the size of the queue's message that carries a request of `payload_bytes`: base64 and room for headers."""
    return payload_bytes * 4 // 3 + 65_536


def __getattr__(name: str) -> Celery:
    """Make `app` when it is first asked for, so that importing this module connects to nothing and reads nothing."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    app = make_app(load_settings())
    globals()["app"] = app
    return app
