"""Servers that Sentinel watches: a broker URL names the Sentinels, and they name the master."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import redis
from kombu.transport import redis as kombu_redis
from kombu.utils.url import url_to_parts
from redis.sentinel import SentinelManagedConnection

from headrace.contracts.errors import ConfigurationError
from headrace.queueing.bounded import interruptible
from headrace.queueing.channel import Channel
from headrace.queueing.keys import attach

#: Sentinel's own port.
DEFAULT_PORT: Final = 26379

#: How kombu writes the address of one Sentinel.
SCHEME: Final = "sentinel://"


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
        return super()._get_pool(asynchronous)

    def _own_pool(self, timeout_s: float) -> redis.ConnectionPool:
        managers = self._sentinel_manager, self._async_sentinel_manager
        pool: redis.ConnectionPool = self._sentinel_managed_pool()
        # kombu closes the last that it made; this one's connections end with its user.
        self._sentinel_manager, self._async_sentinel_manager = managers
        pool.connection_kwargs |= {"socket_timeout": timeout_s, "socket_connect_timeout": timeout_s}
        attach(pool, self.keys)
        return pool


def adopt_sentinels(connection: Any) -> None:
    """Make a kombu connection of Sentinels out of one whose URLs kombu has not read, as those with a `+` in the scheme.

    URLs: `headrace+sentinel://[USER:PASSWORD@]HOST[:PORT][/DATABASE][?master_name=NAME]`, more of them after `;`. The
    user and password are the server's.
    """
    urls = [url[url.index(SCHEME) :] for url in connection.alt or [connection.hostname] if SCHEME in url]
    if SCHEME in (connection.hostname or ""):
        first = url_to_parts(urls[0])
        last = url_to_parts(urls[-1])
        prefix = connection.uri_prefix or connection.transport_cls
        connection.hostname, connection.port = first.hostname, first.port or DEFAULT_PORT
        connection.userid, connection.password = first.username or last.username, first.password or last.password
        connection.virtual_host = first.path or last.path or "/"
        connection.transport_cls, connection.uri_prefix = f"{prefix}+sentinel", None
        name = first.query.get("master_name") or last.query.get("master_name")
        if name:
            connection.transport_options = {"master_name": name, **(connection.transport_options or {})}
        parts = [url_to_parts(url) for url in urls]
        connection.alt = [f"{SCHEME}{each.hostname}:{each.port or DEFAULT_PORT}" for each in parts]
    # They are no alternatives: whoever connects asks all of them.
    connection.cycle = None
