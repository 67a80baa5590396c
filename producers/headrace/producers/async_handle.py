"""Handles of submitted requests for asyncio."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from headrace.contracts.states import State
from headrace.contracts.tensors.codec import Tensors
from headrace.producers.handle import check_waits_on, timed_out
from headrace.producers.replies.outcome import outputs_of, reads_store
from headrace.producers.replies.pending import Waiting
from headrace.producers.requests.factory import check_timeout

if TYPE_CHECKING:
    from headrace.results_store import Prediction


class AsyncHandleClient(Protocol):
    """The members of a client that its handles call; `AsyncClient` documents them."""

    @property
    def closed(self) -> bool: ...  # noqa: D102
    async def wait(self, handle: AsyncHandle, timeout_s: float | None) -> None: ...  # noqa: D102
    def ask(self, handle: AsyncHandle) -> None: ...  # noqa: D102
    async def look_up(self, handle: AsyncHandle) -> None: ...  # noqa: D102
    async def cancel(self, handle: AsyncHandle) -> bool: ...  # noqa: D102
    async def explain(self, handle: AsyncHandle) -> str: ...  # noqa: D102
    async def is_served(self, model: str) -> bool: ...  # noqa: D102
    async def where_served(self, model: str) -> str: ...  # noqa: D102
    async def problem_of(self, model: str) -> str: ...  # noqa: D102
    def read_row(self, request_id: str) -> Prediction | None: ...  # noqa: D102


class AsyncHandle(Waiting):
    """One request: await its result or status, or cancel it. Cancelling a task that awaits it keeps the request."""

    __slots__ = ("_client",)

    def __init__(self, client: AsyncHandleClient, request_id: str, model: str) -> None:
        """Made by `AsyncClient.submit`."""
        super().__init__(request_id, model)
        self._client = client

    async def result(self, timeout_s: float | None = None) -> Tensors:
        """Wait for the outputs; see `Handle.result`."""
        check_timeout(timeout_s)
        if self.reply is None:
            await self._client.wait(self, timeout_s)
        if self.reply is None:
            check_waits_on(self, closed=self._client.closed)
            unsent = await self._client.explain(self) if timeout_s else ""
            served = bool(unsent) or not timeout_s or await self._client.is_served(self.model)
            where = "" if served else await self._client.where_served(self.model)
            problem = await self._client.problem_of(self.model) if served and timeout_s and not unsent else ""
            raise timed_out(self, timeout_s, served=served, where=where, unsent=unsent, problem=problem)
        if reads_store(self.reply):
            return await asyncio.to_thread(outputs_of, self.reply, self._client.read_row)
        return outputs_of(self.reply, self._client.read_row)

    def done(self) -> bool:
        """Return whether the request is known to have ended, well or not, or to be lost; see `Handle.done`."""
        if not self.ended:
            self._client.ask(self)
        return self.ended

    async def status(self) -> str:
        """Return "pending", or how the request ended; see `Handle.status`."""
        if self.reply is None:
            await self._client.look_up(self)
        return self.known_status

    async def cancel(self) -> bool:
        """Cancel the request; see `Handle.cancel`."""
        if self.reply is not None:
            return self.reply.state == State.CANCELLED
        return await self._client.cancel(self)
