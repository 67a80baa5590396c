"""The blocking client: submits requests and gives their results."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from headrace.contracts.errors import BrokerUnavailable, InvalidRequest
from headrace.contracts.message import queue_name
from headrace.contracts.settings import Settings, load_settings
from headrace.contracts.tensors import Tensors
from headrace.producers.broker import broker_errors, connect_for_calls
from headrace.producers.forks import renew_after_fork
from headrace.producers.handle import Handle
from headrace.producers.inbox import Inbox
from headrace.producers.lookup import RowLookup
from headrace.producers.refusal import PartlySubmitted, SubmissionInterrupted, queue_is_full
from headrace.producers.request import Block, Options, RequestFactory
from headrace.producers.revocation import cancel
from headrace.producers.serving import is_served, where_served
from headrace.queueing import keys
from headrace.queueing.submission import Submitter

if TYPE_CHECKING:
    from headrace.results_store import Prediction


class Client:
    """Submits requests to models and gives their results. One client serves many threads, and survives a fork.

    Connections are made when first needed. Use it as a context manager, or call `close`.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        """settings: by default from HEADRACE_* variables, or the running local stack.

        Raises ConfigurationError when there is no broker URL. Without a database URL all works but `get`, `cancel`
        and results too large for a reply.
        """
        self._settings = settings or load_settings()
        self._url = self._settings.require_broker_url()
        self._rows = RowLookup(self._settings)
        self._open()
        renew_after_fork(self)

    def _open(self) -> None:
        self._broker = connect_for_calls(self._url, self._settings.key_prefix)
        self._submitter = Submitter(self._broker)
        inbox = keys.inbox_name(uuid.uuid4().hex)
        self._inbox = Inbox(self._url, keys.keys_of(self._broker).inbox(inbox), self._rows.replies)
        self._factory = RequestFactory(self._settings, inbox)

    def renew(self) -> None:
        """Start afresh in the child after a fork: an inbox and connections of its own."""
        self._rows.renew()
        self._open()

    def submit(
        self,
        model: str,
        inputs: Mapping[str, object],
        *,
        priority: int = 0,
        deadline_s: float | None = None,
        version: str = "",
        request_id: str | None = None,
    ) -> Handle:
        """Submit one request and return at once.

        inputs: name → array with the model's datatype, in the model's own layout; or nested lists, which are converted.
        All rows go in one request. priority: 0 (default) to 9 (most urgent). deadline_s: the model won't start later
        than this many seconds from now. version: of the model; "" is the newest. request_id: any string of at most 255
        characters; a request submitted twice under one id has one effect.

        Raises InvalidRequest (UnknownModel, SignatureMismatch, PayloadTooLarge) before anything is sent, QueueFull,
        BrokerUnavailable.
        """
        block = self._factory.one(model, inputs, Options(priority, deadline_s, version), request_id)
        known = None if request_id is None else self._inbox.find(request_id, model)
        handle = known if isinstance(known, Handle) else Handle(self, block.ids[0], model)
        if not self._send(model, priority, block, [handle]):
            raise queue_is_full(model, self._settings.queue_limit, block.ids[0])
        return handle

    def submit_many(
        self,
        model: str,
        inputs: Mapping[str, object],
        *,
        priority: int = 0,
        deadline_s: float | None = None,
        version: str = "",
    ) -> list[Handle]:
        """Submit each row as a request of its own, in order, many in one round trip.

        Each input is cut where the model's signature says that its rows are; what has none goes with every request.
        Without the model directory here, first dimensions are rows, which must be equal, and values without dimensions
        go with every request.

        Like `submit` otherwise. When the queue's limit is reached on the way, PartlySubmitted (a QueueFull) is raised;
        its `handles` are those of the first rows, which were accepted. So are those of SubmissionInterrupted (a
        BrokerUnavailable) when the broker is lost on the way.
        """
        handles: list[Handle] = []
        for block in self._factory.per_row(model, inputs, Options(priority, deadline_s, version)):
            new = [Handle(self, request_id, model) for request_id in block.ids]
            try:
                accepted = self._send(model, priority, block, new)
            except BrokerUnavailable as exc:
                raise SubmissionInterrupted(exc, handles) from exc
            handles += new[:accepted]
            if accepted < len(new):
                raise PartlySubmitted(model, self._settings.queue_limit, handles)
        return handles

    def _send(self, model: str, priority: int, block: Block, handles: Sequence[Handle]) -> int:
        inbox = self._inbox
        if inbox.closed:
            raise InvalidRequest("the client is closed; make a new one")
        inbox.expect(handles)
        with broker_errors():
            accepted = self._submitter.submit(queue_name(model), priority, block.messages, self._settings.queue_limit)
        inbox.tidy()
        return accepted

    def predict(
        self,
        model: str,
        inputs: Mapping[str, object],
        *,
        timeout_s: float | None = 30.0,
        priority: int = 0,
        deadline_s: float | None = None,
        version: str = "",
    ) -> Tensors:
        """Submit one request and wait for its outputs; see `submit` and `Handle.result`."""
        handle = self.submit(model, inputs, priority=priority, deadline_s=deadline_s, version=version)
        return handle.result(timeout_s)

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

        A worker that was killed counts until its lease ends; True also when the broker doesn't answer in a second.
        """
        return is_served(self._url, model, self._settings.key_prefix)

    def where_served(self, model: str) -> str:
        """Return a phrase on where a model is served that is not served here; `Handle.result` asks when it isn't."""
        return where_served(self._url, model, self._settings.key_prefix)

    def poll(self) -> None:
        """Take the replies that have arrived; `Handle.done` calls it."""
        self._inbox.poll()

    def look_up(self, handle: Handle) -> None:
        """Look for a handle's row; `Handle.status` calls it."""
        self._inbox.settle(handle, self._rows.replies([handle.id]))

    def cancel(self, handle: Handle) -> bool:
        """Cancel a request; `Handle.cancel` calls it."""
        won, replies = cancel(self._rows, self._url, self._settings.key_prefix, handle)
        self._inbox.settle(handle, replies)
        return won

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._inbox.closed

    def close(self) -> None:
        """Stop waiting for replies and close all connections; requests on the queue go on. May be called again."""
        self._inbox.close()
        self._broker.close()
        self._rows.close()

    def __enter__(self) -> Self:
        """Give the client itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the client."""
        self.close()
