"""The rival's client at its best: one producer with its connection kept, argument descriptions given, nothing extra."""

from __future__ import annotations

import contextlib
import os
import time
from typing import Any

import redis

from online_parts.agent import SAMPLE_EVERY
from online_parts.celery_app import encode, make_app
from online_parts.models import DISTINCT_ROWS, MLP

#: A waiter that gets no result for this long has found a bug, not a slow run.
PATIENCE_S = 60.0


class CeleryLoad:
    """Submits through `apply_async`.

    Producers that do not wait for results use an app without a result backend: with one, Celery subscribes to a
    channel of Redis for each request, which only slows them. The worker stores results all the same.
    """

    def __init__(self) -> None:
        self._encoding = os.environ["RIVAL_ENCODING"]
        self._rows = [encode(self._encoding, row) for row in MLP.rows()]
        self._stack = contextlib.ExitStack()
        self._send = self._task("disabled://")
        self._call = self._task(os.environ["RIVAL_RESULTS"])

    def _task(self, backend: str) -> Any:
        app = make_app(backend)
        task = app.tasks[f"score_{self._encoding}"]
        producer = self._stack.enter_context(app.producer_pool.acquire(block=True))
        options: dict[str, Any] = {"producer": producer, "argsrepr": "", "kwargsrepr": "", "add_to_parent": False}
        return lambda index: task.apply_async(None, {"x": self._rows[index % DISTINCT_ROWS]}, **options)

    def submit(self, first: int, count: int) -> list[tuple[int, str]]:
        sample = []
        for index in range(first, first + count):
            result = self._send(index)
            if index % SAMPLE_EVERY == 0:
                sample.append((index, result.id))
        return sample

    def ask(self, index: int) -> list[float]:
        scores: list[float] = self._call(index).get(timeout=PATIENCE_S)
        return scores

    def open_loop(self, arrivals_s: list[float]) -> list[float]:
        """Between arrivals, listen for the messages by which the Redis backend announces results."""
        client = redis.Redis.from_url(os.environ["RIVAL_RESULTS"])
        with client, client.pubsub(ignore_subscribe_messages=True) as announced:
            announced.psubscribe("celery-task-meta-*")
            waiting: dict[bytes, float] = {}
            latencies: list[float] = []
            start = time.perf_counter()
            for index, arrival in enumerate(arrivals_s):
                self._listen(announced, waiting, latencies, until=start + arrival)
                waiting[self._send(index).id.encode()] = start + arrival
            end = time.perf_counter() + PATIENCE_S
            while waiting and time.perf_counter() < end:
                self._listen(announced, waiting, latencies, until=time.perf_counter() + 0.05)
        return latencies

    @staticmethod
    def _listen(announced: Any, waiting: dict[bytes, float], latencies: list[float], until: float) -> None:
        while True:
            # A timeout of 0 only empties what has come already.
            message = announced.get_message(timeout=max(0.0, until - time.perf_counter()))
            now = time.perf_counter()
            if message is not None:
                arrival = waiting.pop(message["channel"].removeprefix(b"celery-task-meta-"), None)
                if arrival is not None:
                    latencies.append(now - arrival)
            elif now >= until:
                return

    def close(self) -> None:
        self._stack.close()
