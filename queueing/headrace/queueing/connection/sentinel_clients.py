"""Clients of servers that Sentinels watch: each new connection asks them which server is the master."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import redis
import redis.asyncio
import redis.asyncio.sentinel
import redis.sentinel
from redis.backoff import NoBackoff

from headrace.queueing.connection.bounded import watched
from headrace.queueing.connection.broker_url import SentinelAddress

#: Longest wait for one Sentinel, to connect and for its answer each; then the next is asked.
SENTINEL_TIMEOUT_S: Final = 2.0

_TIMEOUTS: Final = {"socket_timeout": SENTINEL_TIMEOUT_S, "socket_connect_timeout": SENTINEL_TIMEOUT_S}


class Sentinels(redis.sentinel.Sentinel):
    """Sentinels that are asked over connections of their own each time: their answers are needed once a failover."""

    def discover_master(self, service_name: str) -> tuple[str, int]:
        """Return the master's host and port. Raises MasterNotFoundError, which is a ConnectionError."""
        try:
            found: tuple[str, int] = super().discover_master(service_name)  # type: ignore[no-untyped-call]
            return found
        finally:
            for each in self.sentinels:
                each.connection_pool.disconnect(inuse_connections=False)


class AsyncSentinels(redis.asyncio.sentinel.Sentinel):
    """The same for asyncio."""

    async def discover_master(self, service_name: str) -> tuple[str, int]:
        """Return the master's host and port. Raises MasterNotFoundError, which is a ConnectionError."""
        try:
            found: tuple[str, int] = await super().discover_master(service_name)
            return found
        finally:
            for each in self.sentinels:
                await each.connection_pool.disconnect(inuse_connections=False)


def sentinel_options(login: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return redis-py's options to ask Sentinels: one try each, for there are others. login: at the Sentinels."""
    return {"retry": redis.retry.Retry(NoBackoff(), 0), **_TIMEOUTS, **(login or {})}


def client_of_master(address: SentinelAddress, options: Mapping[str, Any]) -> redis.Redis:
    """Return a client for the master. options: of its connections."""
    kinds = redis.sentinel
    kind = kinds.SentinelManagedConnection if address.tls is None else kinds.SentinelManagedSSLConnection
    sentinels = Sentinels(address.sentinels, sentinel_kwargs=sentinel_options(address.sentinel_login))  # type: ignore[no-untyped-call]
    chosen = {"connection_class": watched(kind), **_of_master(address), **options}
    client: redis.Redis = sentinels.master_for(address.master_name, **chosen)  # type: ignore[no-untyped-call]
    return client


def async_client_of_master(address: SentinelAddress, options: Mapping[str, Any]) -> redis.asyncio.Redis:
    """Return an asyncio client for the master. options: of its connections."""
    kinds = redis.asyncio.sentinel
    kind = kinds.SentinelManagedConnection if address.tls is None else kinds.SentinelManagedSSLConnection
    at_sentinels = {
        **sentinel_options(address.sentinel_login),
        "retry": redis.asyncio.retry.Retry(NoBackoff(), 0),
    }
    sentinels = AsyncSentinels(address.sentinels, sentinel_kwargs=at_sentinels)  # type: ignore[no-untyped-call]
    chosen = {"connection_class": watched(kind), **_of_master(address), **options}
    client: redis.asyncio.Redis = sentinels.master_for(address.master_name, **chosen)
    return client


def _of_master(address: SentinelAddress) -> dict[str, Any]:
    return {"db": address.database, **address.login, **(address.tls or {})}
