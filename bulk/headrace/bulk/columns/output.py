"""Outputs of a model as columns: numbers as they are, vectors as fixed-size lists, labels for classifiers."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from headrace.bulk.columns.base import ColumnMismatch
from headrace.bulk.columns.classes import best_classes
from headrace.bulk.columns.matching import check_column
from headrace.contracts.jobs import ScoreSpec
from headrace.contracts.package.manifest import Manifest
from headrace.contracts.package.signature import TensorSpec
from headrace.contracts.tensors.codec import Tensors
from headrace.contracts.tensors.datatypes import DTYPES

#: Key of a column's metadata: the shape of its rows as JSON, whose values the column holds in one list.
SHAPE_KEY: Final = b"headrace.shape"

LABEL: Final = "label"
SCORE: Final = "score"

#: Datatypes that many readers of Parquet don't know are written as the next wider one, which holds them exactly.
_WIDER: Final = {"FP16": "FP32", "BF16": "FP32"}

#: Parts of the names of outputs that are probabilities rather than logits.
_PROBABILITIES: Final = ("prob", "softmax", "score")


class OutputColumns:
    """The columns of a job's output: those kept of the input first, then a model's outputs, then label and score."""

    def __init__(self, manifest: Manifest, spec: ScoreSpec, schema: pa.Schema) -> None:
        """schema: of the input. Raises ColumnMismatch for kept columns that it has not, or that clash with outputs."""
        self._outputs: Final = manifest.signature.outputs
        # Given a list, pyarrow asks pandas first, which takes half a second to import where it is installed.
        self._labels: Final = pa.array(np.array(manifest.labels, dtype=object), pa.string())
        self._classes: Final = _class_output(manifest)
        self._kept: Final = tuple(dict.fromkeys(spec.keep))
        names = {output.name for output in self._outputs}
        fields = [_field(output, spec.prefix) for output in self._outputs]
        if self._classes:
            # What the model itself calls so is not replaced.
            self._derived: tuple[str, ...] = tuple(name for name in (LABEL, SCORE) if name not in names)
            kinds = {LABEL: pa.string(), SCORE: fields[self._outputs.index(self._classes)].type.value_type}
            fields += [pa.field(spec.prefix + name, kinds[name]) for name in self._derived]
        else:
            self._derived = ()
        for column in self._kept:
            check_column(schema, column, "--keep")
        self._check_clash([field.name for field in fields], spec.prefix)
        #: Names and types of the columns.
        self.schema: Final = pa.schema([*(schema.field(name) for name in self._kept), *fields])

    def _check_clash(self, names: Sequence[str], prefix: str) -> None:
        clash = [name for name in names if name in self._kept]
        if clash:
            raise ColumnMismatch(
                f"the column {clash[0]!r} is kept, but an output of the model has that name too; "
                f"tell them apart with --prefix {prefix}model_"
            )
        if len(set(names)) < len(names):
            raise ColumnMismatch(f"two outputs get the same column {_twice(names)!r}; choose another --prefix")

    def batch(self, outputs: Tensors, kept: pa.RecordBatch) -> pa.RecordBatch:
        """Return rows of the output. outputs: of the model. kept: the same rows of the input, at least what is kept."""
        arrays = [kept.column(name) for name in self._kept]
        fields = list(self.schema)[: len(arrays)]
        arrays = [
            array if array.type == field.type else array.cast(field.type)
            for array, field in zip(arrays, fields, strict=True)
        ]
        rows = {spec.name: _rows_first(spec, outputs[spec.name]) for spec in self._outputs}
        arrays += [_column(spec, rows[spec.name]) for spec in self._outputs]
        if self._classes:
            arrays += self._classified(rows[self._classes.name])
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema)

    def _classified(self, scores: NDArray[Any]) -> list[pa.Array]:
        """Return the label of the highest score of each row, and that score; nulls where scores are NaN."""
        scores = _plain(scores.reshape(len(scores), -1))
        best, highest = best_classes(scores)
        unknown = np.isnan(highest) if highest.dtype.kind == "f" else None
        arrays = []
        if LABEL in self._derived:
            arrays.append(self._labels.take(pa.array(best, mask=unknown)))
        if SCORE in self._derived:
            arrays.append(pa.array(highest, mask=unknown))
        return arrays


def _twice(names: Sequence[str]) -> str:
    return next(name for index, name in enumerate(names) if name in names[:index])


def _class_output(manifest: Manifest) -> TensorSpec | None:
    """Return the output that holds a number for each label: probabilities, if several do."""
    count = len(manifest.labels)
    numbers = [spec for spec in manifest.signature.outputs if spec.datatype not in {"BYTES", "BOOL"}]
    found = [spec for spec in numbers if count > 1 and spec.shape and spec.shape[-1] == count == math.prod(spec.shape)]
    likely = [spec for spec in found if any(part in spec.name.lower() for part in _PROBABILITIES)]
    return next(iter(likely or found), None)


def _field(spec: TensorSpec, prefix: str) -> pa.Field:
    datatype = _WIDER.get(spec.datatype, spec.datatype)
    kind = pa.string() if datatype == "BYTES" else pa.from_numpy_dtype(DTYPES[datatype])
    free = spec.shape.count(-1)
    if free > 1:
        for _ in spec.shape:
            kind = pa.list_(kind)
    elif free:
        kind = pa.list_(kind)
    elif spec.shape:
        kind = pa.list_(kind, math.prod(spec.shape))
    metadata = {SHAPE_KEY: msgspec.json.encode(spec.shape)} if len(spec.shape) > 1 else None
    return pa.field(prefix + spec.name, kind, metadata=metadata)


def _rows_first(spec: TensorSpec, array: NDArray[Any]) -> NDArray[Any]:
    if spec.per_request:
        return array[None]
    return np.moveaxis(array, spec.rows_at, 0) if spec.rows_at else array


def _plain(array: NDArray[Any]) -> NDArray[Any]:
    """Return numbers in a contiguous array that Arrow takes without a copy."""
    if array.dtype.kind == "V" or array.dtype == np.float16:
        return array.astype(np.float32)
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))


def _column(spec: TensorSpec, rows: NDArray[Any]) -> pa.Array:
    flat = rows.reshape(-1)
    kind = pa.string() if spec.datatype == "BYTES" else None
    values = pa.array([_text(each) for each in flat.tolist()], kind) if kind else pa.array(_plain(flat))
    free = spec.shape.count(-1)
    if free > 1:
        for size in reversed(rows.shape[1:]):
            values = _lists(values, size)
        return values
    if free:
        return _lists(values, math.prod(rows.shape[1:]), len(rows))
    return pa.FixedSizeListArray.from_arrays(values, math.prod(spec.shape)) if spec.shape else values


def _lists(values: pa.Array, size: int, rows: int | None = None) -> pa.Array:
    """Return lists of a size; rows: how many, which empty ones don't tell."""
    count = rows if rows is not None else len(values) // size if size else 0
    return pa.ListArray.from_arrays(pa.array(np.arange(count + 1, dtype=np.int32) * size), values)


def _text(value: bytes | str) -> str:
    """Return text; bytes that are none become base64, as in the store."""
    if isinstance(value, str):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError:
        return base64.b64encode(value).decode()
