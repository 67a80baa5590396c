"""The pipeline of a batch: the layers in their order around the run of the model."""

from __future__ import annotations

import time

from headrace.workers.execution.layers.backoff import Backoff
from headrace.workers.execution.layers.base import BatchContext, LayerFactory, Next, Services, chain
from headrace.workers.execution.layers.cost import Cost
from headrace.workers.execution.layers.memory_limit import MemoryLimit
from headrace.workers.execution.layers.revoked import Revoked
from headrace.workers.execution.layers.row_independence import RowIndependence
from headrace.workers.execution.layers.running_marker import RunningMarker
from headrace.workers.execution.runner import Runner
from headrace.workers.execution.verdict import Verdict

#: Outermost first. A new layer is a module in `layers/` and a line here.
LAYERS: tuple[LayerFactory, ...] = (
    Backoff,
    Revoked,
    RunningMarker,
    RowIndependence,
    MemoryLimit,
    Cost,
)


def build_pipeline(services: Services) -> Next:
    """Return the function that takes a batch through all layers to its model; built once a worker."""
    return chain([make(services) for make in LAYERS], run_on_model)


def run_on_model(batch: BatchContext) -> Verdict:
    """Run a batch on its model, and measure how long that takes."""
    started_at, start = time.time(), time.perf_counter()
    batcher = batch.served.batcher
    verdict = Runner(batch.served.model, batcher.max_rows, batcher.policy.padded).run(batch.requests)
    verdict.seconds = time.perf_counter() - start
    verdict.started_at, verdict.rows = started_at, batch.rows
    return verdict
