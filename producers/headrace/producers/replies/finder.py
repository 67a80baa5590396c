"""Runs the searches that `losses` plans: sends its questions to the broker and the store."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
import uuid
from collections.abc import Callable, Collection, Generator
from typing import Any, Final, Generic, NamedTuple, TypeVar

import redis
import redis.asyncio

from headrace.contracts.errors import BrokerUnavailable, ConfigurationError, HeadraceError, StoreUnavailable
from headrace.contracts.message import Reply
from headrace.producers.replies.losses import Ask, Losses, Pause, Probe, Wish, round_of_looks
from headrace.producers.replies.pending import Pending, Waiting
from headrace.producers.transport.connections import broker_errors
from headrace.queueing.connection.identity import ServerIdentity, read_identity, read_identity_async
from headrace.queueing.keys import keys_of

#: Errors that end a round: nobody knows whether a request is lost while one of the two servers doesn't answer.
_AWAY: Final = (BrokerUnavailable, StoreUnavailable, ConfigurationError)

_log: Final = logging.getLogger(__name__)

C = TypeVar("C", redis.Redis, redis.asyncio.Redis)


class Brokers(NamedTuple, Generic[C]):
    """Two ways to one broker. calls: its calls may take the whole bound on silence. looks: its calls give up soon.

    A waiter with little time looks over the second, or it would wait for a silent connection after its time.
    """

    calls: C
    looks: C


def left_to_the_next_call(_: float) -> bool:
    """Don't pause: the caller comes again soon."""
    return False


def pausing_until(ends_at: float) -> Callable[[float], bool]:
    """Return a function that sleeps through pauses that end in time."""

    def pause(seconds: float) -> bool:
        in_time = time.monotonic() + seconds <= ends_at
        if in_time:
            time.sleep(seconds)
        return in_time

    return pause


class Finder:
    """Searches for requests of one client, a piece at a time, in any thread that has the time."""

    def __init__(
        self,
        brokers: Brokers[redis.Redis],
        losses: Losses,
        pending: Pending,
        lock: threading.Lock,
        read: Callable[[Collection[Waiting]], set[str]],
        changed: Callable[[], None],
    ) -> None:
        """lock: guards losses and pending.

        read: looks into the store, settles what has ended, returns the ids that are known there. changed: called,
        without the lock, after requests may have been found lost.
        """
        self._brokers = brokers
        self._losses = losses
        self._pending = pending
        self._lock = lock
        self._read = read
        self._changed = changed
        self._busy = threading.Lock()
        self._learning = threading.Lock()
        self._round: Generator[Wish, Any, None] | None = None

    def learn(self) -> None:
        """Read the broker's identity for the first time; of many threads one does. Raises BrokerUnavailable."""
        with self._learning:
            if not self._losses.identity_known:
                identity = self._identity(self._brokers.calls)
                with self._lock:
                    self._losses.probed(identity)

    @staticmethod
    def _identity(broker: redis.Redis) -> ServerIdentity:
        with broker_errors():
            return read_identity(broker, uuid.uuid4().hex)

    def go_on(self, pause: Callable[[float], bool] = left_to_the_next_call, *, at_once: bool = False) -> None:
        """Go on with the round that is due. Does nothing while another thread is at it.

        pause: waits for some seconds, or returns False: then that pause, and the rest of the round, is left to the next
        call. at_once: also if nothing is due.
        """
        if not self._busy.acquire(blocking=False):
            return
        try:
            if at_once or time.monotonic() >= self._losses.due_at:
                self._run(pause)
        finally:
            self._busy.release()

    def _run(self, pause: Callable[[float], bool]) -> None:
        looks = self._round
        if looks is None:
            looks = round_of_looks(self._losses, self._pending, keys_of(self._brokers.looks), time.monotonic)
        self._round = None
        answer: Any = None
        try:
            while True:
                with self._lock:
                    wish = looks.send(answer)
                self._changed()
                if not isinstance(wish, Pause):
                    answer = self._do(wish)
                    continue
                answer, over_at = None, time.monotonic() + wish.seconds
                if not pause(wish.seconds):
                    self._round, self._losses.due_at = looks, over_at
                    return
        except StopIteration:
            self._changed()
        except _AWAY as exc:
            with self._lock:
                note_failure(self._losses, exc)

    def _do(self, wish: Wish) -> Any:
        if isinstance(wish, Probe):
            return self._identity(self._brokers.looks)
        if isinstance(wish, Ask):
            with broker_errors():
                return self._brokers.looks.execute_command(*wish.command)  # type: ignore[no-untyped-call]
        assert not isinstance(wish, Pause)
        return self._read(wish.handles)


class AsyncFinder:
    """Searches for requests of one asyncio client; see `Finder`."""

    def __init__(
        self,
        brokers: Brokers[redis.asyncio.Redis],
        losses: Losses,
        pending: Pending,
        read: Callable[[Collection[Waiting]], tuple[list[Reply], set[str]]],
    ) -> None:
        """read: looks into the store for replies to these requests, and for the ids of those it keeps; may block."""
        self._brokers = brokers
        self._losses = losses
        self._pending = pending
        self._read = read
        self._busy = asyncio.Lock()
        self._learning = asyncio.Lock()

    async def learn(self) -> None:
        """Read the broker's identity for the first time; of many tasks one does. Raises BrokerUnavailable."""
        async with self._learning:
            if not self._losses.identity_known:
                self._losses.probed(await self._identity(self._brokers.calls))

    @staticmethod
    async def _identity(broker: redis.asyncio.Redis) -> ServerIdentity:
        with broker_errors():
            return await read_identity_async(broker, uuid.uuid4().hex)

    async def go_through(self) -> None:
        """Go through one round; does nothing while another task is at it."""
        if self._busy.locked():
            return
        async with self._busy:
            looks = round_of_looks(self._losses, self._pending, keys_of(self._brokers.looks), time.monotonic)
            answer: Any = None
            try:
                while True:
                    answer = await self._do(looks.send(answer))
            except StopIteration:
                return
            except _AWAY as exc:
                note_failure(self._losses, exc)

    async def _do(self, wish: Wish) -> Any:
        if isinstance(wish, Probe):
            return await self._identity(self._brokers.looks)
        if isinstance(wish, Pause):
            return await asyncio.sleep(wish.seconds)
        if isinstance(wish, Ask):
            with broker_errors():
                return await self._brokers.looks.execute_command(*wish.command)  # type: ignore[no-untyped-call]
        replies, known = await asyncio.to_thread(self._read, wish.handles)
        self._pending.settle(replies)
        return known


def note_failure(losses: Losses, exc: HeadraceError) -> None:
    """Postpone a round during which a server was away; waiters get the error from the inbox."""
    losses.failed()
    losses.due_at = time.monotonic() + losses.probe_every_s
    _log.debug("look_failed error=%r", exc.message)
