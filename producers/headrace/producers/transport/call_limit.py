"""A limit on the threads of one client that call the broker at the same time."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Final

from headrace.contracts.errors import BrokerUnavailable

#: Calls at a time, each over a connection of its own: more threads than this gain nothing from one interpreter, and
#: each connection costs the server memory.
CALLS: Final = 32

#: A turn comes within milliseconds unless the broker is silent; then calls end by their own time-outs, and the thread
#: that waits behind them for this long learns what they do.
WAIT_S: Final = 30.0


class CallLimit:
    """A context in which at most CALLS threads are at a time."""

    def __init__(self, calls: int = CALLS, wait_s: float = WAIT_S) -> None:
        """calls: threads at a time. wait_s: longest wait for a turn."""
        self._free = threading.Semaphore(calls)
        self._calls = calls
        self._wait_s = wait_s

    def __enter__(self) -> None:
        """Wait for a turn. Raises BrokerUnavailable when none came in time."""
        if not self._free.acquire(timeout=self._wait_s):
            raise BrokerUnavailable(
                f"Redis or Valkey is slow or silent: {self._calls} calls of this client have not ended and no "
                f"connection was free within {self._wait_s:g} s; check that the server runs, or use fewer threads"
            )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let the next one in."""
        self._free.release()
