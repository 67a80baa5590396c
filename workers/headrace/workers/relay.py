"""Sends durable requests that nobody else sends: of applications' transactions, of clients that died, and lost ones.

It runs in a thread of every worker; one of them works, the others stand by.
"""

from __future__ import annotations

import contextlib
import logging
import select
import socket
import threading
import time
import uuid
from collections.abc import Sequence
from typing import Final

import redis

from headrace.contracts import HeadraceError, Settings
from headrace.contracts.errors import BrokerUnavailable
from headrace.queueing import connect_to, translate_errors
from headrace.queueing.admin.search import search
from headrace.queueing.connection.identity import read_identity
from headrace.queueing.submission import Submitter
from headrace.results_store.durable.relay_store import LEASE_S, RelayStore, SentBlock

logger = logging.getLogger(__name__)

#: What is due is looked for this often, should no word of a commit come: one query that finds an empty index.
LOOK_S: Final = 1.0

#: A relay renews its place this often, and one that stands by looks whether the place is free.
RENEW_S: Final = LEASE_S / 3
STANDBY_S: Final = LEASE_S / 2

#: The broker is asked for its identity this often.
PROBE_S: Final = 2.0

#: A client may have sent a request just before the broker lost its data, and taken note of it after the first look;
#: the longest call takes half as long. So what was sent is looked for once more.
SETTLED_S: Final = 60.0

#: Between two looks of which both must miss a request.
AGAIN_S: Final = 0.5

#: Most requests that are looked for at once.
SEARCH_REQUESTS: Final = 50_000

#: The time that removing what has ended may take of each LOOK_S.
TIDY_S: Final = 0.1

#: Pause after a failure.
RETRY_S: Final = 1.0


class Relay:
    """The thread of one worker that relays, or stands by."""

    def __init__(self, settings: Settings) -> None:
        """Nothing is connected yet."""
        self._settings = settings
        self._broker = connect_to(settings)
        self._submitter = Submitter(self._broker)
        self._store = RelayStore(
            settings.require_database_url(), settings.key_prefix, uuid.uuid4().hex, settings.database_timeout_s
        )
        self._reader, self._writer = socket.socketpair()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="headrace-relay", daemon=True)
        self._away = False
        self._tidied = uuid.UUID(int=0)
        self._renew_at = self._probe_at = 0.0
        self._remembered: str | None = None
        self._recovery = Recovery()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self, timeout_s: float) -> None:
        """End the thread; whatever it was doing can be done again by another."""
        self._stopped.set()
        with contextlib.suppress(OSError):
            self._writer.send(b"\0")
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                with translate_errors():
                    wait_s = self._turn()
            except (HeadraceError, redis.RedisError) as exc:
                self._note_failure(exc)
                wait_s = RETRY_S
            else:
                if self._away:
                    self._away = False
                    logger.warning("workers.relay_back")
            self._wait(wait_s)
        self._leave()

    def _note_failure(self, exc: HeadraceError | redis.RedisError) -> None:
        # Whoever else can reach both servers may have the place.
        self._renew_at, self._remembered = 0.0, None
        self._store.close()
        if not self._away:
            self._away = True
            logger.warning("workers.relay_away durable requests are not sent on: %s", " ".join(str(exc).split()))

    def _leave(self) -> None:
        try:
            if self._remembered is not None:
                self._store.leave()
        except HeadraceError as exc:
            logger.info("workers.relay_not_left error=%s", exc.message)
        finally:
            self._store.close()
            self._broker.close()
            self._reader.close()
            self._writer.close()

    def _turn(self) -> float:
        """Relay the requests that are due; return the seconds until there may be more."""
        now = time.monotonic()
        if now >= self._renew_at:
            self._remembered = self._store.lead()
            self._renew_at = now + RENEW_S
        if self._remembered is None:
            self._store.close()
            self._renew_at = 0.0
            return STANDBY_S
        if now >= self._probe_at:
            self._probe_at = now + PROBE_S
            self._recover()
        if self._store.send_due(self._send):
            return 0.0
        self._tidy()
        # A commit after the look whose word came with an answer of Postgres makes nothing readable.
        return 0.0 if self._store.take_news() else LOOK_S

    def _send(self, queue: str, priority: int, messages: Sequence[bytes]) -> int:
        return self._submitter.submit(queue, priority, messages, self._settings.queue_limit)

    def _recover(self) -> None:
        """Send again what the broker lost, if it is not the one that is known to hold all."""
        identity = "/".join(read_identity(self._broker, uuid.uuid4().hex))
        if self._recovery.needed(identity, self._remembered, time.monotonic()):
            count = self._send_lost()
            if count:
                logger.warning("workers.durable_sent_again requests=%d: the broker had lost them", count)
            self._recovery.done(time.monotonic())
        if self._recovery.settled(identity, self._remembered):
            self._store.remember(identity)
            self._remembered = identity

    def _send_lost(self) -> int:
        count = 0
        blocks: list[SentBlock] = []
        last = uuid.UUID(int=0)
        while page := self._store.sent_after(last):
            last = page[-1].id
            blocks += page
            if sum(len(block.keys) for block in blocks) >= SEARCH_REQUESTS:
                count += self._send_missing(blocks)
                blocks = []
        return count + self._send_missing(blocks)

    def _send_missing(self, blocks: Sequence[SentBlock]) -> int:
        """Send those requests of these blocks that neither the broker nor the store has."""
        self._keep_place()
        missing = self._missing(blocks)
        if not missing:
            return 0
        affected = [block.id for block in blocks if not missing.isdisjoint(block.keys)]
        count = 0
        for block in self._store.read(affected):
            messages = [message for key, message in zip(block.keys, block.messages, strict=True) if key in missing]
            # No limit: these had their place in the queue.
            count += self._submitter.submit(block.queue, block.priority, messages)
        return count

    def _missing(self, blocks: Sequence[SentBlock]) -> set[uuid.UUID]:
        """Return the requests that neither two searches find nor the store after them."""
        open_ = {key for block in blocks for key in block.keys}
        for pause_s in (AGAIN_S, 0.0):
            open_ -= self._store.ended(open_)
            wanted: dict[str, dict[str, uuid.UUID]] = {}
            for block in blocks:
                ids = zip(block.ids, block.keys, strict=True)
                wanted.setdefault(block.queue, {}).update((name, key) for name, key in ids if key in open_)
            names = search(self._broker, wanted, self._pause)
            open_ = {ids[name] for ids in wanted.values() for name in names & ids.keys()}
            if not open_ or self._stopped.wait(pause_s):
                return set()
        return open_ - self._store.ended(open_)

    def _pause(self, seconds: float) -> None:
        """Wait between two pieces of a search, and keep the place meanwhile."""
        self._keep_place()
        if self._stopped.wait(seconds):
            raise BrokerUnavailable("the worker ends")

    def _keep_place(self) -> None:
        now = time.monotonic()
        if now >= self._renew_at:
            if self._store.lead() is None:
                raise BrokerUnavailable("another worker relays by now")
            self._renew_at = now + RENEW_S

    def _tidy(self) -> None:
        """Remove ended requests, page by page."""
        ends_at = time.monotonic() + TIDY_S
        while time.monotonic() < ends_at:
            self._tidied = self._store.tidy(self._tidied)
            if not self._tidied.int:
                return

    def _wait(self, seconds: float) -> None:
        """Wait for a commit of an application, for the end, or for some seconds."""
        files: list[int] = [self._reader.fileno()]
        news = self._store.fileno()
        if news is not None:
            files.append(news)
        poll = select.poll()
        for file in files:
            poll.register(file, select.POLLIN)
        ready = [file for file, _ in poll.poll(seconds * 1000)]
        if news is not None and news in ready:
            try:
                self._store.take_news()
            except HeadraceError as exc:
                self._note_failure(exc)


class Recovery:
    """The schedule of searches for requests that a replaced broker may have lost: at once, and again later."""

    def __init__(self) -> None:
        """Nothing was looked for yet."""
        self._identity: str | None = None
        self._first_at = 0.0
        self._looks = 0

    def needed(self, identity: str, remembered: str | None, now: float) -> bool:
        """Return whether to look now. remembered: the identity of the broker that is known to hold all."""
        if identity == remembered:
            return False
        if identity != self._identity:
            self._identity, self._looks = identity, 0
        return self._looks == 0 or (self._looks == 1 and now >= self._first_at + SETTLED_S)

    def done(self, now: float) -> None:
        """Record that all was looked for, and sent again where it was missing."""
        if self._looks == 0:
            self._first_at = now
        self._looks += 1

    def settled(self, identity: str, remembered: str | None) -> bool:
        """Return whether the broker of this identity is known to hold all, which is not remembered yet."""
        return identity != remembered and identity == self._identity and self._looks >= 2
