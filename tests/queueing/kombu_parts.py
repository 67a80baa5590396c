"""What lies behind a connection of kombu, as headrace's own."""

from __future__ import annotations

from typing import Any

import kombu

from headrace.queueing.channel.channel import Channel
from headrace.queueing.transport import Transport


def channel_of(connection: kombu.Connection) -> Channel:
    """Return the channel that a connection opens by itself."""
    channel: object = connection.default_channel
    assert isinstance(channel, Channel)
    return channel


def transport_of(connection: kombu.Connection) -> Transport:
    transport: object = connection.transport
    assert isinstance(transport, Transport)
    return transport


def ssl_of(connection: kombu.Connection) -> object:
    """Return how TLS is spoken over a connection; nothing without it."""
    client: Any = transport_of(connection).client  # the connection itself
    return client.ssl
