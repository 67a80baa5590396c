"""The consumers of a queue and the model versions they serve: written by consumers, read by clients.

A consumer announces itself when it starts and with each renewal of its lease. It announces what it serves once; that
counts for as long as the consumer is there.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from headrace.contracts.errors import PackageError
from headrace.contracts.message import TASK_PREFIX
from headrace.contracts.package.signature import Signature
from headrace.contracts.problem import Problem
from headrace.queueing.keys import PREFIXES, Keys, keys_of
from headrace.queueing.lua import scripts

if TYPE_CHECKING:
    import redis
    import redis.asyncio

    from headrace.queueing.connection.connect import Command

#: Seconds after which an announcement that was not renewed disappears; readers go by the consumer's lease.
SERVED_TTL_S: Final = 120


#: Keys looked at in one step when queues are searched for.
_SCAN_STEP: Final = 1000

#: Most fields that are announced in one step.
_FIELDS: Final = 500


class Served(msgspec.Struct, frozen=True):
    """The version with which the consumer of a model's queue answers requests that name none.

    checksum: of its package, `Manifest.checksum`; "" of a worker that doesn't announce it. problem: why the consumer
    gets no answers of the model at present, as when its server refuses the credentials.
    """

    version: str
    signature: Signature
    checksum: str = ""
    problem: Problem | None = None


_decode: Final = msgspec.json.Decoder(Served).decode


class ConsumedQueues:
    """The queues of one consumer, as the server knows them. Methods raise the errors of `redis.exceptions`."""

    def __init__(self, client: redis.Redis, consumer: str, lease_ms: int) -> None:
        """lease_ms: how long the server believes it without `renew`."""
        self._client = client
        self._consumer = consumer
        self._lease_ms = lease_ms
        text = scripts.ANNOUNCE_WITH_PREFIX if keys_of(client).prefix else scripts.ANNOUNCE
        self._text = scripts.rendered(text, keys_of(client))
        self._announce = client.register_script(self._text)
        self._serve = scripts.script(client, scripts.SERVE)
        self._lock = threading.Lock()
        self._queues: set[str] = set()
        self._served: dict[str, bytes] = {}

    def add(self, queue: str) -> None:
        """Announce the consumer on a queue."""
        with self._lock:
            self._queues.add(queue)
        self._announce(args=[self._consumer, self._lease_ms, queue])

    def discard(self, queue: str) -> None:
        """Withdraw the consumer from a queue."""
        with self._lock:
            if queue not in self._queues:
                return
            self._queues.discard(queue)
        self._client.zrem(keys_of(self._client).consumers(queue), self._consumer)

    def renew(self, client: redis.Redis | None = None) -> None:
        """Renew the announcement for another lease; client: a connection of the caller's own, or None."""
        with self._lock:
            queues = sorted(self._queues)
        if queues:
            self._announce(args=[self._consumer, self._lease_ms, *queues], client=client)

    def serve(self, served: Mapping[str, Served]) -> None:
        """Announce what requests of each queue are answered with; `serve_again` must follow before SERVED_TTL_S."""
        self._served = {queue: msgspec.json.encode(each) for queue, each in served.items()}
        self._announce_served()

    def serve_again(self) -> None:
        """Renew the announcement of `serve` for SERVED_TTL_S; one short command unless the server has lost it."""
        if self._served and not self._client.expire(keys_of(self._client).served(self._consumer), SERVED_TTL_S):
            self._announce_served()

    def _announce_served(self) -> None:
        if not self._served:
            return
        pairs = list(self._served.items())
        for at in range(0, len(pairs), _FIELDS):
            fields = [value for pair in pairs[at : at + _FIELDS] for value in pair]
            self._serve(args=[self._consumer, SERVED_TTL_S, *fields])

    def renewal_commands(self) -> list[Command]:
        """Return the command of `renew`, for somebody else to run; none without queues."""
        with self._lock:
            queues = sorted(self._queues)
        return [("EVAL", self._text, 0, self._consumer, self._lease_ms, *queues)] if queues else []

    def close(self) -> None:
        """Withdraw the consumer from all queues."""
        for queue in sorted(self._queues):
            self.discard(queue)
        if self._served:
            self._client.delete(keys_of(self._client).served(self._consumer))


def is_served(client: redis.Redis, queue: str) -> bool:
    """Return whether a consumer with a live lease takes the messages of a queue; one round trip.

    A consumer that was killed counts until its lease ends. Raises the errors of `redis.exceptions`.
    """
    with client.pipeline(transaction=False) as pipe:
        pipe.time()
        pipe.zrange(keys_of(client).consumers(queue), -1, -1, withscores=True)
        return _lives(*pipe.execute())


async def is_served_async(client: redis.asyncio.Redis, queue: str) -> bool:
    """Return whether a queue has a consumer; see `is_served`."""
    async with client.pipeline(transaction=False) as pipe:
        pipe.time()
        pipe.zrange(keys_of(client).consumers(queue), -1, -1, withscores=True)
        return _lives(*await pipe.execute())


def prefixes_served(client: redis.Redis, queue: str) -> list[str]:
    """Return the key prefixes other than the client's own under which a queue has consumers, "" for none.

    Only those whose consumers may write `keys.PREFIXES`, and whose keys the client may read; two round trips. Raises
    the errors of `redis.exceptions`.
    """
    with client.pipeline(transaction=False) as pipe:
        pipe.time()
        pipe.zrange(PREFIXES, 0, -1)
        time, noted = pipe.execute(raise_on_error=False)
        known = {prefix.decode() for prefix in noted} if isinstance(noted, list) else set()
        others = sorted((known | {""}) - {keys_of(client).prefix})
        for prefix in others:
            pipe.zrange(Keys(prefix).consumers(queue), -1, -1, withscores=True)
        found = pipe.execute(raise_on_error=False)
    return [prefix for prefix, last in zip(others, found, strict=True) if isinstance(last, list) and _lives(time, last)]


def _lives(time: tuple[int, int], last: list[Any]) -> bool:
    seconds, micros = time
    return bool(last) and float(last[0][1]) > seconds * 1000 + micros // 1000


def served(client: redis.Redis, queue: str) -> list[Served]:
    """Return what the consumers of a queue serve, each once; one round trip.

    Consumers that don't announce it (older ones, or no inference workers) are left out. Raises the errors of
    `redis.exceptions`.
    """
    return _read(client.eval(scripts.rendered(scripts.SERVED, keys_of(client)), 0, queue))


def served_on(client: redis.Redis, queues: Sequence[str]) -> dict[str, list[Served]]:
    """Return what the consumers of several queues serve, in one round trip; see `served`."""
    text = scripts.rendered(scripts.SERVED, keys_of(client))
    with client.pipeline(transaction=False) as pipe:
        for queue in queues:
            pipe.eval(text, 0, queue)
        return {queue: _read(answers) for queue, answers in zip(queues, pipe.execute(), strict=True)}


def queues_consumed(client: redis.Redis) -> list[str]:
    """Return the queues of models that have, or lately had, consumers, sorted; looks through all keys of the database.

    Raises the errors of `redis.exceptions`.
    """
    start = keys_of(client).consumers("")
    found = client.scan_iter(f"{start}{TASK_PREFIX}*", count=_SCAN_STEP, _type="ZSET")
    return sorted({key.decode().removeprefix(start) for key in found})


def problems_in(found: Iterable[Served]) -> list[Problem]:
    """Return the problems that consumers report, each text once, the oldest first."""
    first: dict[str, Problem] = {}
    for problem in sorted((each.problem for each in found if each.problem), key=lambda problem: problem.since):
        first.setdefault(problem.text, problem)
    return list(first.values())


async def served_async(client: redis.asyncio.Redis, queue: str) -> list[Served]:
    """Return what the consumers of a queue serve; see `served`."""
    return _read(await client.eval(scripts.rendered(scripts.SERVED, keys_of(client)), 0, queue))


def _read(answers: Iterable[bytes]) -> list[Served]:
    found = []
    for answer in answers:
        try:
            found.append(_decode(answer))
        except (msgspec.DecodeError, PackageError):
            # Of another version of headrace, with signatures that this one does not understand.
            continue
    return found
