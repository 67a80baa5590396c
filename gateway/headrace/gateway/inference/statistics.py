"""Sums over the rows of models since the gateway began; each look at the store adds what is new."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Collection
from typing import TYPE_CHECKING, Final

from headrace.contracts.errors import StoreUnavailable
from headrace.contracts.states import State
from headrace.gateway.inference.failure import failure_of
from headrace.gateway.oip.statistics import Sum

if TYPE_CHECKING:
    from headrace.results_store import StoreReader
    from headrace.results_store.reading.traffic import Traffic

#: Rows are stored a moment after their batch has ended; those that come later still are never counted.
_SETTLED: Final = dt.timedelta(seconds=1)


class Statistics:
    """Counts requests and batches of every version of a model; belongs to one event loop."""

    def __init__(self, rows: StoreReader) -> None:
        """rows: blocks, and is asked in threads."""
        self._rows = rows
        self._began = dt.datetime.now(dt.UTC)
        self._until: dict[str, dt.datetime] = {}
        self._sums: dict[tuple[str, str], dict[tuple[bool, int], Sum]] = {}
        self._last: dict[tuple[str, str], dt.datetime] = {}
        self._lock = asyncio.Lock()

    async def update(self, models: Collection[str]) -> None:
        """Count what has ended since the last call. Raises Failure."""
        async with self._lock:
            until = dt.datetime.now(dt.UTC) - _SETTLED
            since = {self._until.get(model, self._began) for model in models}
            for start in since:
                group = [model for model in models if self._until.get(model, self._began) == start]
                if start < until:
                    await self._count(group, start, until)

    def sums(self, model: str, version: str) -> list[Sum]:
        """Return the sums of a version of a model."""
        return list(self._sums.get((model, version), {}).values())

    def last_ms(self, model: str, version: str) -> int:
        """Return when the last request ended, in milliseconds since 1970; 0 for none."""
        last = self._last.get((model, version))
        return 0 if last is None else int(last.timestamp() * 1000)

    async def _count(self, models: list[str], since: dt.datetime, until: dt.datetime) -> None:
        try:
            found = await asyncio.to_thread(self._rows.traffic, models, since, until)
        except StoreUnavailable as exc:
            raise failure_of(exc) from exc
        for each in found:
            self._add(each)
        self._until |= dict.fromkeys(models, until)

    def _add(self, found: Traffic) -> None:
        if found.state == State.CANCELLED:
            return
        key, part = (found.model, found.version), (found.state == State.SUCCEEDED, found.batch_rows)
        before = self._sums.setdefault(key, {}).get(part, Sum(*part, 0, 0, 0.0, 0.0))
        self._sums[key][part] = Sum(
            *part,
            before.requests + found.requests,
            before.batches + found.batches,
            before.queued_s + found.queued_s,
            before.ran_s + found.ran_s,
        )
        self._last[key] = max(found.newest, self._last.get(key, found.newest))
