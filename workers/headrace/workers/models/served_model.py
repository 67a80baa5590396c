"""A served model: one version of one model, with its batcher, its cost model and, once loaded, the model itself."""

from __future__ import annotations

import logging
import threading
from collections.abc import Hashable
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from headrace.contracts import ModelPackage, Signature, Tensors, TensorSpec
from headrace.contracts.formatting import first_line
from headrace.contracts.message import queue_name
from headrace.contracts.package.manifest import BatchingAdvice
from headrace.contracts.package.processor import place_of
from headrace.contracts.problem import Problem
from headrace.contracts.tensors.datatypes import dtype_of
from headrace.contracts.tensors.rows import RowAxes
from headrace.runtimes.base import LoadedModel, is_concurrent, max_in_flight, problem_of
from headrace.runtimes.loading import load_model
from headrace.workers.batching import BatchPolicy, CostModel, MicroBatcher
from headrace.workers.models.batch_limit import BatchLimit
from headrace.workers.models.checked_model import CheckedModel
from headrace.workers.models.input_check import InputCheck
from headrace.workers.request import InferenceRequest

logger = logging.getLogger(__name__)

#: Where an input's dimension varies and the package knows no size that works, the warm-up uses this one.
_WARM_UP_SIZE: Final = 8

#: Batches of one request each: one with more rows forms a batch of its own, and one row is all that fits beside none.
_ALONE: Final = BatchPolicy(max_rows=1, max_wait_s=0.0)

#: Rows of a batch, for what is claimed ahead, of a model whose requests run alone: enough that a run of a millisecond
#: doesn't wait for the next claim, and few enough that other workers find some.
_ALONE_ROWS: Final = 4


def starting_cost(advice: BatchingAdvice, *, place: str, threads: int) -> CostModel:
    """Make a cost model from what `headrace models profile` measured.

    Measured in this place (processor and kind of device) with as many threads, the figures decide on waits from the
    first request on. Measured otherwise, or it isn't known how, they are only the first predictions: a fixed part that
    is too large would make requests wait for nothing, so waits begin when the worker has told both parts apart itself.

    place: as `place_of` names it. threads: of this worker; 0, which leaves it to the runtime, equals no other number.
    """
    if advice.measured_on == place and advice.threads == threads > 0:
        return CostModel.measured(advice.seconds_fixed, advice.seconds_per_row)
    return CostModel(advice.seconds_fixed, advice.seconds_per_row)


def profiled_otherwise(advice: BatchingAdvice, *, place: str, threads: int) -> str:
    """Return how the measurement of a package differs from how it runs here; "" if it doesn't, or nobody knows."""
    differences = []
    if advice.threads not in {0, threads}:
        differences.append(f"threads={threads} profiled_threads={advice.threads}")
    if advice.measured_on not in {"", place}:
        differences.append(f"place={place!r} profiled_place={advice.measured_on!r}")
    return " ".join(differences)


class ServedModel:
    """One version of one model. The executor thread owns `batcher` and, once loaded, `model`; the rest never changes.

    parked_rows: rows in the batcher that wait for the model to be loaded. output_bytes_per_row: of the last batch.
    concurrent: whether its batches run on threads of their own, known once it is loaded; in_flight: how many do.
    put_off_until: monotonic seconds before which its requests need not be claimed, since the model's server is away.
    """

    def __init__(
        self,
        package: ModelPackage,
        *,
        device: str,
        threads: int,
        limit: BatchLimit | None = None,
    ) -> None:
        """Prepare all but the model itself, which `load` loads.

        limit: of its batches, if it is known from before.
        """
        advice = package.manifest.batching
        self.package = package
        self._go_by(package.manifest.signature)
        self.queue = queue_name(package.name)
        self.max_rows = advice.max_rows if advice.independent_rows else _ALONE_ROWS
        self.cost = starting_cost(advice, place=place_of(device), threads=threads)
        self.independent_rows = advice.independent_rows
        self.batcher: MicroBatcher[InferenceRequest] = MicroBatcher(_policy_of(advice), self.cost)
        self._limit = limit or BatchLimit(advice.max_rows, None, lambda _: None)
        if self.independent_rows:
            self.batcher.lower_limit(self._limit.rows)
        self._device = device
        self._threads = threads
        self._model: CheckedModel | None = None
        self._loaded: LoadedModel | None = None
        #: Whether `model` is there.
        self.loaded = False
        self.concurrent = False
        self.in_flight = 0
        self.put_off_until = 0.0
        self._away_since: float | None = None
        # Batches in flight end on several threads.
        self._learning = threading.Lock()
        # Online requests and bulk jobs may both want the model first.
        self._loads = threading.Lock()
        self.parked_rows = 0
        self.output_bytes_per_row = 0.0

    def _go_by(self, signature: Signature) -> None:
        self.signature = signature
        self.check_inputs = InputCheck(signature)
        self._varies = any(spec.varies for spec in signature.inputs)
        self._input_axes = RowAxes(signature.inputs)
        self._has_parameters = any(spec.per_request or spec.optional for spec in signature.inputs)

    def __repr__(self) -> str:
        """Name the model as people do."""
        return f"{self.package.name} {self.package.version}"

    @property
    def next_output_bytes(self) -> int:
        """About how many bytes of outputs the next batch will have; 0 while nothing is known."""
        rows = min(self.batcher.rows_waiting, self.batcher.max_rows)
        return int(rows * self.output_bytes_per_row)

    @property
    def max_in_flight(self) -> int:
        """The most batches that may run at the same time, as far as it is known now."""
        return 1 if self._loaded is None else max_in_flight(self._loaded)

    @property
    def problem(self) -> Problem | None:
        """Why the model gives no answers at present, None if it does or isn't loaded."""
        return None if self._loaded is None else problem_of(self._loaded)

    @property
    def model(self) -> CheckedModel:
        """The model, which is `loaded`."""
        assert self._model is not None
        return self._model

    def load(self) -> CheckedModel:
        """Return the model, loading it first if need be. Raises what `load_model` raises."""
        with self._loads:
            return self._load()

    def _load(self) -> CheckedModel:
        if self._model is None:
            self.package.verify()
            loaded = load_model(self.package, self._device, self._threads)
            model = CheckedModel(loaded, self.signature, independent_rows=self.independent_rows)
            self._warm_up(loaded, model)
            self._model, self._loaded = model, loaded
            self.concurrent = is_concurrent(loaded)
            if hasattr(loaded, "on_new_signature"):
                loaded.on_new_signature(self.adopt)
            self.loaded = True
            self._log_loaded()
        return self._model

    def _log_loaded(self) -> None:
        logger.info("model loaded: %r device=%s threads=%d", self, self._device, self._threads)
        if self.independent_rows and not self.package.manifest.was_tried:
            logger.info("rows.unproven model=%r: no trial says that its rows are independent", self)
        difference = profiled_otherwise(
            self.package.manifest.batching, place=place_of(self._device), threads=self._threads
        )
        if difference:
            logger.info("model was profiled otherwise, so it learns its times anew: %r %s", self, difference)

    def adopt(self, signature: Signature) -> None:
        """Go by other tensors from now on, which a server's model has since it was reloaded; any thread."""
        with self._learning:
            assert self._loaded is not None
            manifest = self.package.manifest.with_signature(signature)
            self.package = msgspec.structs.replace(self.package, manifest=manifest)
            self._go_by(manifest.signature)
            self._model = CheckedModel(self._loaded, self.signature, independent_rows=self.independent_rows)
        logger.warning(
            "model has other tensors: %r takes %s", self, "; ".join(spec.describe() for spec in signature.inputs)
        )

    def put_off(self, now: float, seconds: float) -> float:
        """Claim nothing for a while, since the model's server is away or busy; return for how long it has been so."""
        self.put_off_until = max(self.put_off_until, now + seconds)
        if self._away_since is None:
            self._away_since = now
        return now - self._away_since

    @property
    def is_away(self) -> bool:
        """Whether no batch has been computed since one was put off."""
        return self._away_since is not None

    def came_back(self) -> None:
        """Take note of a batch that was computed."""
        self._away_since = None

    def run_alone(self) -> None:
        """Run each request alone from now on, since its rows were found to depend on those beside them."""
        with self._learning:
            self.independent_rows = self.model.independent_rows = False
            self.max_rows = _ALONE_ROWS
            self.batcher.use(_ALONE)

    def observe(self, rows: int, seconds: float) -> None:
        """Report the duration of a run to the cost model."""
        with self._learning:
            self.cost.observe(rows, seconds)

    def ran_out_at(self, rows: int) -> None:
        """Make batches smaller, because one of `rows` rows needed more memory than there is."""
        with self._learning:
            self._limit.ran_out_at(rows)
            self.batcher.set_max_rows(self._limit.rows)

    def refused_above(self, rows: int) -> None:
        """Make no batch larger than `rows` any more, because the model's server takes no larger ones."""
        with self._learning:
            self._limit.refused_above(rows)
            self.batcher.set_max_rows(self._limit.rows)

    def succeeded_with(self, rows: int) -> None:
        """Count a batch that succeeded; after enough of them batches may become larger again."""
        with self._learning:
            if self.independent_rows and self._limit.succeeded_with(rows):
                self.batcher.set_max_rows(self._limit.rows)

    def close(self) -> None:
        """Free the model."""
        if self._model is not None:
            self._model.close()
            self._model = self._loaded = None
            self.loaded = False

    def bucket_of(self, inputs: Tensors) -> Hashable:
        """Return the shapes and parameters that requests must share to form a batch; None when all are alike."""
        if not (self._varies or self._has_parameters) or not self.independent_rows:
            return None
        given = [spec for spec in self.signature.inputs if spec.name in inputs]
        shapes = tuple(_shape_of_a_row(inputs[spec.name], spec) for spec in given)
        return (shapes, self._input_axes.request_key(inputs)) if self._has_parameters else shapes

    def _warm_up(self, loaded: LoadedModel, model: CheckedModel) -> None:
        """Run one row of zeros, so that the first request doesn't pay for lazy initialisation."""
        if hasattr(loaded, "warm_up"):
            loaded.warm_up()
            return
        inputs = {spec.name: _zeros(spec) for spec in self.signature.inputs if not spec.optional}
        try:
            model.infer(inputs, max_rows=self.max_rows)
        except Exception as exc:  # noqa: BLE001 — a model may rightly refuse zeros; real requests decide.
            logger.info("warm-up of %r on a row of zeros failed: %s", self, first_line(exc))


def _policy_of(advice: BatchingAdvice) -> BatchPolicy:
    if not advice.independent_rows:
        return _ALONE
    return BatchPolicy(advice.max_rows, advice.max_wait_ms / 1000, advice.row_sizes)


def _shape_of_a_row(array: NDArray[Any], spec: TensorSpec) -> tuple[int, ...]:
    if spec.per_request:
        return array.shape
    return array.shape[: spec.rows_at] + array.shape[spec.rows_at + 1 :]


def _zeros(spec: TensorSpec) -> NDArray[Any]:
    """Make an input of one row."""
    sizes = spec.sample_shape or tuple(_WARM_UP_SIZE if size == -1 else size for size in spec.shape)
    shape = msgspec.structs.replace(spec, shape=sizes, symbols=(), sample_shape=()).whole_shape(1)
    empty = b"" if spec.datatype == "BYTES" else 0
    return np.full(shape, empty, dtype=dtype_of(spec.datatype))
