"""Request → queue → answer: what every protocol of the gateway does with a request."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any, Final

from headrace.contracts.errors import DeadlineExceeded, HeadraceError
from headrace.gateway.inference.failure import Failure, Kind, failure_of
from headrace.gateway.inference.interruption import Interruptible
from headrace.gateway.inference.models import ServedModels
from headrace.gateway.inference.question import Answer, Question
from headrace.producers import AsyncClient, AsyncHandle

#: How long a request waits before the gateway asks whether any worker serves its model: longer than workers take to
#: follow each other in a rolling restart, shorter than people wait.
_PATIENCE_S: Final = 5.0

#: A worker's verdict on a deadline comes a moment after it.
_VERDICT_S: Final = 1.0

#: Cancellations under way at a time. Each writes a row and tells all workers.
_CANCELLING: Final = 4

#: For cancellations under way when the gateway is closed.
_CLOSING_S: Final = 2.0

_log: Final = logging.getLogger(__name__)


class Inference:
    """Submits requests and waits for their answers; belongs to one event loop."""

    def __init__(self, client: AsyncClient, models: ServedModels) -> None:
        """client: the owner closes it. models: what workers serve."""
        self._client = client
        self._models = models
        self._draining = False
        self._idle = asyncio.Event()
        self._waiting: dict[Interruptible, AsyncHandle] = {}
        self._cancelling = asyncio.Semaphore(_CANCELLING)
        self._cancellations: set[asyncio.Task[Any]] = set()

    @property
    def draining(self) -> bool:
        """Whether new requests are refused."""
        return self._draining

    @property
    def waiting(self) -> list[AsyncHandle]:
        """The requests that wait for their answers."""
        return list(self._waiting.values())

    def drain(self) -> None:
        """Refuse new requests; those that wait go on waiting."""
        self._draining = True

    async def wait_until_idle(self, within_s: float) -> None:
        """Return when no request waits for its answer, or the time is up."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while self._waiting:
                    self._idle.clear()
                    await self._idle.wait()

    def abandon_waiting(self) -> None:
        """End the waits of all requests with Kind.DRAINING; the requests themselves go on."""
        for waiting, handle in list(self._waiting.items()):
            waiting.interrupt(
                Failure(
                    Kind.DRAINING,
                    "the gateway shuts down before the answer came; the request goes on, and its answer will be at "
                    f"/v2/requests/{handle.id}",
                    handle.id,
                )
            )

    async def submit(self, question: Question) -> AsyncHandle:
        """Put a request on its queue. Raises Failure."""
        if self._draining:
            raise Failure(Kind.DRAINING, "the gateway is shutting down; send the request to another one, or again soon")
        try:
            await self._models.check(question.model)
            return await self._client.submit(
                question.model,
                question.inputs,
                priority=question.priority,
                deadline_s=question.deadline_s,
                version=question.version,
            )
        except HeadraceError as exc:
            raise failure_of(exc) from exc

    async def submit_whole(self, question: Question) -> AsyncHandle:
        """As `submit`, for callers that are cancelled: a request that is half on its queue then is cancelled, too."""
        submission = asyncio.create_task(self.submit(question), name="headrace-gateway-submit")
        try:
            return await asyncio.shield(submission)
        except asyncio.CancelledError:
            self._cancellations.add(submission)
            submission.add_done_callback(self._cancel_submitted)
            raise

    def _cancel_submitted(self, submission: asyncio.Task[AsyncHandle]) -> None:
        self._cancellations.discard(submission)
        if not submission.cancelled() and submission.exception() is None:
            self.cancel_later(submission.result())

    async def answer(self, handle: AsyncHandle, question: Question, wait_s: float, waiting: Interruptible) -> Answer:
        """Wait for an answer. waiting: through which the wait is ended from outside. Raises Failure."""
        try:
            self._waiting[waiting] = handle
            async with waiting:
                await self._wait(handle, wait_s)
                outputs = await handle.result(0)
        except DeadlineExceeded as exc:
            raise await self._late(handle, exc.message) from exc
        except HeadraceError as exc:
            raise failure_of(exc, handle.id) from exc
        finally:
            self._no_longer(waiting)
        return Answer(handle.id, outputs, self._models.version_answering(question.model, question.version))

    async def wait(self, handle: AsyncHandle, wait_s: float, waiting: Interruptible) -> bool:
        """Wait for the end of a request, however it ends; return whether it came. waiting: as of `answer`.

        Raises Failure.
        """
        try:
            self._waiting[waiting] = handle
            async with waiting:
                await self._client.wait(handle, wait_s)
        except HeadraceError as exc:
            raise failure_of(exc, handle.id) from exc
        except Failure as exc:
            # Nobody was promised an answer now.
            if exc.kind is not Kind.DRAINING:
                raise
        finally:
            self._no_longer(waiting)
        return handle.ended

    def _no_longer(self, waiting: Interruptible) -> None:
        del self._waiting[waiting]
        if not self._waiting:
            self._idle.set()

    def cancel_later(self, handle: AsyncHandle) -> None:
        """Cancel a request that nobody waits for any more, in the background."""
        task = asyncio.create_task(self._cancel(handle), name="headrace-gateway-cancel")
        self._cancellations.add(task)
        task.add_done_callback(self._cancellations.discard)

    async def close(self) -> None:
        """Wait a moment for the cancellations under way; what is not cancelled then has a deadline all the same."""
        if self._cancellations:
            _, late = await asyncio.wait(self._cancellations, timeout=_CLOSING_S)
            for task in late:
                task.cancel()

    async def _cancel(self, handle: AsyncHandle) -> None:
        async with self._cancelling:
            try:
                await handle.cancel()
            except HeadraceError as exc:
                _log.warning("cancel_failed request=%s error=%r", handle.id, exc.message)

    async def _wait(self, handle: AsyncHandle, wait_s: float) -> None:
        """Wait for the reply; raise Failure when there is none in time, or no worker to make one."""
        first_s = min(_PATIENCE_S, wait_s)
        if await self._ends_within(handle, first_s):
            return
        await self._check_served(handle)
        if await self._ends_within(handle, wait_s - first_s + _VERDICT_S):
            return
        await self._check_served(handle)
        self.cancel_later(handle)
        raise await self._late(
            handle,
            f"no answer came within {wait_s:g} s, and the request is cancelled; allow more time (parameter timeout, "
            "HEADRACE_GATEWAY_WAIT_S), add workers, or ask over HTTP with `Prefer: respond-async`",
        )

    async def _late(self, handle: AsyncHandle, message: str) -> Failure:
        """Return the failure of a request that was not answered in time: what its workers report, if they do."""
        if problem := await self._client.problem_of(handle.model):
            text = f"the workers of model {handle.model!r} report: {problem}"
            return Failure(Kind.MODEL_UNAVAILABLE, text, handle.id)
        return Failure(Kind.DEADLINE, message, handle.id)

    async def _ends_within(self, handle: AsyncHandle, wait_s: float) -> bool:
        await self._client.wait(handle, wait_s)
        return handle.ended

    async def _check_served(self, handle: AsyncHandle) -> None:
        if not await self._client.is_served(handle.model):
            self.cancel_later(handle)
            where = await self._client.where_served(handle.model)
            raise Failure(
                Kind.NO_WORKER,
                f"no worker serves model {handle.model!r} at present{where}; start one with `headrace worker`",
                handle.id,
            )
