"""A model as a function of record batches, for engines that run functions: Ray Data's `map_batches`, Spark's
`mapInPandas`, or a loop of one's own.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypedDict, Unpack

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from headrace.bulk.columns.base import PreparedRows
from headrace.bulk.columns.output import OutputColumns
from headrace.bulk.columns.preparation import ColumnPreparation, make_preparation
from headrace.contracts import (
    HeadraceError,
    InferenceFailed,
    InvalidRequest,
    ModelDirectory,
    OutputMismatch,
    PackageError,
)
from headrace.contracts.jobs import ScoreSpec
from headrace.contracts.package.manifest import ModelPackage
from headrace.contracts.tensors.codec import Tensors
from headrace.runtimes.base import LoadedModel, OutOfMemory, TransientFailure
from headrace.runtimes.loading import load_model

if TYPE_CHECKING:
    import pandas as pd  # type: ignore[import-untyped]

#: The column that says why a row has no outputs.
ERROR: Final = "headrace_error"


class ScorerOptions(TypedDict, total=False):
    """Options of `scorer`, with their defaults.

    models: folder of model packages, which must exist where batches are scored (HEADRACE_MODELS). mapping: column →
    input, where the names differ. keep: columns that go into the result (those that the model doesn't take).
    prefix: of the names of outputs. on_null, truncate: as in `headrace score`. max_rows: most rows of a run (those of
    the package). device, threads: as of workers (HEADRACE_DEVICE, HEADRACE_THREADS). errors: "column": a bad row has
    nulls for its outputs, and its reason in the column `headrace_error`; "raise": it raises ("column").
    """

    models: Path | str
    mapping: Mapping[str, str]
    keep: Sequence[str]
    prefix: str
    on_null: str
    truncate: Literal["error", "cut"]
    max_rows: int
    device: str
    threads: int
    errors: Literal["column", "raise"]


def scorer(model: str, version: str = "", **options: Unpack[ScorerOptions]) -> Scorer:
    """Return a callable that scores record batches, tables, dicts of arrays and DataFrames with a model.

    version: the newest if "", and from then on that one. Raises UnknownModel or PackageError.
    """
    from headrace.contracts import load_settings

    settings = load_settings()
    options.setdefault("models", settings.models)
    options.setdefault("device", settings.device)
    options.setdefault("threads", settings.threads)
    if options.get("errors", "column") not in {"column", "raise"}:
        raise InvalidRequest(f"errors must be column or raise, not {options['errors']!r}")
    folder = Path(options["models"]).absolute()
    options["models"] = folder
    return Scorer(ModelDirectory(folder).get(model, version), options)


class _Plan(msgspec.Struct, frozen=True):
    """The steps for tables of one schema. kept: columns of the result that come from the table."""

    preparation: ColumnPreparation
    outputs: OutputColumns
    kept: tuple[str, ...]
    schema: pa.Schema


class Scorer:
    """Scores tables with a model, which is loaded in each process when its first table comes. Can be pickled."""

    def __init__(self, package: ModelPackage, options: ScorerOptions) -> None:
        """options: complete but for those with a fixed default."""
        self._package: Final = package
        self._options: Final = options
        self._forget()

    def _forget(self) -> None:
        self._model: LoadedModel | None = None
        self._plans: dict[pa.Schema, _Plan] = {}
        self._lock = threading.Lock()

    def __getstate__(self) -> tuple[str, str, str, ScorerOptions]:
        """Return the name, version and checksum of the model, which the other process reads from its own folder."""
        return self._package.name, self._package.version, self._package.manifest.checksum, self._options

    def __setstate__(self, state: tuple[str, str, str, ScorerOptions]) -> None:
        """Find the package. Raises UnknownModel or PackageError when it is not the same here."""
        name, version, checksum, options = state
        package = ModelDirectory(Path(options["models"])).get(name, version)
        if package.manifest.checksum != checksum:
            raise PackageError(f"{name} {version} in {options['models']} is not the same model here")
        self._package, self._options = package, options  # type: ignore[misc]
        self._forget()

    def __call__(self, batch: Any) -> Any:
        """Return the scored rows: a RecordBatch, Table or DataFrame as was given; a Table for a dict of arrays.

        Raises ColumnMismatch when the columns don't fit the model.
        """
        if isinstance(batch, pa.RecordBatch):
            return self._score(batch)
        if isinstance(batch, pa.Table):
            return self._score_table(batch)
        if isinstance(batch, Mapping):
            return self._score_table(pa.table({name: _as_column(value) for name, value in batch.items()}))
        frame = pa.Table.from_pandas(batch, preserve_index=False).replace_schema_metadata(None)
        return self._score_table(frame).to_pandas()

    def map_in_pandas(self, frames: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        """Yield the scored rows of each DataFrame; what Spark's `DataFrame.mapInPandas` takes."""
        for frame in frames:
            yield self(frame)

    def schema(self, schema: pa.Schema) -> pa.Schema:
        """Return the columns of the result for those of the input. Raises ColumnMismatch."""
        return self._plan(schema).schema

    def close(self) -> None:
        """Free the model; it is loaded again when it is needed."""
        with self._lock:
            if self._model is not None:
                self._model.close()
            self._model = None

    def _score_table(self, table: pa.Table) -> pa.Table:
        batches = table.combine_chunks().to_batches() or [pa.RecordBatch.from_pylist([], schema=table.schema)]
        return pa.Table.from_batches([self._score(batch) for batch in batches])

    def _plan(self, schema: pa.Schema) -> _Plan:
        bare = schema.remove_metadata()
        if bare not in self._plans:
            self._plans[bare] = self._made_plan(bare)
        return self._plans[bare]

    def _made_plan(self, schema: pa.Schema) -> _Plan:
        spec = self._spec(tuple(self._options.get("keep", ())))
        preparation = make_preparation(self._package, spec, schema, read_bytes=_read_local)
        kept = spec.keep if "keep" in self._options else tuple(
            name for name in schema.names if name not in preparation.columns
        )  # fmt: skip
        manifest = self._package.manifest
        names = OutputColumns(manifest, self._spec(kept), schema).schema
        fields = [] if self._options.get("errors") == "raise" else [pa.field(ERROR, pa.string())]
        return _Plan(preparation, OutputColumns(manifest, self._spec(()), schema), kept, pa.schema([*names, *fields]))

    def _spec(self, keep: tuple[str, ...]) -> ScoreSpec:
        return ScoreSpec(
            model=self._package.name,
            inputs=(),
            output="",
            mapping=dict(self._options.get("mapping", {})),
            keep=keep,
            prefix=self._options.get("prefix", ""),
            on_null=self._options.get("on_null", "error"),
            truncate=self._options.get("truncate", "error"),
        )

    def _score(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        plan = self._plan(batch.schema)
        with self._lock:
            run = _Run(batch, plan, self._loaded(), self._max_rows)
            return run.result(raising=self._options.get("errors") == "raise")

    def _loaded(self) -> LoadedModel:
        if self._model is None:
            self._package.verify()
            device, threads = self._options.get("device", "cpu"), self._options.get("threads", 0)
            self._model = load_model(self._package, device, threads)
        return self._model

    @property
    def _max_rows(self) -> int:
        batching = self._package.manifest.batching
        return (self._options.get("max_rows") or batching.max_rows) if batching.independent_rows else 1


class _Run:
    """The scoring of one record batch."""

    def __init__(self, batch: pa.RecordBatch, plan: _Plan, model: LoadedModel, max_rows: int) -> None:
        self._batch = batch
        self._plan = plan
        self._model = model
        self._max_rows = max_rows
        self._errors: dict[int, str] = {}
        self._raised: Exception | None = None
        self._parts: list[pa.RecordBatch] = []
        self._rows: list[NDArray[np.int64]] = []

    def result(self, *, raising: bool) -> pa.RecordBatch:
        """Return the rows of the batch in their order, without those that are skipped."""
        rows = self._batch.num_rows
        at_once = self._plan.preparation.rows_at_once or max(rows, 1)
        skipped = np.zeros(rows, np.bool_)
        for start in range(0, rows, at_once):
            prepared = self._plan.preparation.prepare(self._batch.slice(start, at_once))
            skipped[start + prepared.skipped] = True
            for refused in prepared.refused:
                self._fail(start + refused.at, InvalidRequest(f"{refused.type}: {refused.message}"))
            self._run_rows(prepared, start)
        if raising and self._raised is not None:
            raise self._raised
        return self._assembled(np.flatnonzero(~skipped))

    def _fail(self, row: int, error: Exception) -> None:
        self._errors[row] = str(error)
        self._raised = self._raised or error

    def _run_rows(self, prepared: PreparedRows, start: int) -> None:
        for which in cut_rows(prepared, self._max_rows):
            self._run(prepared, which, start)

    def _run(self, prepared: PreparedRows, which: NDArray[np.int64], start: int) -> None:
        """Run some rows; when the model fails, halve them until the row that it fails on stands alone."""
        try:
            outputs: Tensors = self._model.infer(prepared.tensors(which))
            part = self._part(outputs, len(which))
        except Exception as exc:
            if isinstance(exc, TransientFailure) and not isinstance(exc, OutOfMemory):
                raise
            if len(which) > 1:
                self._run(prepared, which[: len(which) // 2], start)
                self._run(prepared, which[len(which) // 2 :], start)
            else:
                known = exc if isinstance(exc, HeadraceError) else InferenceFailed(f"{type(exc).__name__}: {exc}")
                self._fail(start + int(prepared.good[which[0]]), known)
            return
        self._parts.append(part)
        self._rows.append(start + prepared.good[which])

    def _part(self, outputs: Tensors, rows: int) -> pa.RecordBatch:
        part = self._plan.outputs.batch(outputs, self._batch.slice(0, 0))
        if part.num_rows != rows:
            raise OutputMismatch(f"the model gave {part.num_rows} rows for {rows}; add its file anew")
        return part

    def _assembled(self, rows: NDArray[np.int64]) -> pa.RecordBatch:
        schema = self._plan.schema
        scored = pa.Table.from_batches(self._parts, self._plan.outputs.schema)
        place = np.full(self._batch.num_rows, -1, np.int64)
        if self._rows:
            place[np.concatenate(self._rows)] = np.arange(scored.num_rows)
        place = place[rows]
        taken = scored.combine_chunks().take(pa.array(place, mask=place < 0))
        kept = self._batch.take(pa.array(rows)) if len(rows) < self._batch.num_rows else self._batch
        arrays = [kept.column(name) for name in self._plan.kept]
        arrays += [_one(column) for column in taken.columns]
        if schema.names[-1] == ERROR:
            arrays.append(pa.array([self._errors.get(row) for row in rows.tolist()], pa.string()))
        return pa.RecordBatch.from_arrays(arrays, schema=schema)


def cut_rows(prepared: PreparedRows, max_rows: int) -> Iterator[NDArray[np.int64]]:
    """Yield indexes of the good rows that run together: those of one group only, and of similar lengths."""
    order = np.arange(len(prepared.good))
    if prepared.lengths is not None:
        order = np.argsort(prepared.lengths, kind="stable")
    if prepared.groups is not None:
        order = order[np.argsort(prepared.groups[order], kind="stable")]
        ends = np.flatnonzero(np.diff(prepared.groups[order])) + 1
        pieces: Sequence[NDArray[np.int64]] = np.split(order, ends)
    else:
        pieces = [order]
    for piece in pieces:
        for start in range(0, len(piece), max_rows):
            yield piece[start : start + max_rows]


def _one(column: pa.ChunkedArray) -> pa.Array:
    combined = column.combine_chunks()
    return combined if isinstance(combined, pa.Array) else combined.chunk(0)


def _read_local(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as exc:
        raise InvalidRequest(f"{path} can't be read: {exc.strerror}") from exc


def _as_column(value: Any) -> pa.Array:
    """Return a column of the rows of an array."""
    array = np.asarray(value)
    if array.ndim < 2:
        return pa.array(array)
    flat = pa.array(np.ascontiguousarray(array).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, int(np.prod(array.shape[1:])))
