"""Detects requests that the broker lost with its data: when to search for them and what a search shows. Pure.

Looking costs, so it needs a reason: the broker's identity is another than when a request was submitted, its deadline is
over, or it has been away for longer than a dead worker's requests need to come back and somebody asks for its status.
A request is lost when two looks in a row, some time apart, found it nowhere: not with the broker, not in the store.
"""

from __future__ import annotations

import itertools
import math
import uuid
from collections.abc import Callable, Collection, Generator, Iterable, Mapping
from typing import Any, Final, NamedTuple, TypeAlias

from headrace.contracts.message import queue_name
from headrace.producers.replies.pending import Pending, Standing, Waiting
from headrace.queueing.admin.search import PAUSES, search_steps
from headrace.queueing.connection.connect import Command
from headrace.queueing.connection.identity import ServerIdentity
from headrace.queueing.keys import Keys

#: A client that waits asks the broker for its identity this often, or in a quarter of a short lease: three short
#: commands.
PROBE_EVERY_S: Final = 2.0

MIN_PROBE_EVERY_S: Final = 0.1

#: Time between the two looks, or a quarter of a short lease: what moved backward during the first has arrived by then,
#: and a worker that had requests in its hands has stored the batch that ran.
AGAIN_S: Final = 1.0

#: A look that takes longer than this part of the lease takes up to half of the server: two of them end within the lease
#: while no more than about two million messages wait.
UNHURRIED: Final = 1 / 4
HURRIED_PAUSES: Final = 1

#: A request is looked for so long after its deadline, then after twice the time, and so on.
OVERDUE_S: Final = 5.0

#: Most requests of one look, which holds their ids; the others follow in the next.
LOOK_REQUESTS: Final = 100_000

#: Numbers the identities that any client of this process has seen.
_epochs: Final = itertools.count(1)


class Look(NamedTuple):
    """One search for requests. wanted: by id. began: on the caller's clock. epoch: the identity's number then.

    final: whether they were missed once already.
    """

    wanted: Mapping[str, Waiting]
    began: float
    epoch: int
    final: bool

    def by_queue(self) -> dict[str, list[str]]:
        """Return queue → ids."""
        found: dict[str, list[str]] = {}
        for handle in self.wanted.values():
            found.setdefault(queue_name(handle.model), []).append(handle.id)
        return found


class Losses:
    """One client's knowledge of where its requests are; its owner holds a lock around each call."""

    def __init__(self, lease_s: float) -> None:
        """lease_s: how long a dead worker keeps requests to itself."""
        self._lease_s = lease_s
        #: A short lease is told apart from a long one in the time in which losses are noticed, too.
        self.probe_every_s = max(MIN_PROBE_EVERY_S, min(PROBE_EVERY_S, lease_s / 4))
        self.again_s = min(AGAIN_S, lease_s / 4)
        self.unhurried_s = lease_s * UNHURRIED
        self._identity: ServerIdentity | None = None
        self._epoch = next(_epochs)
        self._changed = False
        self._old_wanted = False
        self._missed: dict[str, Waiting] = {}
        #: When to probe next, or to go on looking, on the caller's clock.
        self.due_at = -math.inf

    @property
    def identity_known(self) -> bool:
        """Whether the broker's identity was ever read; before that no loss can be noticed."""
        return self._identity is not None

    def standing(self, now: float, deadline_s: float | None, kept: uuid.UUID | None = None) -> Standing:
        """Return the standing of requests that are submitted now."""
        return Standing(self._epoch, now, math.inf if deadline_s is None else now + deadline_s, kept)

    def is_past(self, standing: Standing) -> bool:
        """Return whether the identity has changed since."""
        return standing.epoch != self._epoch

    def doubt(self, handles: Iterable[Waiting], standing: Standing) -> None:
        """Doubt requests while whose sending the identity changed; they may be there or not."""
        for handle in handles:
            handle.standing = standing
        self._changed = True

    def begin_probing(self, handle: Waiting) -> None:
        """Begin to probe: not while the request is fresh, since most are answered before it matters."""
        self.due_at = max(self.due_at, handle.standing.seen_at + self.probe_every_s)

    def adopt(self, handle: Waiting) -> None:
        """Doubt a request that was submitted under another identity of the broker, for example before a fork."""
        if handle.standing.epoch != self._epoch:
            self._changed = True

    def connection_broke(self) -> None:
        """Take a break for a new identity where the user may not read more of it than the epoch."""
        if self._identity is not None and not self._identity.run_id:
            self._new_epoch()

    def probed(self, identity: ServerIdentity | None) -> None:
        """Take note of the broker's identity; None when it could not be read."""
        if identity is not None and identity != self._identity:
            self._identity = identity
            self._new_epoch()

    def _new_epoch(self) -> None:
        self._epoch = next(_epochs)
        self._changed = True

    def asked_for(self, handle: Waiting, now: float) -> bool:
        """Return whether a search is due, after a call for the status of a request."""
        if self._is_old(handle.standing, now):
            # Together with all others, so that asking for many costs one look.
            self._old_wanted = True
        return self._old_wanted or now >= self.due_at

    def look(self, unanswered: Iterable[Waiting], watched: Iterable[Waiting], now: float) -> Look | None:
        """Return the search that is due now, None if there is no reason for one.

        unanswered: all requests of this client; only read if there is reason to doubt them all. watched: those that
        somebody waits for.
        """
        missed, self._missed = {key: each for key, each in self._missed.items() if _is_open(each)}, {}
        if missed:
            return Look(missed, now, self._epoch, final=True)
        doubtful = itertools.chain(
            filter(self._is_sent_before, unanswered) if self._changed else (),
            (each for each in unanswered if self._is_old(each.standing, now)) if self._old_wanted else (),
            (each for each in watched if self._is_overdue(each.standing, now)),
        )
        wanted = {each.id: each for each in itertools.islice(filter(_is_open, doubtful), LOOK_REQUESTS)}
        # Below the limit, all doubts are part of this look.
        self._changed = self._changed and len(wanted) == LOOK_REQUESTS
        self._old_wanted = False
        return Look(wanted, now, self._epoch, final=False) if wanted else None

    def looked(self, look: Look, missing: Collection[str]) -> list[Waiting]:
        """Note the requests that a search found nowhere; return those that are lost by now."""
        lost = []
        for key, handle in look.wanted.items():
            if not _is_open(handle):
                continue
            if key not in missing:
                handle.standing = handle.standing._replace(epoch=look.epoch, seen_at=look.began)
            elif look.final:
                handle.standing = handle.standing._replace(lost=True)
                lost.append(handle)
            else:
                self._missed[key] = handle
        return lost

    @property
    def looks_again(self) -> bool:
        """Whether a second look has to confirm what the last one missed."""
        return bool(self._missed)

    def failed(self) -> None:
        """Note that a search was broken off; it will begin anew."""
        self._missed = {}
        self._changed = True

    def _is_sent_before(self, handle: Waiting) -> bool:
        # A durable one is sent again by whoever relays.
        return handle.standing.epoch != self._epoch and handle.standing.kept is None

    def _is_old(self, standing: Standing, now: float) -> bool:
        return now >= standing.seen_at + self._lease_s and standing.kept is None

    @staticmethod
    def _is_overdue(standing: Standing, now: float) -> bool:
        deadline, seen_at = standing.deadline, standing.seen_at
        return now >= max(deadline, seen_at) + OVERDUE_S and now >= seen_at + (seen_at - deadline)


def _is_open(handle: Waiting) -> bool:
    return not handle.ended


class Probe(NamedTuple):
    """Read the broker's identity; the answer is a ServerIdentity."""


class Ask(NamedTuple):
    """Send a command to the broker; the answer is its answer."""

    command: Command


class Read(NamedTuple):
    """Look into the store, and settle those that have ended; the answer is the ids of those that it has or keeps."""

    handles: Collection[Waiting]


class Pause(NamedTuple):
    """Go on after some seconds; there is no answer."""

    seconds: float


Wish: TypeAlias = Probe | Ask | Read | Pause


def round_of_looks(
    losses: Losses, pending: Pending, keys: Keys, clock: Callable[[], float]
) -> Generator[Wish, Any, None]:
    """Probe once, then search for all doubtful requests; yield each step of it and take the answer.

    The owner holds its lock while this runs and lets go of it while it does what is wished. An error ends the round,
    see `Losses.failed`.
    """
    losses.due_at = math.inf
    losses.probed((yield Probe()))
    while look := losses.look(pending.unanswered(), pending.watched(), clock()):
        missing = yield from _searched(look, keys, clock, losses.unhurried_s)
        if missing:
            missing -= set((yield Read([look.wanted[each] for each in missing])))
        pending.wake(losses.looked(look, missing))
        if losses.looks_again:
            yield Pause(losses.again_s)
    losses.due_at = clock() + losses.probe_every_s


def _searched(look: Look, keys: Keys, clock: Callable[[], float], unhurried_s: float) -> Generator[Wish, Any, set[str]]:
    steps = search_steps(keys, look.by_queue())
    try:
        command = next(steps)
        while True:
            began = clock()
            answer = yield Ask(command)
            took_s = clock() - began
            yield Pause(took_s * (PAUSES if clock() < look.began + unhurried_s else HURRIED_PAUSES))
            command = steps.send(answer)
    except StopIteration as end:
        missing: set[str] = end.value
        return missing
