"""Whether a worker serves a model: what a caller whose time is up wants to know first."""

from __future__ import annotations

from headrace.contracts.errors import BrokerUnavailable
from headrace.contracts.message import queue_name
from headrace.producers.broker import broker_errors, connect_for_look, connect_for_look_async
from headrace.queueing import serving


def is_served(url: str, model: str) -> bool:
    """Return whether a worker takes the requests to a model; True also when the broker doesn't say so in a second."""
    client = connect_for_look(url)
    try:
        with broker_errors():
            return serving.is_served(client, queue_name(model))
    except BrokerUnavailable:
        return True
    finally:
        client.close()


async def is_served_async(url: str, model: str) -> bool:
    """Return whether a worker takes the requests to a model; see `is_served`."""
    client = connect_for_look_async(url)
    try:
        with broker_errors():
            return await serving.is_served_async(client, queue_name(model))
    except BrokerUnavailable:
        return True
    finally:
        await client.aclose()
