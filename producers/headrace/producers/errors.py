"""Errors of submissions of which only a part, or nothing, was accepted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, TypeVar

from headrace.contracts.errors import BrokerUnavailable, QueueFull, StoreUnavailable
from headrace.producers.replies.pending import Waiting

W_co = TypeVar("W_co", bound=Waiting, covariant=True)


def queue_is_full(model: str, limit: int, request_id: str) -> QueueFull:
    """Return the error for one request that was not accepted."""
    return QueueFull(
        f"the queue of model {model} is at its limit of {limit:,}; submit again later or raise HEADRACE_QUEUE_LIMIT",
        request_id=request_id,
    )


class PartlySubmitted(QueueFull, Generic[W_co]):
    """The queue was full before all rows were submitted; `handles` are those of the first rows, which were accepted."""

    def __init__(self, model: str, limit: int, handles: Sequence[W_co]) -> None:
        """handles: of the accepted rows, in order; perhaps none."""
        super().__init__(
            f"the queue of model {model} is at its limit of {limit:,}; the first {len(handles):,} rows were accepted "
            "and go on: submit the rest later or raise HEADRACE_QUEUE_LIMIT"
        )
        self.handles = tuple(handles)

    @property
    def type(self) -> str:
        """The name under which this error is stored and sent."""
        return QueueFull.__name__


class SubmissionInterrupted(BrokerUnavailable, Generic[W_co]):
    """The broker was lost before all rows were submitted; `handles` are those of the first rows, which were accepted.

    Up to `BLOCK_REQUESTS` rows after them may have been accepted as well: their answer was lost.
    """

    def __init__(self, cause: BrokerUnavailable, handles: Sequence[W_co]) -> None:
        """handles: of the rows that were surely accepted, in order; perhaps none."""
        super().__init__(f"{cause.message}; the first {len(handles):,} rows were accepted and go on")
        self.handles = tuple(handles)

    @property
    def type(self) -> str:
        """The name under which this error is stored and sent."""
        return BrokerUnavailable.__name__


class PartlyKept(StoreUnavailable, Generic[W_co]):
    """Postgres was lost before all durable rows were kept; `handles` are those of the first rows, which were accepted.

    Up to `BLOCK_REQUESTS` rows after them may have been accepted as well: their answer was lost.
    """

    def __init__(self, cause: StoreUnavailable, handles: Sequence[W_co]) -> None:
        """handles: of the rows that were surely accepted, in order; perhaps none."""
        super().__init__(f"{cause.message}; the first {len(handles):,} rows were accepted and go on")
        self.handles = tuple(handles)

    @property
    def type(self) -> str:
        """The name under which this error is stored and sent."""
        return StoreUnavailable.__name__
