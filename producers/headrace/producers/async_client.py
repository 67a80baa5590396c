"""The asyncio client: submits requests and returns their results."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self, Unpack

from headrace.contracts.errors import BrokerUnavailable, InvalidRequest, StoreUnavailable
from headrace.contracts.message import queue_name
from headrace.contracts.tensors.codec import Tensors
from headrace.producers.async_handle import AsyncHandle
from headrace.producers.client_base import ClientBase
from headrace.producers.durable.async_keeper import AsyncKeeper
from headrace.producers.errors import PartlyKept, PartlySubmitted, SubmissionInterrupted, queue_is_full
from headrace.producers.jobs.async_job import AsyncJob
from headrace.producers.jobs.job import LISTED
from headrace.producers.jobs.order import Location, ScoreOptions
from headrace.producers.replies.async_inbox import AsyncInbox
from headrace.producers.replies.cancellation import cancel
from headrace.producers.replies.finder import Brokers
from headrace.producers.replies.pending import NOT_KEPT_YET
from headrace.producers.requests.factory import Block, SubmitOptions
from headrace.producers.requests.served_signatures import AsyncCatalogRefresh
from headrace.producers.transport.async_sender import AsyncSender
from headrace.producers.transport.connections import connect_for_calls_async, connect_for_look_async
from headrace.producers.transport.serving import AsyncSharedLook, is_served_async
from headrace.queueing.submission import AsyncSubmitter

if TYPE_CHECKING:
    from headrace.results_store import Prediction
    from headrace.results_store.durable.application import AsyncTransaction


class AsyncClient(ClientBase):
    """The asyncio twin of `Client`. One client serves many tasks of one event loop.

    Connections are made when first needed. Use it as an async context manager, or await `close`. It may be made outside
    of an event loop.
    """

    def _connect(self, inbox: str) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        silence_s = self._settings.broker_timeout_s
        self._broker = connect_for_calls_async(self._url, self._prefix, silence_s)
        self._looks = connect_for_look_async(self._url, self._prefix)
        self._sender = AsyncSender(AsyncSubmitter(self._broker), self._settings.queue_limit)
        self._keeper = AsyncKeeper(self._durable, self._sender)
        self._served = AsyncSharedLook(lambda model: is_served_async(self._url, model, self._prefix))
        brokers = Brokers(self._broker, self._looks)
        self._inbox: AsyncInbox = AsyncInbox(self._url, inbox, self._rows, brokers, self._settings.lease_s, silence_s)
        self._refresh = AsyncCatalogRefresh(self._looks, self._factory.catalog)

    def _bind(self) -> None:
        """Keep to the event loop of the first use; connections can't leave it."""
        loop = asyncio.get_running_loop()
        if self._loop is loop:
            return
        if self._loop is not None:
            if not self._loop.is_closed():
                raise InvalidRequest("an AsyncClient belongs to the event loop of its first use; make one for each")
            self.renew()
        self._loop = loop

    async def submit(  # noqa: PLR0913 — each is given by its name
        self,
        model: str,
        inputs: Mapping[str, object],
        *,
        priority: int = 0,
        deadline_s: float | None = None,
        version: str = "",
        request_id: str | None = None,
        durable: bool = False,
        connection: AsyncTransaction | None = None,
    ) -> AsyncHandle:
        """Submit one request; see `Client.submit`."""
        self._bind()
        await self._refresh(model)
        options = SubmitOptions(priority, deadline_s, version)
        block = self._factory.one(model, inputs, options, request_id)
        known = None if request_id is None else self._inbox.find(request_id, model)
        handle = known if isinstance(known, AsyncHandle) else AsyncHandle(self, block.ids[0], model)
        if durable or connection is not None:
            await self._keep(model, block, [handle], options, connection)
        elif not await self._send(model, block, [handle], options):
            raise queue_is_full(model, self._settings.queue_limit, handle.id)
        return handle

    async def submit_many(  # noqa: PLR0913 — each is given by its name
        self,
        model: str,
        inputs: Mapping[str, object],
        *,
        priority: int = 0,
        deadline_s: float | None = None,
        version: str = "",
        durable: bool = False,
        connection: AsyncTransaction | None = None,
    ) -> list[AsyncHandle]:
        """Submit each row as a request of its own; see `Client.submit_many`."""
        self._bind()
        await self._refresh(model)
        handles: list[AsyncHandle] = []
        options = SubmitOptions(priority, deadline_s, version)
        for block in self._factory.per_row(model, inputs, options):
            new = [AsyncHandle(self, request_id, model) for request_id in block.ids]
            try:
                if durable or connection is not None:
                    accepted = await self._keep(model, block, new, options, connection)
                else:
                    accepted = await self._send(model, block, new, options)
            except BrokerUnavailable as exc:
                raise SubmissionInterrupted(exc, handles) from exc
            except StoreUnavailable as exc:
                raise PartlyKept(exc, handles) from exc
            handles += new[:accepted]
            if accepted < len(new):
                raise PartlySubmitted(model, self._settings.queue_limit, handles)
        return handles

    async def _keep(
        self,
        model: str,
        block: Block,
        handles: Sequence[AsyncHandle],
        options: SubmitOptions,
        connection: AsyncTransaction | None,
    ) -> int:
        """Make rows of durable requests, and send them unless they are part of an application's transaction."""
        self._check_open()
        if connection is None:
            await self._inbox.expect(handles, options.deadline_s, NOT_KEPT_YET)
            self._inbox.kept(handles, await self._keeper.submit(model, options.priority, block))
            return len(handles)
        at = 0
        for kept in self._durable.blocks(model, options.priority, [block]):
            mine = handles[at : at + len(kept.ids)]
            at += len(mine)
            await self._inbox.expect(mine, options.deadline_s, kept.id)
            await self._durable.insert_within_async(connection, kept)
        return at

    async def _send(self, model: str, block: Block, handles: Sequence[AsyncHandle], options: SubmitOptions) -> int:
        self._check_open()
        standing = await self._inbox.expect(handles, options.deadline_s)
        accepted = await self._sender.submit(queue_name(model), options.priority, block.messages)
        self._inbox.sent(handles, standing)
        return accepted

    async def predict(  # noqa: PLR0913 — each is given by its name
        self,
        model: str,
        inputs: Mapping[str, object],
        *,
        timeout_s: float | None = 30.0,
        priority: int = 0,
        deadline_s: float | None = None,
        version: str = "",
        durable: bool = False,
    ) -> Tensors:
        """Submit one request and wait for its outputs; see `Client.predict`."""
        handle = await self.submit(
            model, inputs, priority=priority, deadline_s=deadline_s, version=version, durable=durable
        )
        return await handle.result(timeout_s)

    async def score(
        self,
        model: str,
        inputs: Location | Sequence[Location],
        output: Location = "",
        **options: Unpack[ScoreOptions],
    ) -> AsyncJob:
        """Score all rows of files with a model; see `Client.score`."""
        return AsyncJob(self._desk, *await asyncio.to_thread(self._desk.score, model, inputs, output, options))

    async def job(self, reference: str) -> AsyncJob:
        """Return a bulk job; see `Client.job`."""
        return AsyncJob(self._desk, await asyncio.to_thread(self._desk.find, reference))

    async def jobs(self, limit: int = LISTED) -> list[AsyncJob]:
        """Return the bulk jobs, the newest first."""
        return [AsyncJob(self._desk, one.job) for one in await asyncio.to_thread(self._desk.newest, limit)]

    async def get(self, request_id: str) -> Prediction | None:
        """Read a request's row, whoever submitted it; see `Client.get`."""
        return await asyncio.to_thread(self._rows.get, request_id)

    def read_row(self, request_id: str) -> Prediction | None:
        """Read a row, blocking; `AsyncHandle.result` calls it in a thread."""
        return self._rows.get(request_id)

    async def wait(self, handle: AsyncHandle, timeout_s: float | None) -> None:
        """Wait until a handle has its reply or the time is up; `AsyncHandle.result` calls it."""
        self._bind()
        await self._inbox.wait(handle, timeout_s)

    async def is_served(self, model: str) -> bool:
        """Return whether a worker takes the requests to a model at present; see `Client.is_served`."""
        return await self._served(model)

    async def where_served(self, model: str) -> str:
        """Return a phrase on where a model is served that is not served here; see `Client.where_served`."""
        return await asyncio.to_thread(self._where, model)

    async def problem_of(self, model: str) -> str:
        """Return why the workers of a model get no answers of it at present; see `Client.problem_of`."""
        return await asyncio.to_thread(self._problem, model)

    async def explain(self, handle: AsyncHandle) -> str:
        """Return why a durable request was not sent yet; see `Client.explain`."""
        return await asyncio.to_thread(self._durable.explain, handle)

    def ask(self, handle: AsyncHandle) -> None:
        """Have a handle's row looked for now and then; `AsyncHandle.done` calls it, also outside of the event loop."""
        if self._loop is not None and self._loop.is_running():
            self._inbox.ask(handle)

    async def look_up(self, handle: AsyncHandle) -> None:
        """Look for a handle's row, unless that was done just now; `AsyncHandle.status` calls it."""
        if self._inbox.may_look_up(handle):
            replies = await asyncio.to_thread(self._rows.replies, [handle.id])
            self._inbox.settle(handle, replies)
            if not replies:
                await self._inbox.take_kept([handle.id])
        await self._inbox.check(handle)

    async def cancel(self, handle: AsyncHandle) -> bool:
        """Cancel a request; `AsyncHandle.cancel` calls it."""
        won, replies = await asyncio.to_thread(cancel, self._rows, self._url, self._prefix, handle)
        self._inbox.settle(handle, replies)
        return won

    async def close(self) -> None:
        """Stop waiting for replies and close all connections; requests on the queue go on. May be called again."""
        await self._inbox.close()
        await self._keeper.close()
        await self._sender.close()
        await self._broker.aclose()
        await self._looks.aclose()
        await asyncio.to_thread(self._rows.close)
        await asyncio.to_thread(self._desk.close)

    async def __aenter__(self) -> Self:
        """Return the client itself."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the client."""
        await self.close()
