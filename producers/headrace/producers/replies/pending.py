"""Unanswered requests of one client, and when to look their rows up instead. Pure: no I/O, clock or lock."""

from __future__ import annotations

import itertools
import math
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, NamedTuple, TypeAlias
from weakref import WeakKeyDictionary, WeakValueDictionary

from headrace.contracts.errors import InvalidRequest
from headrace.contracts.message import Reply
from headrace.contracts.states import LOST, PENDING

#: A reply can be lost with a connection, so a request that is waited for is looked up in the store this often.
LOOKUP_EVERY_S: Final = 5.0

#: Repeated calls for the status of a request look its row up this long after the last time: at first,
#: and twice as long each time up to the second.
STATUS_FIRST_S: Final = 0.002
STATUS_EVERY_S: Final = 0.1

#: Lookups that are due within this time of each other share one query.
LOOKUP_TOGETHER_S: Final = 1.0

#: Most requests looked up in one query; the others follow in the next.
LOOKUP_REQUESTS: Final = 1000

#: Called when a request that somebody waits for has its reply; must not block.
Wake: TypeAlias = Callable[[], None]

#: Numbers the times between two breaks of any connection in this process.
_eras: Final = itertools.count()


class Standing(NamedTuple):
    """Last known whereabouts of requests that were submitted together; one object shared by all of them.

    epoch: number of the broker's identity under which it had them. seen_at: when that was. deadline: both in seconds
    of the monotonic clock. kept: the row of `headrace_requests` that keeps durable ones. lost: whether nobody has it.
    """

    epoch: int = 0
    seen_at: float = -math.inf
    deadline: float = math.inf
    kept: uuid.UUID | None = None
    lost: bool = False


#: Durable requests of whose row the id isn't known yet.
NOT_KEPT_YET: Final = uuid.UUID(int=0)

#: Nothing is known of requests that were not submitted yet.
_UNSENT: Final = Standing()


class Waiting:
    """A request of this client; the base of its handles.

    reply: how it ended, or None. era: the one in which it was submitted; after a break its reply may be lost.
    standing: what is known of where it is.
    """

    __slots__ = ("__weakref__", "era", "id", "model", "reply", "standing")

    def __init__(self, request_id: str, model: str) -> None:
        """request_id: as submitted. model: its model's name."""
        self.id = request_id
        self.model = model
        self.era = -1
        self.reply: Reply | None = None
        self.standing = _UNSENT

    @property
    def ended(self) -> bool:
        """Whether there is nothing to wait for: a reply is here, or the request is lost."""
        return self.reply is not None or self.standing.lost

    @property
    def known_status(self) -> str:
        """The state of the request as far as it is known here."""
        if self.reply is not None:
            return str(self.reply.state)
        return LOST if self.standing.lost else PENDING

    def __repr__(self) -> str:
        """Name the request and its state as known here, without asking a server."""
        return f"<{type(self).__name__} {self.id} {self.model} {self.known_status}>"


@dataclass(slots=True)
class _Watch:
    """The waiters for one request. look_up_at: when to look for its row, on the caller's clock."""

    handle: Waiting
    look_up_at: float
    wakes: list[Wake] = field(default_factory=list)


class Pending:
    """The unanswered requests by id, held weakly: a dropped handle leaves nothing behind."""

    def __init__(self) -> None:
        """Start empty, in a new era."""
        self._era = next(_eras)
        self._handles: WeakValueDictionary[str, Waiting] = WeakValueDictionary()
        self._watches: dict[str, _Watch] = {}
        #: When to look up what is asked about without being waited for, and when to do so again for a status, with
        #: the pause before.
        self._asked: WeakKeyDictionary[Waiting, float] = WeakKeyDictionary()
        self._looked: WeakKeyDictionary[Waiting, tuple[float, float]] = WeakKeyDictionary()
        self._next_lookup = math.inf
        #: Whether requests of an earlier era may be left, whose replies may have been lost; and when the era began.
        self._doubtful = False
        self._doubted_at = -math.inf

    def __len__(self) -> int:
        """Count the unanswered requests whose handles are still held."""
        return len(self._handles)

    def find(self, request_id: str, model: str) -> Waiting | None:
        """Return an unanswered request. Raises InvalidRequest when its id was given to another model."""
        handle = self._handles.get(request_id)
        if handle is not None and handle.model != model:
            raise InvalidRequest(f"request_id {request_id!r} already waits for model {handle.model}; use another id")
        return handle

    def add(self, handles: Iterable[Waiting], standing: Standing = _UNSENT) -> None:
        """Expect replies to these requests, which are submitted now."""
        era = self._era
        for handle in handles:
            handle.era = era
            handle.standing = standing
            self._handles[handle.id] = handle

    def adopt(self, handle: Waiting) -> None:
        """Expect a reply to a request that was submitted earlier, perhaps before a fork."""
        if handle.reply is None:
            self._handles.setdefault(handle.id, handle)

    def settle(self, replies: Iterable[Reply]) -> None:
        """Settle requests with their replies and wake their waiters; replies to unknown requests are dropped."""
        for reply in replies:
            handle = self._handles.pop(reply.id, None)
            if handle is not None:
                handle.reply = reply
            watch = self._watches.get(reply.id)
            if watch is not None and watch.handle.reply is not None:
                for wake in watch.wakes:
                    wake()

    def watch(self, handle: Waiting, wake: Wake, now: float) -> None:
        """Register a waiter's callback for this request, whose row is looked up from time to time from now on."""
        self.adopt(handle)
        watch = self._watches.get(handle.id)
        if watch is None:
            doubtful = handle.era != self._era
            watch = self._watches[handle.id] = _Watch(handle, now if doubtful else now + LOOKUP_EVERY_S)
            self._next_lookup = min(self._next_lookup, watch.look_up_at)
        watch.wakes.append(wake)

    def unwatch(self, handle: Waiting, wake: Wake) -> None:
        """Unregister a waiter's callback."""
        watch = self._watches[handle.id]
        watch.wakes.remove(wake)
        if not watch.wakes:
            del self._watches[handle.id]
            if not self._watches:
                self._next_lookup = min(self._asked.values(), default=math.inf)

    def ask(self, handle: Waiting, now: float) -> None:
        """Have the row of a request looked up now and then, after a call that asked about it without waiting."""
        if handle.reply is not None or handle in self._asked:
            return
        self.adopt(handle)
        at = self._asked[handle] = now if handle.era != self._era else now + LOOKUP_EVERY_S
        self._next_lookup = min(self._next_lookup, at)

    def may_look_up(self, handle: Waiting, now: float) -> bool:
        """Return whether a call for a request's status may look its row up; if so, note that it does."""
        due_at, pause_s = self._looked.get(handle, (-math.inf, STATUS_FIRST_S / 2))
        if now < due_at:
            return False
        pause_s = min(2 * pause_s, STATUS_EVERY_S)
        self._looked[handle] = now + pause_s, pause_s
        return True

    def wake_one(self) -> None:
        """Wake one waiter for a request without a reply."""
        for watch in self._watches.values():
            if not watch.handle.ended:
                watch.wakes[0]()
                return

    def wake_all(self) -> None:
        """Wake all waiters."""
        for watch in self._watches.values():
            for wake in watch.wakes:
                wake()

    def wake(self, handles: Iterable[Waiting]) -> None:
        """Wake the waiters for these requests."""
        for handle in handles:
            watch = self._watches.get(handle.id)
            for wake in watch.wakes if watch is not None else ():
                wake()

    @property
    def is_watched(self) -> bool:
        """Whether any request has a waiter."""
        return bool(self._watches)

    def unanswered(self) -> list[Waiting]:
        """Return all requests without a reply whose handles are still held."""
        return list(self._handles.values())

    def watched(self) -> list[Waiting]:
        """Return the requests that have waiters."""
        return [watch.handle for watch in self._watches.values()]

    @property
    def next_lookup(self) -> float:
        """When `due` may have something, on the caller's clock; infinity if nobody waits."""
        return self._next_lookup

    def due(self, now: float) -> list[str]:
        """Take the ids that are to be looked up now; their next turn is LOOKUP_EVERY_S later."""
        if now < self._next_lookup:
            return []
        waiting = [watch for watch in self._watches.values() if watch.handle.reply is None]
        found = [watch for watch in waiting if watch.look_up_at <= now + LOOKUP_TOGETHER_S][:LOOKUP_REQUESTS]
        for watch in found:
            watch.look_up_at = now + LOOKUP_EVERY_S
        handles = [watch.handle for watch in found] + self._take_asked(now, LOOKUP_REQUESTS - len(found))
        handles += self._take_doubtful(LOOKUP_REQUESTS - len(handles))
        for handle in handles:
            handle.era = self._era
        self._next_lookup = min(
            now if self._doubtful else math.inf,
            min((watch.look_up_at for watch in waiting), default=math.inf),
            min(self._asked.values(), default=math.inf),
        )
        return list({handle.id: None for handle in handles})

    def _take_doubtful(self, most: int) -> list[Waiting]:
        """Take requests whose replies may have been lost, before they have waiters: one query finds many."""
        if not self._doubtful:
            return []
        found = list(itertools.islice((each for each in self._handles.values() if each.era != self._era), most))
        self._doubtful = len(found) == most
        return found

    def found_in_store(self, replies: Iterable[Reply], now: float) -> None:
        """Settle requests by their rows. As their replies had not come, those of others may not come either.

        A broker without memory takes neither replies nor the note that it dropped some.
        """
        replies = list(replies)
        is_news = not self._doubtful and now >= self._doubted_at + LOOKUP_EVERY_S
        if is_news and any(reply.id in self._handles for reply in replies):
            self.connection_broke(now)
        self.settle(replies)

    def _take_asked(self, now: float, most: int) -> list[Waiting]:
        """Take the requests to look up because of a call that asked; the next call schedules the next look-up."""
        nearly = now + LOOKUP_TOGETHER_S
        due = [each for each, at in self._asked.items() if at <= nearly or each.reply is not None]
        taken = [each for each in due if each.reply is None][:most]
        for each in due:
            if each.reply is not None:
                del self._asked[each]
        for each in taken:
            del self._asked[each]
        return taken

    def connection_broke(self, now: float) -> None:
        """Look up, since replies may be lost, watched requests at once and the others when they get a waiter."""
        self._era = next(_eras)
        self._doubtful, self._doubted_at = True, now
        for watch in self._watches.values():
            watch.look_up_at = now
        for handle in self._asked:
            self._asked[handle] = now
        if self._watches or self._asked:
            self._next_lookup = now
