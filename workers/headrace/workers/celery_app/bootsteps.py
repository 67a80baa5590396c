"""Bootsteps of Celery's worker that start and stop the engine: one for the process, one for each connection."""

from __future__ import annotations

import atexit
import contextlib
import gc
import logging
import os
import sys
from functools import partial
from typing import Any, Final

from celery import bootsteps
from celery.worker import state as celery_state

from headrace.contracts import HeadraceError, Settings
from headrace.queueing import connect_to
from headrace.workers.celery_app.announcement import LOOK_S, RENEW_S, Announcement
from headrace.workers.celery_app.consumer import is_served, learn_revocations
from headrace.workers.celery_app.scheduled import show_delayed
from headrace.workers.celery_app.undeliverable import dead_letter_undeliverable
from headrace.workers.engine import Engine
from headrace.workers.process.event_loop import EventLoop
from headrace.workers.process.supervisor import end_with_supervisor
from headrace.workers.redelivery.quarantine import Quarantine
from headrace.workers.relay import Relay
from headrace.workers.startup import keep_partitions

logger = logging.getLogger(__name__)

#: Threads that hold the interpreter give it up after this time rather than Python's 5 ms: a batch passes through three
#: threads, and each hand-over may have to wait that long.
SWITCH_INTERVAL_S: Final = 0.0005

#: Python's default is (700, 10, 10) container objects made and not freed; one claim alone makes thousands.
COLLECT_AFTER: Final = (50_000, 10, 10)

#: How long the relay may take to end; it is a daemon thread, which holds nothing up beyond that.
RELAY_S: Final = 1.0

#: Partitions exist for two weeks ahead, so looking this often is plenty; a look is one short query.
PARTITIONS_EVERY_S: Final = 6 * 3600


class EngineStep(bootsteps.StartStopStep):
    """Starts the engine before the consumer, and drains it after the consumer at the latest."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, parent: Any, **kwargs: Any) -> None:
        """Celery calls this; parent: the worker."""
        super().__init__(parent, **kwargs)
        parent.headrace_engine = None

    def create(self, parent: Any) -> None:
        """Make and start the engine; a worker that can't serve ends with one clear line."""
        settings: Settings = parent.app.headrace_settings
        for name in parent.app.ignored_variables:
            logger.warning("ignoring %s: HEADRACE_BROKER_URL and HEADRACE_DATABASE_URL say where things are", name)
        if settings.key_prefix:
            logger.warning(
                "workers.key_prefix prefix=%r: only clients with the same HEADRACE_KEY_PREFIX are served",
                settings.key_prefix,
            )
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        end_with_supervisor()
        try:
            loop = EventLoop(parent.hub)
            engine = Engine(settings, loop, worker=parent.hostname, revoked=celery_state.revoked)
            engine.start()
        except HeadraceError as exc:
            raise SystemExit(f"headrace: {exc.message}") from exc
        parent.headrace_engine = engine
        show_delayed(connect_to(settings))
        atexit.register(_leave_a_batch_behind, parent)
        # What lives now lives as long as the process; and requests leave no cycles behind, so looking for cycles
        # 70 times more rarely than by default costs no memory and saves a tenth of the time.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*COLLECT_AFTER)
        parent.headrace_intake = engine.intake

    def start(self, parent: Any) -> None:
        """Keep the partitions of the coming days from now on."""
        parent.hub.call_repeatedly(PARTITIONS_EVERY_S, keep_partitions, parent.app.headrace_settings)

    def stop(self, parent: Any) -> None:
        """Drain, in case the consumer was never connected."""
        parent.headrace_engine.drain(parent.app.headrace_settings.grace_s, _is_hurried)

    def terminate(self, parent: Any) -> None:
        """Leave at once: what runs is not acknowledged and comes back with its lease."""


class RelayStep(bootsteps.StartStopStep):
    """Sends durable requests on while the worker runs."""

    requires = (EngineStep,)

    def create(self, parent: Any) -> None:
        """Make the relay."""
        parent.headrace_relay = Relay(parent.app.headrace_settings)

    def start(self, parent: Any) -> None:
        """Start it."""
        parent.headrace_relay.start()

    def stop(self, parent: Any) -> None:
        """End it."""
        parent.headrace_relay.close(RELAY_S)

    def terminate(self, parent: Any) -> None:
        """Leave at once: it holds nothing that another relay would not do again."""


class ConsumerHooks(bootsteps.StartStopStep):
    """Connects the engine with the channel and the event dispatcher of the present connection."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    #: The timers that keep what this worker serves from being forgotten, and up to date.
    _timers: tuple[Any, ...] = ()

    def start(self, parent: Any) -> None:
        """Attach the engine to the channel."""
        engine: Engine = parent.controller.headrace_engine
        channel = parent.task_consumer.channel
        channel.window, channel.window_bytes = engine.claims.room, engine.claims.room_bytes
        dead_letter_undeliverable(parent, engine.intake)
        channel.returned = Quarantine(
            channel,
            engine.parser,
            engine.intake,
            serves=partial(is_served, parent.strategies),
            redeliveries=engine.redeliveries,
            max_deaths=engine.settings.max_deliveries,
        ).take
        engine.loop.claim_by(channel.claim_soon)
        announcement = Announcement(engine.served, engine.problems, channel.consumer.queues)
        announcement.announce()
        self._timers = (
            parent.hub.call_repeatedly(RENEW_S, announcement.renew),
            parent.hub.call_repeatedly(LOOK_S, announcement.look),
        )
        engine.monitor.dispatcher = parent.event_dispatcher
        if parent.restart_count > 0:
            learn_revocations(parent)

    def stop(self, parent: Any) -> None:
        """On a lost connection let go of it; at shutdown drain while the channel can still put requests back."""
        engine: Engine = parent.controller.headrace_engine
        engine.loop.claim_by(None)
        for timer in self._timers:
            timer.cancel()
        self._timers = ()
        if parent.blueprint.state == bootsteps.CLOSE:  # type: ignore[attr-defined]  # missing from the stubs
            parent.task_consumer.cancel()
            engine.drain(parent.controller.app.headrace_settings.grace_s, _is_hurried)
        engine.monitor.flush()
        engine.monitor.dispatcher = None


def _leave_a_batch_behind(controller: Any) -> None:
    """End the process here if a batch still runs: when it came back to an interpreter that ends, it would abort.

    Called when the interpreter begins to end; nearly all that it would still do is done here.
    """
    if not controller.headrace_engine.is_busy:
        return
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(1 if _is_hurried() else controller.exitcode or 0)


def _is_hurried() -> bool:
    """Whether Celery was told to end cold: by SIGQUIT, or a second SIGINT."""
    return celery_state.should_terminate not in (None, False)
