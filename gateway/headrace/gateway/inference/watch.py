"""Waits for rows: all who wait share one query each time."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Final

from headrace.contracts.errors import ConfigurationError, StoreUnavailable

if TYPE_CHECKING:
    from headrace.results_store import Prediction, StoreReader

#: Between two looks at the store: one query by primary key for all who wait, whatever their number up to _ROWS.
_PERIOD_S: Final = 0.2

#: Most rows of one query.
_ROWS: Final = 1000

_log: Final = logging.getLogger(__name__)


class RowWatch:
    """Looks for the rows of requests that somebody waits for; belongs to one event loop."""

    def __init__(self, rows: StoreReader) -> None:
        """rows: blocks, and is asked in threads."""
        self._rows = rows
        self._waiters: dict[str, list[asyncio.Future[Prediction]]] = {}
        self._task: asyncio.Task[None] | None = None

    async def wait(self, request_id: str, wait_s: float) -> Prediction | None:
        """Return the row of a request once there is one, None when the time is up."""
        future: asyncio.Future[Prediction] = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(request_id, []).append(future)
        if self._task is None:
            self._task = asyncio.create_task(self._look_on(), name="headrace-gateway-rows")
        try:
            async with asyncio.timeout(wait_s):
                return await future
        except TimeoutError:
            return None
        finally:
            self._leave(request_id, future)

    def _leave(self, request_id: str, future: asyncio.Future[Prediction]) -> None:
        waiters = self._waiters.get(request_id)
        if waiters and future in waiters:
            waiters.remove(future)
            if not waiters:
                del self._waiters[request_id]

    def end_waits(self) -> None:
        """Have all waiters return None."""
        for waiters in self._waiters.values():
            for future in waiters:
                if not future.done():
                    future.set_exception(TimeoutError())

    async def close(self) -> None:
        """Stop looking."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _look_on(self) -> None:
        try:
            while self._waiters:
                await asyncio.sleep(_PERIOD_S)
                ids = list(self._waiters)
                for at in range(0, len(ids), _ROWS):
                    await self._look(ids[at : at + _ROWS])
        finally:
            self._task = None

    async def _look(self, ids: list[str]) -> None:
        try:
            found = await asyncio.to_thread(self._rows.get_many, ids)
        except (StoreUnavailable, ConfigurationError) as exc:
            _log.warning("lookup_failed requests=%d error=%r", len(ids), exc.message)
            return
        for request_id, row in found.items():
            for future in self._waiters.pop(request_id, ()):
                if not future.done():
                    future.set_result(row)
