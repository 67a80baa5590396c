"""The asyncio twin of `Job`: the same calls in threads."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from typing import TYPE_CHECKING

from headrace.contracts.jobs import DryRun
from headrace.producers.jobs.job import ERRORS, WATCH_S, JobBase, check_end, has_ended, not_in_time

if TYPE_CHECKING:
    from headrace.results_store.jobs.progress import Progress
    from headrace.results_store.jobs.records import JobError


class AsyncJob(JobBase):
    """A bulk job: `AsyncClient.score` returns it; see `Job`."""

    async def status(self) -> str:
        """Return the state; see `Job.status`."""
        return (await self.progress()).job.state

    async def progress(self) -> Progress:
        """Read how far the job is."""
        return await asyncio.to_thread(self._read)

    async def watch(self, every_s: float = WATCH_S) -> AsyncIterator[Progress]:
        """Yield the progress now and then, the last time when the job has ended."""
        while True:
            progress = await self.progress()
            yield progress
            if has_ended(progress):
                return
            await asyncio.sleep(every_s)

    async def wait(self, timeout_s: float | None = None) -> Progress:
        """Wait until the job has succeeded; see `Job.wait`."""
        until = None if timeout_s is None else time.monotonic() + timeout_s
        async for progress in self.watch():
            if not has_ended(progress) and until is not None and time.monotonic() >= until:
                raise not_in_time(progress, timeout_s or 0.0, await self.problem())
        return check_end(progress)

    async def is_served(self) -> bool:
        """Return whether a worker takes bulk jobs of this model at present; see `Job.is_served`."""
        return await asyncio.to_thread(self._desk.is_served, self.model)

    async def problem(self) -> str:
        """Return why the workers get no answers of this model at present; see `Job.problem`."""
        return await asyncio.to_thread(self._desk.problem_of, self.model)

    async def pause(self) -> None:
        """Start no further shards; see `Job.pause`."""
        await asyncio.to_thread(self._desk.pause, self._row)

    async def resume(self) -> None:
        """Go on with what is missing; see `Job.resume`."""
        await asyncio.to_thread(self._desk.resume, self._row)

    async def cancel(self) -> None:
        """Stop the job; what is done is kept."""
        await asyncio.to_thread(self._desk.cancel, self._row)

    async def retry(self) -> int:
        """Run the bad rows once more; see `Job.retry`."""
        return await asyncio.to_thread(self._desk.retry, self._row)

    async def errors(self, limit: int = ERRORS) -> list[JobError]:
        """Return bad rows in the order of the input."""
        return await asyncio.to_thread(self._desk.errors, self.uuid, limit)

    async def files(self, numbers: Iterable[int]) -> dict[int, str]:
        """Return the URIs of input files by their numbers; see `Job.files`."""
        return await asyncio.to_thread(self._desk.files, self.uuid, numbers)

    async def sample(self) -> DryRun | None:
        """Return what a dry run found; see `Job.sample`."""
        return await asyncio.to_thread(self._desk.sample, self.uuid)
