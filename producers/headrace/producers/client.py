"""The blocking client: submits requests and returns their results."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self, Unpack

from headrace.contracts.errors import BrokerUnavailable, StoreUnavailable
from headrace.contracts.message import queue_name
from headrace.contracts.tensors.codec import Tensors
from headrace.producers.client_base import ClientBase
from headrace.producers.durable.durable_requests import not_sent
from headrace.producers.errors import PartlyKept, PartlySubmitted, SubmissionInterrupted, queue_is_full
from headrace.producers.handle import Handle
from headrace.producers.jobs.job import LISTED, Job
from headrace.producers.jobs.order import Location, ScoreOptions
from headrace.producers.replies.cancellation import cancel
from headrace.producers.replies.finder import Brokers
from headrace.producers.replies.inbox import Inbox
from headrace.producers.requests.factory import Block, SubmitOptions
from headrace.producers.requests.served_signatures import CatalogRefresh
from headrace.producers.transport.call_limit import CallLimit
from headrace.producers.transport.connections import broker_errors, connect_for_calls, connect_for_look
from headrace.producers.transport.serving import SharedLook, is_served
from headrace.queueing.submission import Submitter

if TYPE_CHECKING:
    from headrace.results_store import Prediction
    from headrace.results_store.durable.application import Transaction
    from headrace.results_store.durable.block import DurableBlock


class Client(ClientBase):
    """Submits requests to models and returns their results. One client serves many threads, and survives a fork.

    Connections are made when first needed. Use it as a context manager, or call `close`.
    """

    def _connect(self, inbox: str) -> None:
        silence_s = self._settings.broker_timeout_s
        self._broker = connect_for_calls(self._url, self._prefix, silence_s)
        self._looks = connect_for_look(self._url, self._prefix)
        self._submitter = Submitter(self._broker)
        self._call_limit = CallLimit()
        self._served = SharedLook(lambda model: is_served(self._url, model, self._prefix))
        brokers = Brokers(self._broker, self._looks)
        self._inbox: Inbox = Inbox(self._url, inbox, self._rows, brokers, self._settings.lease_s, silence_s)
        self._refresh = CatalogRefresh(self._looks, self._factory.catalog)

    def submit(  # noqa: PLR0913 — each is given by its name
        self,
        model: str,
        inputs: Mapping[str, object],
        *,
        priority: int = 0,
        deadline_s: float | None = None,
        version: str = "",
        request_id: str | None = None,
        durable: bool = False,
        connection: Transaction | None = None,
    ) -> Handle:
        """Submit one request and return at once.

        inputs: name → array with the model's datatype, in the model's own layout; or nested lists, which are converted.
        All rows go in one request. priority: 0 (default) to 9 (most urgent). deadline_s: the model won't start later
        than this many seconds from now. version: of the model; "" is the newest. request_id: any string of at most 255
        characters; a request submitted twice under one id has one effect. durable: Postgres keeps the request until it
        has ended, and it is sent again if the broker loses it. connection: of the application, to the same database;
        the request is durable and part of its transaction: sent once that is committed, never if it is rolled back.

        Raises InvalidRequest (UnknownModel, SignatureMismatch, PayloadTooLarge) before anything is sent, QueueFull,
        BrokerUnavailable; for a durable one StoreUnavailable and ConfigurationError in their place.
        """
        self._refresh(model)
        options = SubmitOptions(priority, deadline_s, version)
        block = self._factory.one(model, inputs, options, request_id)
        known = None if request_id is None else self._inbox.find(request_id, model)
        handle = known if isinstance(known, Handle) else Handle(self, block.ids[0], model)
        if durable or connection is not None:
            self._keep([handle], model, [block], options, connection)
        elif not self._send(model, block, [handle], options):
            raise queue_is_full(model, self._settings.queue_limit, block.ids[0])
        return handle

    def submit_many(  # noqa: PLR0913 — each is given by its name
        self,
        model: str,
        inputs: Mapping[str, object],
        *,
        priority: int = 0,
        deadline_s: float | None = None,
        version: str = "",
        durable: bool = False,
        connection: Transaction | None = None,
    ) -> list[Handle]:
        """Submit each row as a request of its own, in order, many in one round trip.

        Each input is cut where the model's signature says that its rows are; what has none goes with every request.
        Without the model directory here, first dimensions are rows, which must be equal, and values without dimensions
        go with every request.

        Like `submit` otherwise. When the queue's limit is reached on the way, PartlySubmitted (a QueueFull) is raised;
        its `handles` are those of the first rows, which were accepted. So are those of SubmissionInterrupted (a
        BrokerUnavailable) when the broker is lost on the way, and of PartlyKept (a StoreUnavailable) when Postgres is
        lost while it takes durable ones. Durable requests may be more than the limit: those wait in Postgres.
        """
        self._refresh(model)
        options = SubmitOptions(priority, deadline_s, version)
        blocks = self._factory.per_row(model, inputs, options)
        if durable or connection is not None:
            return self._keep([], model, blocks, options, connection)
        handles: list[Handle] = []
        for block in blocks:
            new = [Handle(self, request_id, model) for request_id in block.ids]
            try:
                accepted = self._send(model, block, new, options)
            except BrokerUnavailable as exc:
                raise SubmissionInterrupted(exc, handles) from exc
            handles += new[:accepted]
            if accepted < len(new):
                raise PartlySubmitted(model, self._settings.queue_limit, handles)
        return handles

    def _keep(
        self,
        known: Iterable[Handle],
        model: str,
        blocks: Iterable[Block],
        options: SubmitOptions,
        within: Transaction | None,
    ) -> list[Handle]:
        """Make rows of durable requests, and send them unless they are part of an application's transaction.

        While Postgres commits one block, the one before is sent. known: handles to use again.
        """
        self._check_open()
        handles: list[Handle] = []
        again = {handle.id: handle for handle in known}
        committed: DurableBlock | None = None
        try:
            for block in self._durable.blocks(model, options.priority, blocks):
                if within is not None:
                    self._durable.insert_within(within, block)
                    handles += self._expect_kept(block, model, options, again)
                else:
                    with self._durable.inserting(block):
                        new = self._expect_kept(block, model, options, again)
                        sending, committed = committed, None
                        self._send_kept(sending)
                    committed = block
                    handles += new
        except StoreUnavailable as exc:
            if not handles:
                raise
            raise PartlyKept(exc, handles) from exc
        finally:
            self._send_kept(committed)
        return handles

    def _expect_kept(
        self, block: DurableBlock, model: str, options: SubmitOptions, again: Mapping[str, Handle]
    ) -> list[Handle]:
        handles = [again.get(each) or Handle(self, each, model) for each in block.ids]
        self._inbox.expect(handles, options.deadline_s, block.id)
        return handles

    def _send_kept(self, block: DurableBlock | None) -> None:
        """Send a block that is committed; what can't be sent now, a relay sends."""
        if block is None:
            return
        limit = self._settings.queue_limit
        try:
            with self._call_limit, broker_errors():
                sent = self._submitter.submit(block.queue, block.priority, block.messages, limit)
        except BrokerUnavailable as exc:
            not_sent(block, exc)
        else:
            self._durable.sent(block, sent)

    def _send(self, model: str, block: Block, handles: Sequence[Handle], options: SubmitOptions) -> int:
        self._check_open()
        inbox = self._inbox
        standing = inbox.expect(handles, options.deadline_s)
        with self._call_limit, broker_errors():
            accepted = self._submitter.submit(
                queue_name(model), options.priority, block.messages, self._settings.queue_limit
            )
        inbox.sent(handles, standing)
        inbox.tidy()
        return accepted

    def predict(  # noqa: PLR0913 — each is given by its name
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
        """Submit one request and wait for its outputs; see `submit` and `Handle.result`."""
        handle = self.submit(model, inputs, priority=priority, deadline_s=deadline_s, version=version, durable=durable)
        return handle.result(timeout_s)

    def score(
        self,
        model: str,
        inputs: Location | Sequence[Location],
        output: Location = "",
        **options: Unpack[ScoreOptions],
    ) -> Job:
        """Score all rows of files with a model, on any number of workers, and return at once.

        inputs: files, folders, globs, URIs, or `sql:QUERY` on the store's database; workers read them themselves.
        output: a folder, a URI of one, or "store" for rows of `predictions`; "" is a folder here, named after the first
        input and the model. options: see `ScoreOptions`. The same call again returns the same job, and goes on with it
        if it is paused, failed or cancelled: only what is missing runs.

        Raises InvalidRequest (UnknownModel, SignatureMismatch); JobMoved if the job is there and was begun with another
        version or package; ConfigurationError without a database, BrokerUnavailable, StoreUnavailable.
        """
        return Job(self._desk, *self._desk.score(model, inputs, output, options))

    def job(self, reference: str) -> Job:
        """Return a bulk job by its id, a unique beginning of it, or its name. Raises NoSuchJob."""
        return Job(self._desk, self._desk.find(reference))

    def jobs(self, limit: int = LISTED) -> list[Job]:
        """Return the bulk jobs, the newest first."""
        return [Job(self._desk, one.job) for one in self._desk.newest(limit)]

    def get(self, request_id: str) -> Prediction | None:
        """Read a request's row, whoever submitted it; None while it has not ended.

        Raises ConfigurationError when no database is configured, StoreUnavailable.
        """
        return self._rows.get(request_id)

    def wait(self, handle: Handle, timeout_s: float | None) -> None:
        """Wait until a handle has its reply or the time is up; `Handle.result` calls it."""
        self._inbox.wait(handle, timeout_s)

    def is_served(self, model: str) -> bool:
        """Return whether a worker takes the requests to a model at present; `Handle.result` asks when its time is up.

        A worker that was killed counts until its lease ends; True also when the broker doesn't answer in a second, or
        just said nothing.
        """
        return self._inbox.silent or self._served(model)

    def where_served(self, model: str) -> str:
        """Return a phrase on where a model is served that is not served here; `Handle.result` asks when it isn't."""
        return self._where(model)

    def problem_of(self, model: str) -> str:
        """Return why the workers of a model get no answers of it at present, as when its model server is misconfigured.

        "" if they report nothing. `Handle.result` asks when its time is up.
        """
        return self._problem(model)

    def explain(self, handle: Handle) -> str:
        """Return why a durable request was not sent yet, "" for others; `Handle.result` asks when its time is up."""
        return self._durable.explain(handle)

    def poll(self, handle: Handle) -> None:
        """Take the replies that have arrived; `Handle.done` calls it."""
        self._inbox.poll(handle)

    def look_up(self, handle: Handle) -> None:
        """Look for a handle's row, unless that was done just now; `Handle.status` calls it."""
        if self._inbox.may_look_up(handle):
            replies = self._rows.replies([handle.id])
            self._inbox.settle(handle, replies)
            if not replies:
                self._inbox.take_kept([handle.id])
        self._inbox.check(handle)

    def cancel(self, handle: Handle) -> bool:
        """Cancel a request; `Handle.cancel` calls it."""
        with self._call_limit:
            won, replies = cancel(self._rows, self._url, self._prefix, handle)
        self._inbox.settle(handle, replies)
        return won

    def close(self) -> None:
        """Stop waiting for replies and close all connections; requests on the queue go on. May be called again."""
        self._inbox.close()
        self._broker.close()
        self._looks.close()
        self._rows.close()
        self._desk.close()

    def __enter__(self) -> Self:
        """Return the client itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the client."""
        self.close()
