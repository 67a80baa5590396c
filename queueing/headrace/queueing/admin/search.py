"""A search for requests in everything the broker holds: queues, messages in flight, delayed ones, dead letters.

A search reads every message of a queue, so it goes in pieces of a few milliseconds of the server's time, and whoever
runs it pauses between them. Only ids travel. One search reads each place once, in the order in which requests
move forward, and a list from its head, so that what is pushed or taken meanwhile hides nothing. A request that moves
backward at the wrong moment can be missed: only what two searches don't find is not there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import msgspec

from headrace.queueing.connection.connect import Command
from headrace.queueing.keys import PLAIN, Keys, keys_of
from headrace.queueing.lua import scripts
from headrace.queueing.lua.limits import PIECE_MESSAGES

if TYPE_CHECKING:
    import redis

#: Seconds of pause for each second that the server was busy with a piece: a search takes a tenth of it at most.
PAUSES: Final = 9

_FIND_IN_LIST: Final = scripts.rendered(scripts.FIND_IN_LIST, PLAIN)
_FIND_IN_HASH: Final = scripts.rendered(scripts.FIND_IN_HASH, PLAIN)

#: Yields commands, takes their answers.
Steps: TypeAlias = Generator[Command, Any, set[str]]


class _Wanted:
    """The ids that are still to be found."""

    def __init__(self, wanted: Mapping[str, Collection[str]]) -> None:
        self.queues = frozenset(queue for queue, ids in wanted.items() if ids)
        self._by_json = {msgspec.json.encode(each): each for ids in wanted.values() for each in ids}

    def cross_off(self, found: Sequence[bytes]) -> None:
        for raw in found:
            if self._by_json.pop(raw, None) is None and b"\\" in raw:
                # Written by another encoder: Python's escapes all that isn't ASCII.
                self._by_json.pop(_canonical(raw), None)

    def __len__(self) -> int:
        return len(self._by_json)

    def left(self) -> set[str]:
        return set(self._by_json.values())


def _canonical(raw: bytes) -> bytes:
    try:
        return msgspec.json.encode(msgspec.json.decode(raw, type=str))
    except (msgspec.MsgspecError, UnicodeError):
        return raw


def search_steps(keys: Keys, wanted: Mapping[str, Collection[str]]) -> Steps:
    """Yield one command after the other and take its answer; return the ids that were found nowhere.

    wanted: queue → ids. It does no I/O itself, so that blocking and asyncio clients share it.
    """
    left = _Wanted(wanted)
    for place in (_queued, _held, _delayed, _dead):
        yield from place(keys, left)
        if not left:
            break
    return left.left()


_Places: TypeAlias = Generator[Command, Any, None]


def _queued(keys: Keys, left: _Wanted) -> _Places:
    for queue in sorted(left.queues):
        for step in keys.lists.steps_of(queue):
            at = 0
            while at >= 0 and left:
                at, *found = yield "EVAL", _FIND_IN_LIST, 0, keys.queue_list(queue, step), at
                left.cross_off(found)


def _held(keys: Keys, left: _Wanted) -> _Places:
    consumers = yield "ZRANGE", keys.leases, 0, -1
    for consumer in consumers:
        held = keys.in_flight(consumer.decode())
        tags = yield "HKEYS", held
        yield from _fields(held, [tag for tag in tags if _queue_of(keys, tag, 1) in left.queues], left)


def _delayed(keys: Keys, left: _Wanted) -> _Places:
    names = yield from _members(keys.delayed)
    yield from _fields(keys.delayed_messages, [name for name in names if _queue_of(keys, name, 2) in left.queues], left)


def _dead(keys: Keys, left: _Wanted) -> _Places:
    for queue in sorted(left.queues):
        letters = yield from _members(keys.dead_queue(queue))
        yield from _fields(keys.dead_messages, letters, left)


def _members(key: str) -> Generator[Command, Any, list[bytes]]:
    """Read the members of a sorted set from the highest score down: what falls due leaves at the other end."""
    members: list[bytes] = []
    while True:
        some = yield "ZREVRANGE", key, len(members), len(members) + PIECE_MESSAGES - 1
        members += some
        if len(some) < PIECE_MESSAGES:
            return members


def _fields(key: str, fields: list[bytes], left: _Wanted) -> _Places:
    at = 0
    while at < len(fields) and left:
        read, *found = yield "EVAL", _FIND_IN_HASH, 0, key, *fields[at : at + PIECE_MESSAGES]
        left.cross_off(found)
        at += read


def _queue_of(keys: Keys, name: bytes, colons: int) -> str:
    """Return the queue of a tag (`SEQUENCE:LIST`) or of a delayed message (`CONSUMER:SEQUENCE:LIST`)."""
    return keys.lists.queue_of(name.decode("utf-8", "replace").split(":", colons)[-1])


def search(
    client: redis.Redis, wanted: Mapping[str, Collection[str]], pause: Callable[[float], object] = time.sleep
) -> set[str]:
    """Look for requests once, with pauses; return the ids that were found nowhere.

    wanted: queue → ids. pause: waits for some seconds. Raises the errors of `redis.exceptions`.
    """
    steps = search_steps(keys_of(client), wanted)
    try:
        command = next(steps)
        while True:
            began = time.monotonic()
            answer = client.execute_command(*command)  # type: ignore[no-untyped-call]
            pause((time.monotonic() - began) * PAUSES)
            command = steps.send(answer)
    except StopIteration as end:
        missing: set[str] = end.value
        return missing
