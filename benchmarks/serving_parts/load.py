"""Load on a model server, straight and through headrace. Every request holds one row unless it says otherwise."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from headrace.producers import Client
from headrace.runtimes.remote.base import Connection

#: Ends what hangs.
TIMEOUT_S: Final = 120.0

ROW_ELEMENTS: Final = 256

Call = Callable[[NDArray[np.float32]], object]


def rows(count: int) -> NDArray[np.float32]:
    """Return inputs of `dense`."""
    return np.random.default_rng(count).random((count, ROW_ELEMENTS), np.float32)


def straight(connection: Connection) -> Call:
    """Return a call to the server itself."""
    return lambda x: connection.infer({"x": x}, ["y"], TIMEOUT_S)


def through(client: Client, model: str) -> Call:
    """Return a call through headrace; its row is committed when it returns."""
    return lambda x: client.submit(model, {"x": x}).result(timeout_s=TIMEOUT_S)


def rows_per_s(call: Call, batch_rows: int, callers: int, seconds: float) -> float:
    """Have callers call one after the other for so long, each in a thread; return the rows that were answered."""
    x = rows(batch_rows)
    ends_at = time.monotonic() + seconds
    answered = [0] * callers
    began = time.monotonic()

    def run(caller: int) -> None:
        while time.monotonic() < ends_at:
            call(x)
            answered[caller] += batch_rows

    threads = [threading.Thread(target=run, args=(caller,)) for caller in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(answered) / (time.monotonic() - began)


def pipelined_rows_per_s(client: Client, model: str, requests: int) -> float:
    """Submit all requests at once; return the rows a second up to the last answer, when all rows are committed."""
    x = rows(requests)
    began = time.monotonic()
    handles = client.submit_many(model, {"x": x})
    for handle in handles:
        handle.result(timeout_s=TIMEOUT_S)
    return requests / (time.monotonic() - began)


def latencies_s(call: Call, count: int) -> list[float]:
    """Return how long calls of one row take, one after the other."""
    x = rows(1)
    found = []
    for _ in range(count):
        began = time.perf_counter()
        call(x)
        found.append(time.perf_counter() - began)
    return found
