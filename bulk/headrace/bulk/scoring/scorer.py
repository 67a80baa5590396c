"""A model as a function of record batches, for engines that run functions: Ray Data's `map_batches`, Spark's
`mapInPandas`, or a loop of one's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypedDict, Unpack

import numpy as np
import pyarrow as pa

from headrace.bulk.columns.output import OutputColumns
from headrace.bulk.columns.preparation import make_preparation
from headrace.bulk.scoring.loaded import LOADED
from headrace.bulk.scoring.run import ERROR, Plan, Run
from headrace.contracts import (
    InvalidRequest,
    ModelDirectory,
    PackageError,
)
from headrace.contracts.jobs import ScoreSpec
from headrace.contracts.package.manifest import ModelPackage

if TYPE_CHECKING:
    import pandas as pd  # type: ignore[import-untyped]


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


class Scorer:
    """A model as a function of tables; loaded in each process when its first table comes. Can be pickled."""

    def __init__(self, package: ModelPackage, options: ScorerOptions) -> None:
        """options: complete but for those with a fixed default."""
        self._package: Final = package
        self._options: Final = options
        self._plans: dict[pa.Schema, Plan] = {}

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
        self._plans = {}

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
        # Integers stay such where a row has none.
        return self._score_table(frame).to_pandas(integer_object_nulls=True)

    def map_in_pandas(self, frames: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        """Yield the scored rows of each DataFrame; what Spark's `DataFrame.mapInPandas` takes."""
        for frame in frames:
            yield self(frame)

    def schema(self, schema: pa.Schema) -> pa.Schema:
        """Return the columns of the result for those of the input. Raises ColumnMismatch."""
        return self._plan(schema).schema

    def close(self) -> None:
        """Free the model in this process; it is loaded again when it is needed."""
        with LOADED.lock:
            LOADED.close(self._package, self._device, self._threads)

    def _score_table(self, table: pa.Table) -> pa.Table:
        batches = table.combine_chunks().to_batches() or [pa.RecordBatch.from_pylist([], schema=table.schema)]
        return pa.Table.from_batches([self._score(batch) for batch in batches])

    def _plan(self, schema: pa.Schema) -> Plan:
        bare = schema.remove_metadata()
        if bare not in self._plans:
            self._plans[bare] = self._made_plan(bare)
        return self._plans[bare]

    def _made_plan(self, schema: pa.Schema) -> Plan:
        spec = self._spec(tuple(self._options.get("keep", ())))
        preparation = make_preparation(self._package, spec, schema, read_bytes=_read_local)
        kept = spec.keep if "keep" in self._options else tuple(
            name for name in schema.names if name not in preparation.columns
        )  # fmt: skip
        manifest = self._package.manifest
        names = OutputColumns(manifest, self._spec(kept), schema).schema
        fields = [] if self._options.get("errors") == "raise" else [pa.field(ERROR, pa.string())]
        return Plan(preparation, OutputColumns(manifest, self._spec(()), schema), kept, pa.schema([*names, *fields]))

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
        with LOADED.lock:
            model = LOADED.get(self._package, self._device, self._threads)
            return Run(batch, plan, model, self._max_rows).result(raising=self._options.get("errors") == "raise")

    @property
    def _device(self) -> str:
        return self._options.get("device", "cpu")

    @property
    def _threads(self) -> int:
        return self._options.get("threads", 0)

    @property
    def _max_rows(self) -> int:
        batching = self._package.manifest.batching
        return (self._options.get("max_rows") or batching.max_rows) if batching.independent_rows else 1


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
