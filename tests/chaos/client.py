"""A client process: submits, writes down what was accepted, awaits every answer and writes it down.

`python -m tests.chaos.client INDEX COUNT RATE SEED FOLDER LARGE`; prints `answered N` now and then. Ends when standard
input does; goes on slowly behind COUNT until a line says that it is enough.
"""

from __future__ import annotations

import os
import queue
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
from tests.chaos.ledger import Expect, Journal
from tests.chaos.models import AFFINE, LARGE, PICKY
from tests.chaos.refused import refused_id

from headrace.contracts import BrokerUnavailable, HeadraceError, StoreUnavailable
from headrace.producers import Client, Handle, PartlySubmitted, SubmissionInterrupted

#: Most requests that wait for their answers; so many that the queue stays filled while what a dead
#: worker held waits for its lease to end.
WINDOW: Final = 25_000

#: Requests of one `submit_many`, at most.
BLOCK: Final = 256

#: Requests with large outputs that are submitted together, at most: so many that an outage finds some megabytes.
LARGE_BLOCK: Final = 32

#: Inputs of client n begin at n times this; unique in the run.
SPAN: Final = 10**9

#: A request without an answer after this time has a waiter left behind.
PATIENCE_S: Final = 300.0

#: Requests a second behind the last that were asked for, so that workers still meet the points at which they must die.
EXTRA_RATE: Final = 100.0

#: Between two attempts while a server is away.
RETRY_S: Final = 0.1


class Load:
    """The submitting side of one client."""

    def __init__(self, client: Client, index: int, seed: int, journal: Journal, *, large: bool) -> None:
        self._client = client
        self._name = f"client-{index}"
        self._rng = random.Random(f"{seed}/{index}")
        self._next_x = index * SPAN
        self._journal = journal
        self._ways: list[tuple[int, Callable[[int], list[Handle]]]] = [
            (84, self._block),
            (4, self._named),
            (2, self._picky),
            (2, self._cancelled),
            (2, self._hurried),
            (2 if large else 0, self._large),
            (4, self._refused),
        ]

    def submit(self, most: int) -> list[Handle]:
        """Submit some requests, one way or another; give those that were accepted, already written down."""
        ((_, way),) = self._rng.choices(self._ways, [weight for weight, _ in self._ways])
        return way(most)

    def _take(self, count: int) -> list[int]:
        self._next_x += count
        return list(range(self._next_x - count, self._next_x))

    def _note(self, handles: list[Handle], xs: list[int], expect: Expect) -> list[Handle]:
        self._journal.add(f"{handle.id} {expect} {x}" for handle, x in zip(handles, xs, strict=False))
        return handles

    def _block(self, most: int) -> list[Handle]:
        """Many at once. Of an interrupted call only what is known to be accepted counts; the rest is new later."""
        xs = self._take(min(most, self._rng.randint(BLOCK // 2, BLOCK)))
        return self._note(self._many(AFFINE, xs, priority=self._rng.choice((0, 0, 0, 5, 9))), xs, Expect.VALUE)

    def block_of(self, model: str, count: int, expect: Expect, **options: Any) -> list[Handle]:
        """Submit many at once, all of one expectation."""
        xs = self._take(count)
        return self._note(self._many(model, xs, **options), xs, expect)

    def _many(self, model: str, xs: list[int], **options: Any) -> list[Handle]:
        try:
            return self._client.submit_many(model, {"x": np.array(xs, np.int64)[:, None]}, **options)
        except (SubmissionInterrupted, PartlySubmitted) as exc:
            time.sleep(RETRY_S)
            return list(exc.handles)
        except BrokerUnavailable:
            time.sleep(RETRY_S)
            return []

    def _one(self, model: str, x: int, request_id: str, **options: Any) -> Handle:
        """Submit under a name until it is accepted, however often; it must have one effect."""
        while True:
            try:
                return self._client.submit(model, {"x": np.array([[x]], np.int64)}, request_id=request_id, **options)
            except BrokerUnavailable:
                time.sleep(RETRY_S)

    def _named(self, most: int) -> list[Handle]:
        """Requests with names of their own, some of them sent twice."""
        xs = self._take(min(most, 8))
        handles = [self._one(AFFINE, x, f"{self._name}/{x}") for x in xs]
        for x in xs[::4]:
            self._one(AFFINE, x, f"{self._name}/{x}")
        return self._note(handles, xs, Expect.VALUE)

    def _picky(self, most: int) -> list[Handle]:
        """A batch with a request in it that the model fails on."""
        xs = self._take(min(most, 16))
        bad = self._rng.randrange(len(xs))
        handles = self._many(PICKY, [-x - 1 if at == bad else x for at, x in enumerate(xs)])
        for at, (handle, x) in enumerate(zip(handles, xs, strict=False)):
            self._note([handle], [x], Expect.FAILURE if at == bad else Expect.VALUE)
        return handles

    def _cancelled(self, most: int) -> list[Handle]:
        """Requests that are cancelled at once: each ends either way, but everybody must be told the same."""
        xs = self._take(min(most, 2))
        handles = self._note([self._one(AFFINE, x, f"{self._name}/{x}") for x in xs], xs, Expect.MAYBE_CANCELLED)
        for handle in handles:
            try:
                handle.cancel()
            except (StoreUnavailable, BrokerUnavailable):
                continue  # then it is not cancelled, or nobody knows; both are allowed
        return handles

    def _hurried(self, most: int) -> list[Handle]:
        """Requests with a deadline that some of them miss."""
        xs = self._take(min(most, 4))
        return self._note(self._many(AFFINE, xs, deadline_s=0.3), xs, Expect.MAYBE_EXPIRED)

    def _large(self, most: int) -> list[Handle]:
        """Requests whose outputs are large, so that what holds few of them holds much."""
        xs = self._take(min(most, LARGE_BLOCK))
        return self._note(self._many(LARGE, xs), xs, Expect.VALUE)

    def _refused(self, most: int) -> list[Handle]:
        """A batch with a request in it whose row Postgres refuses, with any SQLSTATE there is."""
        xs = self._take(max(2, min(most, 16)))
        bad = self._rng.randrange(len(xs))
        name = refused_id(self._rng, f"{self._name}/{xs[bad]}")
        neighbours = xs[:bad] + xs[bad + 1 :]
        handles = self._note([self._one(AFFINE, xs[bad], name)], [xs[bad]], Expect.REFUSED)
        return handles + self._note(self._many(AFFINE, neighbours), neighbours, Expect.VALUE)


class Waiter:
    """The awaiting side: asks every handle for its result, in order, and writes the answer down."""

    def __init__(self, journal: Journal, room: threading.Semaphore) -> None:
        self.left_behind = 0
        self._journal = journal
        self._room = room
        self._lots: queue.SimpleQueue[list[Handle] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="waiter", daemon=True)
        self._thread.start()

    def put(self, handles: list[Handle]) -> None:
        """Take handles to wait for."""
        self._lots.put(handles)

    def finish(self) -> None:
        """Return when every handle has answered, or won't."""
        self._lots.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (handles := self._lots.get()) is not None:
            lines = []
            for handle in handles:
                answer = answer_of(handle)
                if answer is None:
                    self.left_behind += 1
                else:
                    lines.append(f"{handle.id} {answer}")
                self._room.release()
            self._journal.add(lines)
            print(f"answered {len(handles)}", flush=True)


def answer_of(handle: Handle) -> str | None:
    """Wait for a handle: the value, or the name of the error that the request ended with; None when neither came."""
    ends_at = time.monotonic() + PATIENCE_S
    while (left_s := ends_at - time.monotonic()) > 0:
        try:
            return str(int(handle.result(timeout_s=left_s)["y"][0, 0]))
        except (BrokerUnavailable, StoreUnavailable):
            time.sleep(RETRY_S)
        except HeadraceError as exc:
            return None if exc.type == "ResultTimeout" else exc.type
    return None


def main(index: int, count: int, rate: float, seed: int, folder: Path, *, large: bool) -> int:
    """Submit `count` requests, at most `rate` a second (0: no limit), then few until it is enough; and await them."""
    enough = threading.Event()
    threading.Thread(target=obey, args=(enough,), name="orders", daemon=True).start()
    room = threading.Semaphore(WINDOW)
    with (
        Journal(folder / f"accepted-{index}") as accepted,
        Journal(folder / f"answered-{index}") as answered,
        Client() as client,
    ):
        load, waiter = Load(client, index, seed, accepted, large=large), Waiter(answered, room)
        done, began = 0, time.monotonic()
        while done < count or not enough.is_set():
            if done >= count:
                rate, began = EXTRA_RATE, time.monotonic() - done / EXTRA_RATE
            handles = load.submit(min(BLOCK if not rate else max(1, int(rate / 10)), max(count - done, 1)))
            waiter.put(handles)
            done += len(handles)
            for _ in handles:
                room.acquire()
            if rate:
                time.sleep(max(0.0, began + done / rate - time.monotonic()))
        waiter.finish()
        print(f"left_behind {waiter.left_behind}", flush=True)
    return 0


def obey(enough: threading.Event) -> None:
    """The first line says that it is enough, the end of the input that the harness is gone."""
    sys.stdin.readline()
    enough.set()
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    number, count, rate, seed, folder, large = sys.argv[1:]
    sys.exit(main(int(number), int(count), float(rate), int(seed), Path(folder), large=large == "1"))
