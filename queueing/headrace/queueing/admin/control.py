"""Celery's remote control without a Celery app, whose broker the environment (CELERY_BROKER_URL) could divert."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from kombu import Connection
from kombu.pidbox import Mailbox

from headrace.queueing.connection.bounded import transport_bounds
from headrace.queueing.connection.broker_url import headrace_url, redis_url, sentinels_of, tls_options
from headrace.queueing.connection.patience import SILENCE_S

#: Celery's name of the exchange that all workers listen to (`control_exchange`).
_EXCHANGE: Final = "celery"

#: Celery's `control_queue_ttl` and `control_queue_expires`: the age limits of a command and a queue.
_TTL_S: Final = 300.0
_EXPIRES_S: Final = 10.0


def tell_workers(broker_url: str, prefix: str, command: str, arguments: Mapping[str, object]) -> None:
    """Broadcast a command, such as `revoke`, to all workers of a key prefix. Raises kombu's OperationalError."""
    with _mailbox(broker_url, prefix) as mailbox:
        mailbox.abcast(command, dict(arguments))


def ask_workers(broker_url: str, prefix: str, command: str, *, timeout_s: float, limit: int) -> list[dict[str, Any]]:
    """Broadcast a command such as `ping`, and return the workers' answers: {node name: answer} each.

    limit: of answers, after which no more are awaited. Raises kombu's OperationalError.
    """
    with _mailbox(broker_url, prefix) as mailbox:
        return list(mailbox.multi_call(command, timeout=timeout_s, limit=limit) or [])


@contextmanager
def _mailbox(broker_url: str, prefix: str) -> Iterator[Any]:
    box = Mailbox(
        _EXCHANGE,
        type="fanout",
        accept=["json"],
        serializer="json",
        queue_ttl=_TTL_S,
        reply_queue_ttl=_TTL_S,
        queue_expires=_EXPIRES_S,
        reply_queue_expires=_EXPIRES_S,
    )
    options = {"global_keyprefix": prefix, **transport_bounds(SILENCE_S)}
    # kombu's own transport takes a broadcast as well, but reads no URL of Sentinels that names the master.
    url = redis_url(broker_url) if sentinels_of(broker_url) is None else headrace_url(broker_url)
    tls = tls_options(broker_url) if url.startswith("headraces") else None
    with Connection(url, ssl=tls or False, transport_options=options) as connection:
        yield box(connection)
