"""Errors of submissions of which only a part, or nothing, was accepted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, TypeVar

from headrace.contracts.errors import BrokerUnavailable, HeadraceError, QueueFull, StoreUnavailable
from headrace.producers.replies.pending import Waiting

W_co = TypeVar("W_co", bound=Waiting, covariant=True)


def queue_is_full(model: str, limit: int, request_id: str) -> QueueFull:
    """Return the error for one request that was not accepted."""
    return QueueFull(
        f"the queue of model {model} is at its limit of {limit:,}; submit again later or raise HEADRACE_QUEUE_LIMIT",
        request_id=request_id,
    )


class _PartlyAccepted(HeadraceError, Generic[W_co]):
    """An error on the way of a submission; it is stored and sent under the name of the error that it extends."""

    def __init__(self, message: str, handles: Sequence[W_co]) -> None:
        super().__init__(message)
        #: Of the rows that were surely accepted, in order; perhaps none.
        self.handles = tuple(handles)

    @property
    def type(self) -> str:
        """The name under which this error is stored and sent."""
        return type(self).__bases__[-1].__name__


class PartlySubmitted(_PartlyAccepted[W_co], QueueFull):
    """The queue was full before all rows were submitted; `handles` are those of the first rows, which were accepted."""

    def __init__(self, model: str, limit: int, handles: Sequence[W_co]) -> None:
        """handles: of the accepted rows, in order; perhaps none."""
        super().__init__(
            f"the queue of model {model} is at its limit of {limit:,}; the first {len(handles):,} rows were accepted "
            "and go on: submit the rest later or raise HEADRACE_QUEUE_LIMIT",
            handles,
        )


class _Interrupted(_PartlyAccepted[W_co]):
    def __init__(self, cause: HeadraceError, handles: Sequence[W_co]) -> None:
        super().__init__(f"{cause.message}; the first {len(handles):,} rows were accepted and go on", handles)


class SubmissionInterrupted(_Interrupted[W_co], BrokerUnavailable):
    """The broker was lost before all rows were submitted; `handles` are those of the first rows, which were accepted.

    Up to `BLOCK_REQUESTS` rows after them may have been accepted as well: their answer was lost.
    """


class PartlyKept(_Interrupted[W_co], StoreUnavailable):
    """Postgres was lost before all durable rows were kept; `handles` are those of the first rows, which were accepted.

    Up to `BLOCK_REQUESTS` rows after them may have been accepted as well: their answer was lost.
    """
