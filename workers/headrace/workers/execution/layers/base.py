"""The seam around the run of a batch: a layer takes the batch and the next layer, and returns the verdict."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from typing import Protocol, TypeAlias

import msgspec

from headrace.workers.batching import Reason
from headrace.workers.execution.verdict import Verdict
from headrace.workers.models.served_model import ServedModel
from headrace.workers.request import InferenceRequest, Outcome


class BatchContext(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """One batch on its way to the model. A layer that changes it passes a changed copy on.

    rows: of its requests. padded_rows: rows of the run where the model asks for fixed sizes. reason: why it left.
    """

    served: ServedModel
    requests: list[InferenceRequest]
    rows: int
    padded_rows: int
    reason: Reason


Next: TypeAlias = Callable[[BatchContext], Verdict]


class Layer(Protocol):
    """A step around the run of every batch.

    Called on the executor's thread or, for models with several batches in flight, on threads that run side by side.
    """

    def __call__(self, batch: BatchContext, following: Next, /) -> Verdict:
        """Run a batch by calling `following`, or answer without it."""
        ...


class Marker(Protocol):
    """Records in the broker which messages run."""

    def begin(self, tags: Mapping[str, Sequence[str]]) -> None:
        """Record that these messages run, besides those that do already. tags: by consumer."""
        ...

    def end(self, tags: Mapping[str, Sequence[str]]) -> None:
        """Record that these run no more; the same object as in `begin`."""
        ...


class Services(msgspec.Struct, frozen=True, kw_only=True):
    """Parts of the worker that layers need.

    revoked: ids of cancelled requests. end: stores and answers requests that never reach the model. max_retries: how
    often a request is tried again. check_every: 1 in `check_every` batches is checked for dependence; 0 checks none.
    """

    revoked: Container[str]
    marker: Marker
    end: Callable[[ServedModel, list[Outcome]], None]
    max_retries: int
    check_every: int


LayerFactory: TypeAlias = Callable[[Services], Layer]


def chain(layers: Iterable[Layer], innermost: Next) -> Next:
    """Return a function that passes a batch through the layers, the first one outermost."""
    following = innermost
    for layer in reversed(list(layers)):
        following = _link(layer, following)
    return following


def _link(layer: Layer, following: Next) -> Next:
    def run(batch: BatchContext) -> Verdict:
        return layer(batch, following)

    return run
