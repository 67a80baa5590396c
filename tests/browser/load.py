"""Real load on a local stack: users that keep the queue full, and one request of each kind that ends badly."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Final, Self

import numpy as np
import psutil
from celery import Celery
from pydantic import SecretStr

from headrace.cli.demo.demo import MODEL, held_out
from headrace.cli.stack.stack import LocalStack
from headrace.contracts import Settings
from headrace.producers import Client, Handle

#: Requests ahead of those that are cancelled and that expire: enough to fill batches.
BACKLOG: Final = 4_000

#: Requests that a user has waiting at least, and at most twice as many.
IN_FLIGHT: Final = 1_000

ANSWER_S: Final = 90.0


@contextmanager
def paused_workers() -> Iterator[None]:
    """Stop the worker processes meanwhile: on a machine with other work, they may be faster than their clients."""
    children = psutil.Process().children(recursive=True)
    workers = [child for child in children if "celery" in child.cmdline() and "worker" in child.cmdline()]
    assert workers
    for worker in workers:
        worker.suspend()
    try:
        yield
    finally:
        for worker in workers:
            worker.resume()


class User(threading.Thread):
    """Keeps the queue from running empty: submits a block before it waits for the last one."""

    def __init__(self, settings: Settings, images: np.ndarray, leave: threading.Event) -> None:
        super().__init__(daemon=True)
        self.error: BaseException | None = None
        self._settings = settings
        self._images = images
        self._leave = leave

    def run(self) -> None:
        try:
            with Client(self._settings) as client:
                waiting: list[Handle] = []
                while not self._leave.is_set():
                    new = client.submit_many(MODEL, {"image": self._images})
                    for handle in waiting:
                        handle.result(ANSWER_S)
                    waiting = new
                for handle in waiting:
                    handle.result(ANSWER_S)
        except BaseException as exc:  # noqa: BLE001 — raised again by the thread that joins.
            self.error = exc


class Load:
    """Runs while it is open. `wrong`, `expired` and `cancelled` are the ids of requests that ended so."""

    def __init__(self, stack: LocalStack, users: int = 1) -> None:
        address = stack.address
        self.settings = Settings(
            broker_url=SecretStr(address.broker_url),
            database_url=SecretStr(address.database_url),
            models=stack.models,
            home=stack.home,
        )
        self.wrong = self.expired = self.cancelled = ""
        images = held_out().inputs
        self._images = np.resize(images, (BACKLOG, *images.shape[1:]))
        self._leave = threading.Event()
        self._users = [User(self.settings, self._images[:IN_FLIGHT], self._leave) for _ in range(users)]

    def __enter__(self) -> Self:
        self.wrong = self._submit_wrong()
        with Client(self.settings) as client:
            with paused_workers():
                handles = client.submit_many(MODEL, {"image": self._images})
                one = {"image": self._images[:1]}
                self.expired = client.submit(MODEL, one, deadline_s=0.05).id
                cancelled = client.submit(MODEL, one)
                assert cancelled.cancel(), "the request was answered before it could be cancelled"
                self.cancelled = cancelled.id
            for user in self._users:
                user.start()
            for handle in handles:
                handle.result(ANSWER_S)
        return self

    def _submit_wrong(self) -> str:
        """Submit an image of the wrong shape, as a plain Celery client that checks nothing."""
        with Celery(broker=self.settings.require_broker_url(), set_as_current=False) as app:
            inputs = {"image": [[1, 2, 3]]}
            return str(app.send_task(f"infer.{MODEL}", kwargs={"inputs": inputs}, queue=f"infer.{MODEL}").id)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave.set()
        for user in self._users:
            user.join()
        for user in self._users:
            if user.error is not None:
                raise user.error
