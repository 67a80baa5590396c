"""A channel to a server that Sentinels watch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import redis
from kombu.transport import redis as kombu_redis
from redis.sentinel import SentinelManagedConnection

from headrace.contracts.errors import ConfigurationError
from headrace.queueing.channel.channel import Channel
from headrace.queueing.connection.bounded import interruptible
from headrace.queueing.connection.sentinel_clients import sentinel_options
from headrace.queueing.keys import attach


class SentinelChannel(Channel, kombu_redis.SentinelChannel):
    """A channel to the master. Transport options are also kombu's of Sentinel, of which `master_name` is needed."""

    from_transport_options = (
        *Channel.from_transport_options,
        *(
            option
            for option in kombu_redis.SentinelChannel.from_transport_options
            if option not in Channel.from_transport_options
        ),
    )

    connection_class = interruptible(SentinelManagedConnection)
    connection_class_ssl = interruptible(kombu_redis.SentinelManagedSSLConnection)

    master_name: str | None = None
    sentinel_kwargs: dict[str, Any] | None = None

    if TYPE_CHECKING:  # what kombu's stubs leave out
        _sentinel_manager: Any
        _async_sentinel_manager: Any
        _sentinel_managed_pool: Any

    def _get_pool(self, asynchronous: bool = False) -> Any:
        if not self.master_name:
            raise ConfigurationError(
                "a broker URL of Sentinels needs the name of the server that they watch: the transport option "
                "master_name, or ?master_name=NAME at the end of the URL"
            )
        # kombu's own would try one that is away again and again before it asks the next.
        self.sentinel_kwargs = sentinel_options() | (self.sentinel_kwargs or {})
        return super()._get_pool(asynchronous)

    def _own_pool(self, timeout_s: float) -> redis.ConnectionPool:
        managers = self._sentinel_manager, self._async_sentinel_manager
        pool: redis.ConnectionPool = self._sentinel_managed_pool()
        # kombu closes the last that it made; this one's connections end with its user.
        self._sentinel_manager, self._async_sentinel_manager = managers
        pool.connection_kwargs |= {"socket_timeout": timeout_s, "socket_connect_timeout": timeout_s}
        attach(pool, self.keys)
        return pool
