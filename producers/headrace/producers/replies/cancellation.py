"""Cancels a request: stores its row as cancelled, then broadcasts Celery's `revoke` to all workers."""

from __future__ import annotations

import logging
from typing import Final

from headrace.contracts.errors import BrokerUnavailable
from headrace.contracts.message import Reply
from headrace.contracts.states import State
from headrace.producers.replies.pending import Waiting
from headrace.producers.replies.store_lookup import RowLookup
from headrace.producers.transport.connections import broker_errors, connect_for_calls

_log: Final = logging.getLogger(__name__)


def cancel(rows: RowLookup, broker_url: str, prefix: str, handle: Waiting) -> tuple[bool, list[Reply]]:
    """Cancel a request; return whether this call cancelled it, and the reply that its row stands for.

    Raises ConfigurationError when no database is configured, StoreUnavailable.
    """
    if not rows.cancel(handle.id, handle.model):
        return False, rows.replies([handle.id])
    revoke(broker_url, prefix, handle.id)
    return True, [Reply(id=handle.id, state=State.CANCELLED)]


def revoke(broker_url: str, prefix: str, request_id: str) -> None:
    """Broadcast Celery's `revoke`. A broker that is away is logged, not raised: the row already says "cancelled"."""
    from kombu.exceptions import OperationalError

    from headrace.queueing.admin.control import tell_workers

    try:
        # kombu publishes broadcasts with endless retries; so first see that the broker is there.
        with broker_errors(), connect_for_calls(broker_url, prefix) as connection:
            connection.ping()
        tell_workers(broker_url, prefix, "revoke", {"task_id": request_id, "terminate": False, "signal": "SIGTERM"})
    except (BrokerUnavailable, OperationalError) as exc:
        _log.warning("revoke_failed request=%s error=%r", request_id, str(exc))
