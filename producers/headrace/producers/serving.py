"""Whether a worker serves a model: what a caller whose time is up wants to know first."""

from __future__ import annotations

from headrace.contracts.errors import BrokerUnavailable
from headrace.contracts.message import queue_name
from headrace.producers.broker import broker_errors, connect_for_look, connect_for_look_async
from headrace.queueing import serving


def is_served(url: str, model: str, prefix: str = "") -> bool:
    """Return whether a worker takes the requests to a model; True also when the broker doesn't say so in a second."""
    client = connect_for_look(url, prefix)
    try:
        with broker_errors():
            return serving.is_served(client, queue_name(model))
    except BrokerUnavailable:
        return True
    finally:
        client.close()


async def is_served_async(url: str, model: str, prefix: str = "") -> bool:
    """Return whether a worker takes the requests to a model; see `is_served`."""
    client = connect_for_look_async(url, prefix)
    try:
        with broker_errors():
            return await serving.is_served_async(client, queue_name(model))
    except BrokerUnavailable:
        return True
    finally:
        await client.aclose()


def where_served(url: str, model: str, prefix: str = "") -> str:
    """Return, for an error, under which key prefix nobody serves a model and under which somebody does.

    "" when there is nothing to say: no prefix here, and none elsewhere that is known to this client.
    """
    client = connect_for_look(url, prefix)
    try:
        with broker_errors():
            others = serving.prefixes_served(client, queue_name(model))
    except BrokerUnavailable:
        others = []
    finally:
        client.close()
    here = f" under the key prefix {prefix!r}" if prefix else ""
    if not others:
        return here
    elsewhere = " and ".join(f"the prefix {each!r}" if each else "no prefix" for each in others)
    return f"{here or ' without a key prefix'}, but with {elsewhere} one does (HEADRACE_KEY_PREFIX)"
