"""Connections to Redis or Valkey by URL, and the one place where the driver's errors become ours."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from headrace.contracts.errors import BrokerUnavailable, ConfigurationError
from headrace.queueing.connection.broker_url import UNREADABLE, redis_url, sentinels_of
from headrace.queueing.connection.patience import SILENCE_S
from headrace.queueing.keys import Keys, attach

if TYPE_CHECKING:
    import redis
    from redis.connection import Connection

    from headrace.contracts.settings import Settings

#: A Redis command and its arguments.
Command: TypeAlias = tuple[str | bytes | int, ...]

#: Seconds after which an idle connection is checked before it is used again.
HEALTH_CHECK_S: Final = 25

_REMEDY: Final = "check HEADRACE_BROKER_URL and that the server runs"


def connect(url: str, *, prefix: str = "", silence_s: float = SILENCE_S, **options: Any) -> redis.Redis:
    """Return a client for a broker URL; it connects when first used and returns bytes.

    prefix: of all keys; commands that name keys get it from `keys_of`. silence_s: a read or write that is silent for so
    long fails. options: those of `redis.Redis.from_url`; they win over ours. Raises ConfigurationError when the URL is
    not one.
    """
    import redis

    sentinels = sentinels_of(url)
    if sentinels is not None:
        from headrace.queueing.connection.sentinel_clients import client_of_master

        client = client_of_master(sentinels, bounds(silence_s) | options)
    else:
        plain = redis_url(url)
        try:
            client = redis.Redis.from_url(plain, **bounds_of(plain, redis.connection, silence_s=silence_s) | options)
        except ValueError:
            # The cause may quote a part of the password.
            raise ConfigurationError(UNREADABLE) from None
    attach(client.connection_pool, Keys(prefix))
    return client


def connect_to(settings: Settings, **options: Any) -> redis.Redis:
    """Return a client for the broker and the key prefix of the settings; see `connect`."""
    url, silence_s = settings.require_broker_url(), settings.broker_timeout_s
    return connect(url, prefix=settings.key_prefix, silence_s=silence_s, **options)


def bounds(silence_s: float) -> dict[str, Any]:
    """Return the options by which no wait of a TCP connection is without end.

    silence_s: a read or write that is silent for so long fails.
    """
    from headrace.queueing.connection.bounded import transport_bounds

    return {"health_check_interval": HEALTH_CHECK_S, **transport_bounds(silence_s)}


def bounds_of(plain: str, kinds: Any, *, silence_s: float) -> dict[str, Any]:
    """Return the same for a URL as of `redis_url`, and the class whose refusals get their right class.

    kinds: `redis.connection` or `redis.asyncio.connection`.
    """
    from headrace.queueing.connection.bounded import watched

    scheme = plain.partition(":")[0]
    kind = {"rediss": kinds.SSLConnection, "unix": kinds.UnixDomainSocketConnection}.get(scheme, kinds.Connection)
    options = {"connection_class": watched(kind), **bounds(silence_s)}
    if scheme == "unix":
        del options["socket_keepalive"], options["socket_keepalive_options"]
    return options


def run_commands(client: redis.Redis, commands: Sequence[Command]) -> list[Any]:
    """Run commands in one round trip, each by itself, and return their answers; half the CPU of redis-py's pipeline.

    A command that the server refuses has its ResponseError among the answers. Raises the connection's errors at once.
    """
    pool = client.connection_pool
    connection = pool.get_connection()
    try:
        return _exchange(connection, commands)
    finally:
        pool.release(connection)


class CommandLine:
    """A connection that is kept, over which commands run as by `run_commands`; for one thread.

    Taking a connection from the pool and returning it costs as much as to pack and send a few commands.
    """

    def __init__(self, client: redis.Redis) -> None:
        """client: from its pool the connection comes, when first needed."""
        self._pool = client.connection_pool
        self._connection: Connection | None = None

    def run(self, commands: Sequence[Command]) -> list[Any]:
        """Run commands in one round trip; see `run_commands`. After an error the next call connects again."""
        connection = self._connection
        if connection is None or _is_stale(connection):
            self.close()
            connection = self._connection = self._pool.get_connection()
        try:
            return _exchange(connection, commands)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Return the connection to its pool."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._pool.release(connection)


def _is_stale(connection: Connection) -> bool:
    """Whether there is something to read though nothing was asked: the end, most likely, as after a restart."""
    from redis.exceptions import RedisError

    try:
        return bool(connection.can_read())
    except (RedisError, OSError):
        return True


def _exchange(connection: Connection, commands: Sequence[Command]) -> list[Any]:
    from redis.exceptions import ResponseError

    answers: list[Any] = []
    try:
        connection.send_packed_command(connection.pack_commands(commands))  # type: ignore[no-untyped-call]
        for _ in commands:
            try:
                answers.append(connection.read_response())
            except ResponseError as exc:
                answers.append(exc)
    except BaseException:
        # Answers that were not read must not be taken for those of the next command.
        connection.disconnect()  # type: ignore[no-untyped-call]
        raise
    return answers


@contextmanager
def translate_errors() -> Iterator[None]:
    """Turn the driver's errors about an unreachable or unwilling server into BrokerUnavailable, in one line."""
    import redis.exceptions as errors

    from headrace.queueing.connection.refusals import REFUSALS, classified

    try:
        yield
    except errors.AuthenticationError as exc:
        raise BrokerUnavailable(
            f"Redis or Valkey refuses these credentials ({_one_line(exc)}); check HEADRACE_BROKER_URL"
        ) from exc
    except errors.BusyLoadingError as exc:
        raise BrokerUnavailable(f"Redis or Valkey refuses to work for now ({refusal_line(exc)})") from exc
    except (errors.ConnectionError, errors.TimeoutError) as exc:
        raise BrokerUnavailable(f"Redis or Valkey can't be reached ({_one_line(exc)}); {_REMEDY}") from exc
    except errors.ResponseError as exc:
        # Connections of others than `connect` leave the class to us.
        refusal = classified(exc)
        if not isinstance(refusal, REFUSALS):
            raise
        raise BrokerUnavailable(f"Redis or Valkey refuses to work for now ({refusal_line(refusal)})") from exc


def refusal_line(exc: Exception) -> str:
    """Return an error for a log line: the server's words and, if they are a temporary refusal, their meaning."""
    from headrace.queueing.connection.refusals import meaning

    meant = meaning(exc)
    return f"{_one_line(exc)}: {meant}" if meant else _one_line(exc)


def _one_line(exc: Exception) -> str:
    return " ".join(str(exc).split()).rstrip(".") or type(exc).__name__
