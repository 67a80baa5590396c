"""Rows of the store that a test knows to be there."""

from __future__ import annotations

from headrace.contracts import Tensors
from headrace.producers import Client
from headrace.results_store import Prediction, StoreReader


def outputs_of(source: Client | StoreReader, request_id: str) -> Tensors:
    """Return the outputs that the store has of a request that succeeded."""
    outputs = prediction_of(source, request_id).outputs
    assert outputs is not None
    return outputs


def prediction_of(source: Client | StoreReader, request_id: str) -> Prediction:
    """Return what the store has of a request that has ended."""
    found = source.get(request_id)
    assert found is not None
    return found
