"""Turns a reply into what a user gets: output arrays, or the error with which the request ended."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from headrace.contracts.errors import (
    Cancelled,
    ConfigurationError,
    DeadlineExceeded,
    HeadraceError,
    InferenceFailed,
    error_from_wire,
)
from headrace.contracts.message import Reply
from headrace.contracts.states import State
from headrace.contracts.tensors.codec import Tensors, decode_tensors

if TYPE_CHECKING:
    from headrace.results_store import Prediction

#: The error of a state when the reply names none.
_ERRORS: Final[dict[str, type[HeadraceError]]] = {
    State.EXPIRED: DeadlineExceeded,
    State.CANCELLED: Cancelled,
    State.FAILED: InferenceFailed,
}


def reads_store(reply: Reply) -> bool:
    """Return whether `outputs_of` will read the row of this reply."""
    return reply.stored and reply.state == State.SUCCEEDED


def raise_error(reply: Reply) -> None:
    """Raise the error of a request that did not succeed, with its request id."""
    if reply.state == State.SUCCEEDED:
        return
    if reply.error_type:
        raise error_from_wire(reply.error_type, reply.error_message, reply.id)
    raise _ERRORS.get(reply.state, InferenceFailed)(reply.error_message or None, request_id=reply.id)


def outputs_of(reply: Reply, read_row: Callable[[str], Prediction | None]) -> Tensors:
    """Return the outputs of a request, rows first; raises its error if it did not succeed.

    read_row: reads the row of a request; called only when the outputs did not travel with the reply.
    """
    raise_error(reply)
    if not reply.stored:
        return decode_tensors(reply.outputs)
    row = read_row(reply.id)
    if row is not None:
        # The row was there before the reply: for example a cancellation that came while the request ran.
        raise_error(row.as_reply(reply.id))
    if row is None or row.outputs is None:
        raise ConfigurationError(
            "the outputs are not in the store: either the row was pruned, or HEADRACE_DATABASE_URL names another "
            "database here than on the workers",
            request_id=reply.id,
        )
    return row.outputs
