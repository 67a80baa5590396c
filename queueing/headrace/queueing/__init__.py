"""The queues: a kombu transport with atomic claims of batches, leases, dead letters and statistics.

Names are loaded when they are first used: kombu imports `headrace.queueing.registration` while it is itself being
imported, so importing this package must stay light.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

from headrace.queueing import registration as _registration  # noqa: F401  # for those who use kombu without Celery

if TYPE_CHECKING:
    from headrace.queueing.admin.dead_letters import (
        LetterFilter,
        dead_letter,
        dead_letters,
        dead_message,
        drop_letter,
        find_letters,
        retry_letter,
    )
    from headrace.queueing.admin.stats import QueueStats, queue_stats
    from headrace.queueing.channel.channel import Channel
    from headrace.queueing.channel.message import OVERSIZE_HEADER
    from headrace.queueing.connection.broker_url import headrace_url, redis_url, sentinels_of, tls_options
    from headrace.queueing.connection.connect import (
        Command,
        CommandLine,
        connect,
        connect_to,
        refusal_line,
        translate_errors,
    )
    from headrace.queueing.connection.preconditions import broken_preconditions
    from headrace.queueing.connection.refusals import REFUSALS
    from headrace.queueing.consumer.claims import ClaimingConsumer
    from headrace.queueing.consumer.delivery import Crash, Delivery
    from headrace.queueing.consumer.lease import LeaseKeeper
    from headrace.queueing.consumer.letter import DeadLetter
    from headrace.queueing.consumer.probe import check_writes
    from headrace.queueing.consumer.recovery import Recovered, recover
    from headrace.queueing.consumer.running_marker import RunningMarker
    from headrace.queueing.transport import Transport

__all__ = [
    "OVERSIZE_HEADER",
    "REFUSALS",
    "Channel",
    "ClaimingConsumer",
    "Command",
    "CommandLine",
    "Crash",
    "DeadLetter",
    "Delivery",
    "LeaseKeeper",
    "LetterFilter",
    "QueueStats",
    "Recovered",
    "RunningMarker",
    "Transport",
    "broken_preconditions",
    "check_writes",
    "connect",
    "connect_to",
    "dead_letter",
    "dead_letters",
    "dead_message",
    "drop_letter",
    "find_letters",
    "headrace_url",
    "queue_stats",
    "recover",
    "redis_url",
    "refusal_line",
    "retry_letter",
    "sentinels_of",
    "tls_options",
    "translate_errors",
]

_HOMES: Final = {
    "OVERSIZE_HEADER": "channel.message",
    "Channel": "channel.channel",
    "ClaimingConsumer": "consumer.claims",
    "Crash": "consumer.delivery",
    "DeadLetter": "consumer.letter",
    "Delivery": "consumer.delivery",
    "LeaseKeeper": "consumer.lease",
    "LetterFilter": "admin.dead_letters",
    "QueueStats": "admin.stats",
    "Recovered": "consumer.recovery",
    "RunningMarker": "consumer.running_marker",
    "Transport": "transport",
    "REFUSALS": "connection.refusals",
    "broken_preconditions": "connection.preconditions",
    "check_writes": "consumer.probe",
    "refusal_line": "connection.connect",
    "Command": "connection.connect",
    "CommandLine": "connection.connect",
    "connect": "connection.connect",
    "connect_to": "connection.connect",
    "dead_letter": "admin.dead_letters",
    "dead_letters": "admin.dead_letters",
    "dead_message": "admin.dead_letters",
    "drop_letter": "admin.dead_letters",
    "find_letters": "admin.dead_letters",
    "headrace_url": "connection.broker_url",
    "queue_stats": "admin.stats",
    "recover": "consumer.recovery",
    "redis_url": "connection.broker_url",
    "retry_letter": "admin.dead_letters",
    "sentinels_of": "connection.broker_url",
    "tls_options": "connection.broker_url",
    "translate_errors": "connection.connect",
}


def __getattr__(name: str) -> object:
    try:
        home = _HOMES[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    value: object = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value
