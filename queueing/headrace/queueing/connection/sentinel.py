"""Servers that Sentinel watches: a broker URL names the Sentinels, and they name the master."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import redis
from kombu.transport import redis as kombu_redis
from kombu.utils.url import parse_url, url_to_parts
from redis.sentinel import SentinelManagedConnection

from headrace.contracts.errors import ConfigurationError
from headrace.queueing.channel.channel import Channel
from headrace.queueing.connection.bounded import interruptible
from headrace.queueing.connection.broker_url import SENTINEL_PORT, SENTINEL_SCHEME
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


def names_sentinels(connection: Any) -> bool:
    """Return whether the URLs of a kombu connection name Sentinels, whether they have been read or not.

    A pool copies a connection while its URLs are being read: it may get the scheme of before and the rest of after.
    """
    alternatives = connection.alt or [""]
    return SENTINEL_SCHEME in str(connection.hostname) or all(url.startswith(SENTINEL_SCHEME) for url in alternatives)


def adopt_sentinels(connection: Any) -> None:
    """Make a kombu connection of Sentinels out of one whose URLs kombu has not read, as those with a `+` in the scheme.

    URLs: `headrace+sentinel://[USER:PASSWORD@]HOST[:PORT][/DATABASE][?master_name=NAME]`, more of them after `;`. The
    user and password are the server's; the Sentinels' own go into the query, `sentinel_username`, `sentinel_password`.
    """
    urls = [
        url[url.index(SENTINEL_SCHEME) :] for url in connection.alt or [connection.hostname] if SENTINEL_SCHEME in url
    ]
    if SENTINEL_SCHEME in (connection.hostname or ""):
        first = url_to_parts(urls[0])
        last = url_to_parts(urls[-1])
        prefix = connection.uri_prefix or connection.transport_cls
        connection.hostname, connection.port = first.hostname, first.port or SENTINEL_PORT
        connection.userid, connection.password = first.username or last.username, first.password or last.password
        connection.virtual_host = first.path or last.path or "/"
        connection.transport_cls, connection.uri_prefix = f"{prefix}+sentinel", None
        connection.transport_options = _options({**first.query, **last.query}) | (connection.transport_options or {})
        parts = [url_to_parts(url) for url in urls]
        connection.alt = [f"{SENTINEL_SCHEME}{each.hostname}:{each.port or SENTINEL_PORT}" for each in parts]
        tls = parse_url(urls[-1]).get("ssl")
        if tls and prefix == "headraces" and not connection.ssl:
            connection.ssl = {"ssl_cert_reqs": ssl.CERT_REQUIRED, **tls}
    elif not connection.transport_cls.endswith("+sentinel"):
        connection.transport_cls += "+sentinel"
    # They are no alternatives: whoever connects asks all of them.
    connection.cycle = None


def _options(query: Mapping[str, str]) -> dict[str, Any]:
    """Return the transport options that a URL's query names."""
    options: dict[str, Any] = {"master_name": query["master_name"]} if query.get("master_name") else {}
    names = {"sentinel_username": "username", "sentinel_password": "password"}
    login = {what: query[name] for name, what in names.items() if query.get(name)}
    return {**options, "sentinel_kwargs": login} if login else options
