"""The keeper: a thread that asks endpoints which were away, or had another model, whether they are back."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Final

from headrace.runtimes.remote.endpoints.endpoint import MISCONFIGURED_S, Endpoint

#: While an endpoint is away, its pause is looked at so often; a look costs microseconds.
LOOK_S: Final = 0.05

#: While all are up, nothing is to do; an endpoint that fails wakes the thread.
IDLE_S: Final = 60.0


class Keeper:
    """Checks the endpoints of one model; `wake` when one has failed."""

    def __init__(self, endpoints: Sequence[Endpoint], lock: threading.Condition) -> None:
        """lock: of their loads."""
        self._endpoints = endpoints
        self._lock = lock
        self._woken = threading.Event()
        self._closed = False
        self._thread: threading.Thread | None = None
        self._compared_at = 0.0

    def wake(self) -> None:
        """Look at the endpoints now; starts the thread, which a fork would lose."""
        if self._thread is None:
            with self._lock:
                if self._thread is None and not self._closed:
                    self._thread = threading.Thread(target=self._loop, name="headrace-endpoints", daemon=True)
                    self._thread.start()
        self._woken.set()

    def close(self) -> None:
        """End the thread, after the check that runs."""
        self._closed = True
        self._woken.set()

    def _loop(self) -> None:
        while not self._closed:
            self._woken.clear()
            away = [endpoint for endpoint in self._endpoints if not endpoint.load.breaker.is_up]
            others = [endpoint for endpoint in self._endpoints if endpoint.load.mismatch]
            now = time.monotonic()
            for endpoint in away:
                with self._lock:
                    due = endpoint.load.breaker.begin_check(now)
                if due and not self._closed:
                    endpoint.check()
            if others and now >= self._compared_at + MISCONFIGURED_S:
                self._compared_at = now
                for endpoint in others:
                    endpoint.compare()
            self._woken.wait(LOOK_S if away or others else IDLE_S)
