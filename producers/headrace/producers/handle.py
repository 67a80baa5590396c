"""Handles of submitted requests: result, status, cancel."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

from headrace.contracts.errors import DeadlineExceeded, RequestLost, ResultTimeout
from headrace.contracts.states import State
from headrace.contracts.tensors.codec import Tensors
from headrace.producers.replies.outcome import outputs_of
from headrace.producers.replies.pending import Waiting
from headrace.producers.requests.factory import check_timeout

if TYPE_CHECKING:
    from headrace.results_store import Prediction


def timed_out(
    handle: Waiting, timeout_s: float | None, *, served: bool, where: str = "", unsent: str = "", problem: str = ""
) -> ResultTimeout:
    """Return the error for a wait that ended without a result.

    served: whether a worker serves the model. where: what is known of where it is served, if it isn't here. unsent: why
    a durable request was not sent yet. problem: why workers get no answers of the model.
    """
    why = f"no result within {timeout_s:g} s for request {handle.id} to model {handle.model}"
    if unsent:
        why += f": {unsent}"
        rest = "wait again after that, or read its row with Client.get(request_id)"
    elif served:
        why += f": its worker reports: {problem}" if problem else ""
        rest = "the request goes on: wait again, or read its row with Client.get(request_id)"
    else:
        why += f": no worker serves model {handle.model!r} at present{where}"
        rest = (
            "start one whose model directory holds it (`headrace worker --models DIR`), or restart those that run if "
            "the model was added since; the request goes on waiting: wait again, or read its row with "
            "Client.get(request_id)"
        )
    return ResultTimeout(f"{why}; {rest}", request_id=handle.id)


def check_waits_on(handle: Waiting, *, closed: bool) -> None:
    """Raise the error of a wait that ended because the request was lost, or because its client was closed."""
    what = f"request {handle.id} to model {handle.model}"
    if handle.standing.lost:
        if time.monotonic() < handle.standing.deadline:
            raise RequestLost(
                f"the broker lost {what}: it was flushed, or came back with older data; submit it again, with the same "
                "request_id or with durable=True",
                request_id=handle.id,
            )
        raise DeadlineExceeded(
            f"the deadline of {what} is over, and it is neither with the broker nor in the store: the broker lost it "
            "with its data; submit it again, or with durable=True",
            request_id=handle.id,
        )
    if closed:
        raise ResultTimeout(
            f"the client was closed for {what}; the request goes on: wait again, or read its row with "
            "Client.get(request_id)",
            request_id=handle.id,
        )


class HandleClient(Protocol):
    """The members of a client that its handles call; `Client` documents them."""

    @property
    def closed(self) -> bool: ...  # noqa: D102
    def wait(self, handle: Handle, timeout_s: float | None) -> None: ...  # noqa: D102
    def poll(self, handle: Handle) -> None: ...  # noqa: D102
    def look_up(self, handle: Handle) -> None: ...  # noqa: D102
    def cancel(self, handle: Handle) -> bool: ...  # noqa: D102
    def explain(self, handle: Handle) -> str: ...  # noqa: D102
    def is_served(self, model: str) -> bool: ...  # noqa: D102
    def where_served(self, model: str) -> str: ...  # noqa: D102
    def problem_of(self, model: str) -> str: ...  # noqa: D102
    def get(self, request_id: str) -> Prediction | None: ...  # noqa: D102


class Handle(Waiting):
    """One request: ask for its result, its status, or that it be cancelled. Usable from several threads."""

    __slots__ = ("_client",)

    def __init__(self, client: HandleClient, request_id: str, model: str) -> None:
        """Made by `Client.submit`."""
        super().__init__(request_id, model)
        self._client = client

    def result(self, timeout_s: float | None = None) -> Tensors:
        """Wait for the outputs: a dict of read-only arrays, in the model's order.

        timeout_s: None waits until the request ends. A request past its deadline still waits for the worker's
        verdict. Raises the error the request ended with (SignatureMismatch, DeadlineExceeded, Cancelled,
        InferenceFailed, ...) with its `request_id`; RequestLost when the broker lost it with its data (DeadlineExceeded
        if its deadline is over); ResultTimeout, after which it may be called again, and which says so if no worker
        serves the model, or why those that do get no answers of it; BrokerUnavailable when the broker is away for a
        minute.
        """
        check_timeout(timeout_s)
        if self.reply is None:
            self._client.wait(self, timeout_s)
        if self.reply is None:
            check_waits_on(self, closed=self._client.closed)
            unsent = self._client.explain(self) if timeout_s else ""
            served = bool(unsent) or not timeout_s or self._client.is_served(self.model)
            where = "" if served else self._client.where_served(self.model)
            problem = self._client.problem_of(self.model) if served and timeout_s and not unsent else ""
            raise timed_out(self, timeout_s, served=served, where=where, unsent=unsent, problem=problem)
        return outputs_of(self.reply, self._client.get)

    def done(self) -> bool:
        """Return whether the request has ended, well or not, or is lost. Doesn't wait.

        A reply that got lost is made up for from the row within 5 s of asking, when a database is configured.
        """
        if self.reply is None:
            self._client.poll(self)
        return self.ended

    def status(self) -> str:
        """Return "pending", or how the request ended: "succeeded", "failed", "expired", "cancelled", or "lost".

        Looks for the row when no reply came and a database is configured. A request that the broker lost with its data
        is "lost" within HEADRACE_LEASE_S.
        """
        if not self.done():
            self._client.look_up(self)
        return self.known_status

    def cancel(self) -> bool:
        """Cancel the request; False when it had ended before. What runs already isn't interrupted, but has no effect.

        May be called again. Raises ConfigurationError when no database is configured.
        """
        if self.reply is not None:
            return self.reply.state == State.CANCELLED
        return self._client.cancel(self)
