"""headrace's client, as an application would use it."""

from __future__ import annotations

import os
import queue
import threading
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.producers import Client
from online_parts.agent import SAMPLE_EVERY
from online_parts.models import CNN, MLP

#: Requests given to one `submit_many`.
CHUNK = 1024

#: A waiter that gets no result for this long has found a bug, not a slow run.
PATIENCE_S = 60.0


class HeadraceLoad:
    """Submits through `Client`."""

    def __init__(self) -> None:
        self._model = {model.name: model for model in (MLP, CNN)}[os.environ["BENCH_MODEL"]]
        self._rows = self._model.rows()
        self._client = Client()

    def _take(self, first: int, count: int) -> dict[str, NDArray[np.float32]]:
        return {self._model.input: self._rows.take(range(first, first + count), axis=0, mode="wrap")}

    def submit(self, first: int, count: int) -> list[tuple[int, str]]:
        sample = []
        for start in range(first, first + count, CHUNK):
            size = min(CHUNK, first + count - start)
            handles = self._client.submit_many(self._model.name, self._take(start, size))
            sample += [(start + at, handles[at].id) for at in range(size) if (start + at) % SAMPLE_EVERY == 0]
        return sample

    def ask(self, index: int) -> list[float]:
        handle = self._client.submit(self._model.name, self._take(index, 1))
        scores: list[float] = handle.result(timeout_s=PATIENCE_S)["scores"][0].tolist()
        return scores

    def open_loop(self, arrivals_s: list[float]) -> list[float]:
        """All requests that are due leave together, as a server's tick would; a second thread awaits the results."""
        waiting: queue.SimpleQueue[tuple[float, Any] | None] = queue.SimpleQueue()
        latencies: list[float] = []
        waiter = threading.Thread(target=_await_all, args=(waiting, latencies))
        waiter.start()
        start, at = time.perf_counter(), 0
        while at < len(arrivals_s):
            time.sleep(max(0.0, start + arrivals_s[at] - time.perf_counter()))
            now, first = time.perf_counter() - start, at
            while at < len(arrivals_s) and arrivals_s[at] <= now:
                at += 1
            handles = self._client.submit_many(self._model.name, self._take(first, at - first)) if at > first else []
            for arrival, handle in zip(arrivals_s[first:at], handles, strict=True):
                waiting.put((start + arrival, handle))
        waiting.put(None)
        waiter.join()
        return latencies

    def close(self) -> None:
        self._client.close()


def _await_all(waiting: queue.SimpleQueue[tuple[float, Any] | None], latencies: list[float]) -> None:
    """Results come in the order of arrival, batch by batch, so waiting in that order delays none of note."""
    while (item := waiting.get()) is not None:
        arrival, handle = item
        handle.result(timeout_s=PATIENCE_S)
        latencies.append(time.perf_counter() - arrival)
