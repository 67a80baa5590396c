"""A kombu channel none of whose waits is without end, by its URL alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import redis
from kombu.transport import redis as kombu_redis

from headrace.queueing.connection.bounded import interruptible, keepalive_options
from headrace.queueing.connection.patience import CONNECT_TIMEOUT_S, SILENCE_S
from headrace.queueing.connection.silence import check_bounds


class BoundedChannel(kombu_redis.Channel):
    """A channel whose connections have bounds and keepalive; kombu's transport options of these names change them."""

    connection_class = interruptible(redis.Connection)
    connection_class_ssl = interruptible(redis.SSLConnection)

    socket_timeout: float | None = SILENCE_S
    socket_connect_timeout: float | None = CONNECT_TIMEOUT_S
    socket_keepalive: bool | None = True
    socket_keepalive_options = keepalive_options()  # type: ignore[assignment]  # the stubs have names for numbers

    if TYPE_CHECKING:  # what kombu's stubs leave out
        connection: Any

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        client = getattr(self.connection, "client", None)
        if client is None:  # Celery cancels consumers of connections that were closed, and knows this error
            raise redis.ConnectionError("the connection of this channel is closed")
        check_bounds(self, client.transport_options)
        params: dict[str, Any] = super()._connparams(asynchronous)  # type: ignore[misc]
        if "path" in params:  # a Unix socket, whose class kombu has chosen
            params["connection_class"] = interruptible(params["connection_class"])
        if asynchronous:  # a class of this channel's own; its poller must know when a socket is replaced
            params["connection_class"].replaces_itself = False
        return params
