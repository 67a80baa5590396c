"""A lane: one version of one model in this worker, with its batcher, its cost model and, once loaded, its model."""

from __future__ import annotations

import logging
import threading
from collections.abc import Hashable
from random import Random
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from headrace.contracts import HeadraceError, ModelDirectory, ModelPackage, Tensors, TensorSpec
from headrace.contracts.formatting import first_line
from headrace.contracts.message import queue_name
from headrace.contracts.package.manifest import LATEST, BatchingAdvice
from headrace.contracts.package.processor import place_of
from headrace.contracts.tensors.datatypes import dtype_of
from headrace.contracts.tensors.rows import RowAxes
from headrace.runtimes.base import TransientFailure
from headrace.runtimes.loading import load_model
from headrace.workers.batching import BatchPolicy, CostModel, MicroBatcher
from headrace.workers.execution.runner import ServedModel, Verdict
from headrace.workers.models.batch_limit import Ceiling
from headrace.workers.models.batch_limit_store import Ceilings
from headrace.workers.models.input_check import InputCheck
from headrace.workers.models.row_independence import NeighbourCheck, run_again_alone
from headrace.workers.request import InferenceRequest

logger = logging.getLogger(__name__)

#: Where an input's dimension varies and the package knows no size that works, the warm-up uses this one.
_WARM_UP_SIZE: Final = 8

#: Batches of one request each: one with more rows forms a batch of its own, and one row is all that fits beside none.
_ALONE: Final = BatchPolicy(max_rows=1, max_wait_s=0.0)

#: Rows of a batch, for what is claimed ahead, of a model whose requests run alone: enough that a run of a millisecond
#: doesn't wait for the next claim, and few enough that other workers find some.
_ALONE_ROWS: Final = 4

_NO_LANES: Final[list[Lane]] = []


def starting_cost(advice: BatchingAdvice, *, place: str, threads: int) -> CostModel:
    """Make a lane's cost model of what `headrace models profile` measured.

    Measured in this place (processor and kind of device) with as many threads, the figures decide on waits from the
    first request on. Measured otherwise, or it isn't known how, they are only the first predictions: a fixed part that
    is too large would make requests wait for nothing, so waits begin when the worker has told both parts apart itself.

    place: as `place_of` names it. threads: of this worker; 0, which leaves it to the runtime, equals no other number.
    """
    if advice.measured_on == place and advice.threads == threads > 0:
        return CostModel.measured(advice.seconds_fixed, advice.seconds_per_row)
    return CostModel(advice.seconds_fixed, advice.seconds_per_row)


def profiled_otherwise(advice: BatchingAdvice, *, place: str, threads: int) -> str:
    """Say in what the measurement of a package differs from how it runs here; empty if in nothing, or unknown."""
    differences = []
    if advice.threads not in {0, threads}:
        differences.append(f"threads={threads} profiled_threads={advice.threads}")
    if advice.measured_on not in {"", place}:
        differences.append(f"place={place!r} profiled_place={advice.measured_on!r}")
    return " ".join(differences)


class Lane:
    """One version of one model. The executor thread owns `batcher` and, once loaded, `model`; the rest never changes.

    parked_rows: rows in the batcher that wait for the model to be loaded. output_bytes_per_row: of the last batch.
    """

    def __init__(
        self,
        package: ModelPackage,
        *,
        device: str,
        threads: int,
        ceiling: Ceiling | None = None,
        check_every: int = 0,
    ) -> None:
        """Prepare the lane; the model is loaded by `load`.

        ceiling: of its batches, if it is known from before. check_every: see `NeighbourCheck`.
        """
        advice = package.manifest.batching
        self.package = package
        self.signature = package.manifest.signature
        self.check_inputs = InputCheck(self.signature)
        self.queue = queue_name(package.name)
        self.max_rows = advice.max_rows if advice.independent_rows else _ALONE_ROWS
        self.cost = starting_cost(advice, place=place_of(device), threads=threads)
        self.independent_rows = advice.independent_rows
        policy = BatchPolicy(advice.max_rows, advice.max_wait_ms / 1000, advice.row_sizes)
        self.batcher: MicroBatcher[InferenceRequest] = MicroBatcher(
            policy if self.independent_rows else _ALONE, self.cost
        )
        self._ceiling = ceiling or Ceiling(advice.max_rows, None, lambda _: None)
        if self.independent_rows:
            self.batcher.lower_ceiling(self._ceiling.rows)
        inputs = self.signature.inputs
        self._varies = any(spec.varies for spec in inputs)
        self._input_axes = RowAxes(inputs)
        self._has_parameters = any(spec.per_request or spec.optional for spec in inputs)
        self._neighbours = NeighbourCheck(check_every, Random())  # noqa: S311 — no secret
        self._device = device
        self._threads = threads
        self._model: ServedModel | None = None
        #: Whether `model` is there.
        self.loaded = False
        self.parked_rows = 0
        self.output_bytes_per_row = 0.0

    def __repr__(self) -> str:
        """Name the lane as people do."""
        return f"{self.package.name} {self.package.version}"

    @property
    def next_output_bytes(self) -> int:
        """About how many bytes of outputs the next batch will have; 0 while nothing is known."""
        rows = min(self.batcher.rows_waiting, self.batcher.max_rows)
        return int(rows * self.output_bytes_per_row)

    @property
    def model(self) -> ServedModel:
        """The model, which is `loaded`."""
        assert self._model is not None
        return self._model

    def load(self) -> ServedModel:
        """Return the model, loading it first if need be; by one thread at a time. Raises what `load_model` raises."""
        if self._model is None:
            self.package.verify()
            loaded = load_model(self.package, self._device, self._threads)
            model = ServedModel(loaded, self.signature, independent_rows=self.independent_rows)
            self._warm_up(model)
            self._model = model
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

    def check_neighbours(self, verdict: Verdict) -> str:
        """Return how a request's outputs were found to depend on those beside it; "" if they weren't.

        If they were, what ran in company is computed anew, and each request runs alone from now on.
        """
        if not self.independent_rows or self._model is None:
            return ""
        found = self._neighbours(self._model, verdict)
        if found:
            logger.error("rows.dependent model=%r: %s; its requests run alone from now on", self, found)
            self._run_alone(self._model)
            run_again_alone(self._model, verdict)
        return found

    def _run_alone(self, model: ServedModel) -> None:
        self.independent_rows = model.independent_rows = False
        self.max_rows = _ALONE_ROWS
        self.batcher.use(_ALONE)

    def ran_out_at(self, rows: int) -> None:
        """Make batches smaller, because one of `rows` rows needed more memory than there is."""
        self._ceiling.ran_out_at(rows)
        self.batcher.set_max_rows(self._ceiling.rows)

    def succeeded_with(self, rows: int) -> None:
        """Note a batch that succeeded; after enough of them batches may become larger again."""
        if self.independent_rows and self._ceiling.succeeded_with(rows):
            self.batcher.set_max_rows(self._ceiling.rows)

    def close(self) -> None:
        """Free the model."""
        if self._model is not None:
            self._model.close()
            self._model = None
            self.loaded = False

    def bucket_of(self, inputs: Tensors) -> Hashable:
        """Return what must be equal in requests that share a batch: shapes and parameters. None when all are alike."""
        if not (self._varies or self._has_parameters) or not self.independent_rows:
            return None
        given = [spec for spec in self.signature.inputs if spec.name in inputs]
        shapes = tuple(_shape_of_a_row(inputs[spec.name], spec) for spec in given)
        return (shapes, self._input_axes.request_key(inputs)) if self._has_parameters else shapes

    def _warm_up(self, model: ServedModel) -> None:
        """Run one row of zeros, so that the first request doesn't pay for lazy initialisation."""
        inputs = {spec.name: _zeros(spec) for spec in self.signature.inputs if not spec.optional}
        try:
            model.infer(inputs, max_rows=self.max_rows)
        except Exception as exc:  # noqa: BLE001 — a model may rightly refuse zeros; real requests decide.
            logger.info("warm-up of %r on a row of zeros failed: %s", self, first_line(exc))


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


class Lanes:
    """All lanes of a worker, by model and version. Lanes are made by the intake and run by the executor."""

    def __init__(
        self,
        models: ModelDirectory,
        *,
        device: str,
        threads: int,
        ceilings: Ceilings | None = None,
        check_every: int = 0,
    ) -> None:
        """models: where packages are looked up, also such as are added while the worker runs.

        ceilings: what is known of the device's memory. check_every: see `NeighbourCheck`.
        """
        self._check_every = check_every
        self._ceilings = ceilings
        self._models = models
        self._device = device
        self._threads = threads
        self._lanes: dict[tuple[str, str], Lane] = {}
        self._by_queue: dict[str, list[Lane]] = {}
        self._broken: dict[tuple[str, str], HeadraceError] = {}
        self._lock = threading.Lock()

    def load_newest(self) -> list[Lane]:
        """Load the newest version of every model that can be loaded, and return those that were.

        A version that can't be loaded is logged, and the one before it takes its place: it may be a folder that is
        still being copied. Requests to a model without any will fail.
        """
        found = [lane for name in self._models.names() if (lane := self._load_default(name)) is not None]
        return [lane for lane in found if lane.loaded]

    def _load_default(self, name: str) -> Lane | None:
        for version in reversed(self._models.versions(name)):
            try:
                lane = self.get(name, version)
                lane.load()
            except TransientFailure as exc:
                logger.error("model %s %s can't be loaded at present: %s", name, version, exc)  # noqa: TRY400 — its requests try again
            except HeadraceError as exc:
                logger.error("model %s %s is not served: %s", name, version, exc.message)  # noqa: TRY400 — the message is the cause
                self._broken.setdefault((name, ""), exc)
                self._forget(name, version)
                continue
            self._broken.pop((name, ""), None)
            self._lanes[name, ""] = lane
            return lane
        return None

    def _forget(self, name: str, version: str) -> None:
        """Have a package read anew when it is asked for again."""
        lane = self._lanes.pop((name, version), None)
        if lane is not None:
            self._by_queue[lane.queue] = [each for each in self.of_queue(lane.queue) if each is not lane]

    def get(self, name: str, version: str) -> Lane:
        """Return the lane of a model's version; "" and "latest" are what was the newest when the worker started.

        Raises UnknownModel or PackageError; a model none of whose packages could be loaded stays so until the worker
        restarts.
        """
        if version == LATEST:
            version = ""
        lane = self._lanes.get((name, version))
        if lane is not None:
            return lane
        broken = self._broken.get((name, version))
        if broken is not None:
            raise broken
        with self._lock:
            package = self._models.get(name, version)
            lane = self._lanes.get((name, package.version)) or self._make(package)
            self._lanes[name, version] = lane
            return lane

    def _make(self, package: ModelPackage) -> Lane:
        ceiling = self._ceilings.of(package) if self._ceilings is not None else None
        lane = Lane(package, device=self._device, threads=self._threads, ceiling=ceiling, check_every=self._check_every)
        self._lanes[package.name, package.version] = lane
        # A list of its own, for the consuming thread may be reading the old one.
        self._by_queue[lane.queue] = [*self.of_queue(lane.queue), lane]
        return lane

    def defaults(self) -> list[Lane]:
        """Return the lanes of requests that name no version."""
        return [lane for (_, version), lane in list(self._lanes.items()) if not version]

    def of_queue(self, queue: str) -> list[Lane]:
        """Return the lanes whose requests come by a queue; not to be changed."""
        return self._by_queue.get(queue, _NO_LANES)

    def all(self) -> list[Lane]:
        """List the lanes, each once."""
        return list(dict.fromkeys(self._lanes.values()))

    def close(self) -> None:
        """Free all models."""
        for lane in self.all():
            lane.close()
