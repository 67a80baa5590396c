"""A client's connections to Redis or Valkey, and the translation of their errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import redis
import redis.asyncio
from redis.backoff import ExponentialBackoff

from headrace.contracts.errors import BrokerUnavailable, ConfigurationError
from headrace.queueing.connection.broker_url import UNREADABLE, redis_url, sentinels_of
from headrace.queueing.connection.connect import bounds, bounds_of, connect, translate_errors
from headrace.queueing.connection.patience import SILENCE_S
from headrace.queueing.connection.sentinel_clients import async_client_of_master
from headrace.queueing.keys import Keys, attach

#: A call that fails because the server restarted is tried this often again, 0.05 and 0.1 s later; then the user hears
#: of it. Submitting twice is harmless: rows are keyed by request id.
_RETRIES: Final = 2
_BACKOFF_S: Final = 0.05

#: A look whether a model is served comes after the time that a caller gave, so it may not take long.
_LOOK_TIMEOUT_S: Final = 1.0


def connect_for_calls(url: str, prefix: str = "", silence_s: float = SILENCE_S) -> redis.Redis:
    """Return a client for short calls; usable from several threads."""
    retry = redis.retry.Retry(ExponentialBackoff(cap=1.0, base=_BACKOFF_S), _RETRIES)
    return connect(url, prefix=prefix, silence_s=silence_s, retry=retry)


def connect_for_look(url: str, prefix: str = "") -> redis.Redis:
    """Return a client for one short look, which gives up soon."""
    retry = redis.retry.Retry(ExponentialBackoff(), 0)
    timeouts = {"socket_timeout": _LOOK_TIMEOUT_S, "socket_connect_timeout": _LOOK_TIMEOUT_S}
    return connect(url, prefix=prefix, retry=retry, **timeouts)


def _connect_async(url: str, prefix: str, timeout_s: float, retries: int) -> redis.asyncio.Redis:
    retry = redis.asyncio.retry.Retry(ExponentialBackoff(cap=1.0, base=_BACKOFF_S), retries)
    sentinels = sentinels_of(url)
    if sentinels is not None:
        client = async_client_of_master(sentinels, bounds(timeout_s) | {"retry": retry})
    else:
        plain = redis_url(url)
        try:
            options = bounds_of(plain, redis.asyncio.connection, silence_s=timeout_s)
            client = redis.asyncio.Redis.from_url(plain, retry=retry, **options)
        except ValueError:
            # The cause may quote a part of the password.
            raise ConfigurationError(UNREADABLE) from None
    attach(client.connection_pool, Keys(prefix))
    return client


def connect_for_calls_async(url: str, prefix: str = "", silence_s: float = SILENCE_S) -> redis.asyncio.Redis:
    """Return an asyncio client for short calls."""
    return _connect_async(url, prefix, silence_s, _RETRIES)


def connect_for_reading_async(url: str, silence_s: float = SILENCE_S) -> redis.asyncio.Redis:
    """Return an asyncio client for blocking reads; it doesn't retry."""
    return _connect_async(url, "", silence_s, 0)


def connect_for_look_async(url: str, prefix: str = "") -> redis.asyncio.Redis:
    """Return an asyncio client for one short look, which gives up soon."""
    return _connect_async(url, prefix, _LOOK_TIMEOUT_S, 0)


@contextmanager
def broker_errors() -> Iterator[None]:
    """Turn every error of redis-py into BrokerUnavailable, also those by which the server refuses a command."""
    try:
        with translate_errors():
            yield
    except redis.RedisError as exc:
        line = " ".join(str(exc).split())
        raise BrokerUnavailable(f"Redis or Valkey refused the call ({line}); check HEADRACE_BROKER_URL") from exc
