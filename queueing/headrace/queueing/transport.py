"""A kombu transport that takes messages in batches and loses none: `headrace://`, `headraces://` for TLS, `+sentinel`.

kombu's Redis transport pops one message a round trip and notes it as unacknowledged in a second one; a worker that
dies between the two loses the message. Here an idle channel blocks, without popping, on a *doorbell*: a list beside
each queue that holds at most one token, put there by whoever sends. When it rings, or after 50 ms for senders that
don't ring, one Lua call takes as many messages as the prefetch window has room for and notes them as in flight
under the channel's lease, atomically. What is left behind rings again, for the next worker. The lease is renewed by a
thread; what a dead worker held goes back to the head of its queues when the lease ends.

All the rest is kombu's Redis transport: lists, envelopes, bindings, fanout and remote control are the same, so plain
`redis://` peers work with it in both directions on the same database. Redis Cluster is not supported.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any

from kombu.transport import redis as kombu_redis
from redis.exceptions import OutOfMemoryError

from headrace.queueing import channel
from headrace.queueing.poller import DoorbellPoller
from headrace.queueing.sentinel import DEFAULT_PORT, SCHEME, SentinelChannel, adopt_sentinels


class Transport(kombu_redis.Transport):
    """The transport behind `headrace://` and `headraces://`."""

    Channel = channel.Channel
    cycle: DoorbellPoller
    channels: list[channel.Channel]  # type: ignore[assignment]
    _callbacks: dict[str, Callable[..., Any]]

    #: A server that is out of memory passes, as one that is away does: consumers connect again rather than end.
    connection_errors = (*kombu_redis.Transport.connection_errors, OutOfMemoryError)

    #: Whether an event loop drives this connection, rather than calls to `drain_events`.
    in_loop = False

    def __new__(cls, client: Any, **kwargs: Any) -> Transport:  # noqa: ARG004
        """Return the transport for Sentinels where the URL names them; kombu looks no further than the `+`."""
        names_sentinels = cls is Transport and str(client.hostname).startswith(SCHEME)
        return super().__new__(SentinelTransport if names_sentinels else cls)

    def __init__(self, client: Any, **kwargs: Any) -> None:
        """client: the kombu connection."""
        if client.transport_cls.startswith("headraces") and not client.ssl:
            client.ssl = {"ssl_cert_reqs": ssl.CERT_REQUIRED}
        super().__init__(client, **kwargs)
        self.cycle = DoorbellPoller()

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        """Let an event loop drive this connection."""
        self.in_loop = True
        super().register_with_event_loop(connection, loop)
        self.cycle.look_regularly(loop)

    def claim_soon(self) -> None:
        """Make all channels claim as soon as they can; safe in any thread."""
        for each in list(self.channels):
            each.claim_soon()


class SentinelTransport(Transport):
    """The transport behind `headrace+sentinel://` and `headraces+sentinel://`."""

    Channel = SentinelChannel
    default_port = DEFAULT_PORT

    def __init__(self, client: Any, **kwargs: Any) -> None:
        """client: the kombu connection; its URLs name Sentinels."""
        adopt_sentinels(client)
        super().__init__(client, **kwargs)
