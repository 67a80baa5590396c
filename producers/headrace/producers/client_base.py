"""The common part of `Client` and `AsyncClient`."""

from __future__ import annotations

import uuid
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from headrace.contracts.errors import InvalidRequest
from headrace.contracts.settings import Settings, load_settings
from headrace.producers.durable.durable_requests import DurableRequests
from headrace.producers.jobs.desk import JobDesk
from headrace.producers.replies.store_lookup import RowLookup
from headrace.producers.requests.factory import RequestFactory
from headrace.producers.transport.fork import renew_after_fork
from headrace.producers.transport.serving import SharedLook, problem_of, where_served
from headrace.queueing import keys

if TYPE_CHECKING:
    from headrace.producers.replies.async_inbox import AsyncInbox
    from headrace.producers.replies.inbox import Inbox


class ClientBase(ABC):
    """Settings, the store, jobs, and the factory of requests of one client; connections are of the derived class."""

    _inbox: Inbox | AsyncInbox

    def __init__(self, settings: Settings | None = None) -> None:
        """settings: by default from HEADRACE_* variables, or the running local stack.

        Raises ConfigurationError when there is no broker URL. Without a database URL all works but `get`, `cancel`
        and results too large for a reply.
        """
        self._settings = settings or load_settings()
        self._url = self._settings.require_broker_url()
        self._prefix = self._settings.key_prefix
        self._rows = RowLookup(self._settings)
        self._durable = DurableRequests(self._rows, self._prefix)
        self._desk = JobDesk(self._settings)
        self.renew()
        renew_after_fork(self)

    def renew(self) -> None:
        """Start afresh in the child after a fork: an inbox and connections of its own."""
        self._rows.renew()
        self._desk.renew()
        self._where = SharedLook(lambda model: where_served(self._url, model, self._prefix))
        self._problem = SharedLook(lambda model: problem_of(self._url, model, self._prefix))
        inbox = keys.inbox_name(uuid.uuid4().hex)
        self._factory = RequestFactory(self._settings, inbox)
        self._connect(keys.Keys(self._prefix).inbox(inbox))

    @abstractmethod
    def _connect(self, inbox: str) -> None:
        """Make all connections anew. inbox: the key of the list to read replies from."""

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._inbox.closed

    def _check_open(self) -> None:
        if self._inbox.closed:
            raise InvalidRequest("the client is closed; make a new one")
