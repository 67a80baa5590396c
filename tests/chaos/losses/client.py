"""A client whose broker loses data: half of its requests are durable. Writes down what was accepted and what was told.

`python -m tests.chaos.losses.client INDEX RATE SEED FOLDER`; a line on standard input says that it is enough.
"""

from __future__ import annotations

import queue
import random
import sys
import threading
import time
from pathlib import Path
from typing import Final

from tests.chaos.client import Load, answer_of, obey
from tests.chaos.ledger import Expect, Journal
from tests.chaos.models import AFFINE

from headrace.producers import Client, Handle

#: Requests of one `submit_many`.
BLOCK: Final = 16


class LossyLoad:
    """Submits blocks, each durable or plain."""

    def __init__(self, client: Client, index: int, seed: int, journal: Journal) -> None:
        self._load = Load(client, index, seed, journal, large=False)
        self._rng = random.Random(f"{seed}/{index}/losses")

    def submit(self) -> tuple[Expect, list[Handle]]:
        """Submit a block; gives what was accepted, already written down."""
        expect = self._rng.choice((Expect.DURABLE, Expect.MAYBE_LOST))
        options = {"durable": True} if expect is Expect.DURABLE else {}
        return expect, self._load.block_of(AFFINE, BLOCK, expect, **options)


class Listener:
    """Asks handles for their results in a thread of its own, and writes down when each answered."""

    def __init__(self, journal: Journal, name: str) -> None:
        self._journal = journal
        self._lots: queue.SimpleQueue[list[Handle] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
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
            for handle in handles:
                if (answer := answer_of(handle)) is not None:
                    self._journal.add([f"{handle.id} {answer} {time.time()}"])


def main(index: int, rate: float, seed: int, folder: Path) -> int:
    """Submit until it is enough; then await what is open."""
    enough = threading.Event()
    threading.Thread(target=obey, args=(enough,), name="orders", daemon=True).start()
    with (
        Journal(folder / f"accepted-{index}") as accepted,
        Journal(folder / f"told-{index}") as told,
        Client() as client,
    ):
        load = LossyLoad(client, index, seed, accepted)
        # Those for durable requests wait until these were sent again, which must not delay what others are told.
        listeners = {expect: Listener(told, str(expect)) for expect in (Expect.DURABLE, Expect.MAYBE_LOST)}
        while not enough.wait(BLOCK / rate):
            expect, handles = load.submit()
            listeners[expect].put(handles)
        for listener in listeners.values():
            listener.finish()
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])))
