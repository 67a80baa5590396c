"""A kombu transport that takes messages in batches and loses none: `headrace://`, `headraces://` for TLS, `+sentinel`.

kombu's Redis transport pops one message a round trip and notes it as unacknowledged in a second one; a worker that dies
between the two loses the message. Here an idle channel blocks, without popping, on a *doorbell*: a list beside each
queue that holds at most one token, put there by whoever sends. When it rings, or when the server reports a list that
has changed (for senders that don't ring), one Lua call takes as many messages as the prefetch window has room for and
notes them as in flight under the channel's lease, atomically. Messages left behind ring again, for the next worker. The
lease is renewed by a thread, and by a small process while the thread gets no turn; messages of a dead worker go back to
the head of their queues when the lease ends.

All the rest is kombu's Redis transport: lists, envelopes, bindings, fanout and remote control are the same, so plain
`redis://` peers work with it in both directions on the same database. Redis Cluster is not supported.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any, Final

from kombu.transport import redis as kombu_redis

from headrace.queueing.admin.flower_page import serve_flower
from headrace.queueing.channel import channel
from headrace.queueing.channel.poller import DoorbellPoller
from headrace.queueing.channel.sentinel_channel import SentinelChannel
from headrace.queueing.connection.broker_url import SENTINEL_PORT
from headrace.queueing.connection.refusals import REFUSALS, forget_refusals, latest_refusal
from headrace.queueing.connection.sentinel import adopt_sentinels, names_sentinels
from headrace.queueing.consumer.probe import check_writes

#: Pause after a refusal before a new connection is tried. Transport option `refusal_pause_s`; 0 for callers that pause.
REFUSAL_PAUSE_S: Final = 1.0


class Transport(kombu_redis.Transport):
    """The transport behind `headrace://` and `headraces://`."""

    Channel = channel.Channel
    cycle: DoorbellPoller
    channels: list[channel.Channel]  # type: ignore[assignment]
    _avail_channels: list[Any]
    _callbacks: dict[str, Callable[..., Any]]

    #: A temporary refusal passes, as an outage does: consumers connect again rather than end.
    connection_errors = (*kombu_redis.Transport.connection_errors, *REFUSALS)

    #: How long an idle channel waits for doorbells before it shows that it is still there; the transport option
    #: `polling_interval` changes it.
    brpop_timeout = 3.5  # type: ignore[assignment]

    #: Whether an event loop drives this connection, rather than calls to `drain_events`.
    in_loop = False

    def __new__(cls, client: Any, **kwargs: Any) -> Transport:  # noqa: ARG004
        """Return the transport for Sentinels where the URL names them; kombu looks no further than the `+`."""
        return super().__new__(SentinelTransport if cls is Transport and names_sentinels(client) else cls)

    def __init__(self, client: Any, **kwargs: Any) -> None:
        """client: the kombu connection."""
        if client.transport_cls.startswith("headraces") and not client.ssl:
            client.ssl = {"ssl_cert_reqs": ssl.CERT_REQUIRED}
        super().__init__(client, **kwargs)
        self.cycle = DoorbellPoller()
        serve_flower(Transport)

    def establish_connection(self) -> Any:
        """Connect. A server that has refused something just now counts as away until it takes a write.

        A refused client connects anew at once, and would be refused as often as that goes. Celery pauses when it can't
        connect.
        """
        target: Any = self.client
        address = f"{target.hostname or '127.0.0.1'}:{target.port or self.default_port}"
        refused = latest_refusal(address)
        pause_s = (target.transport_options or {}).get("refusal_pause_s", REFUSAL_PAUSE_S)
        if refused is not None and refused[1] < pause_s:
            raise type(refused[0])(*refused[0].args)
        connection = super().establish_connection()
        if refused is not None:
            try:
                check_writes(self._avail_channels[0].client)
            except BaseException:
                self.close_connection(connection)  # type: ignore[arg-type]  # the stubs know of kombu's connections only
                raise
            forget_refusals(address)
        return connection

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        """Let an event loop drive this connection."""
        self.in_loop = True
        super().register_with_event_loop(connection, loop)
        self.cycle.look_in(loop)

    def claim_soon(self) -> None:
        """Make all channels claim as soon as they can; safe in any thread."""
        for each in list(self.channels):
            each.claim_soon()


class SentinelTransport(Transport):
    """The transport behind `headrace+sentinel://` and `headraces+sentinel://`."""

    Channel = SentinelChannel
    default_port = SENTINEL_PORT

    def __init__(self, client: Any, **kwargs: Any) -> None:
        """client: the kombu connection; its URLs name Sentinels."""
        adopt_sentinels(client)
        super().__init__(client, **kwargs)
