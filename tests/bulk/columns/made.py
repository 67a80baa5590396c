"""Packages, jobs and tables for the tests of columns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from headrace.bulk.columns.base import PreparedRows
from headrace.bulk.columns.preparation import ColumnPreparation, make_preparation
from headrace.contracts import ModelPackage, TensorSpec
from headrace.contracts.jobs import ScoreSpec
from headrace.contracts.package.manifest import Manifest

OUTPUTS = (TensorSpec(name="y", datatype="FP32", shape=(10,)),)


def tensor(name: str = "x", datatype: str = "FP32", shape: tuple[int, ...] = (), **more: Any) -> TensorSpec:
    """Return the spec of a tensor."""
    return TensorSpec(name=name, datatype=datatype, shape=shape, **more)


def manifest(*inputs: TensorSpec, **more: Any) -> Manifest:
    """Return the manifest of a model."""
    fields: dict[str, Any] = {"outputs": OUTPUTS, **more}
    return Manifest(name="m", version="1", runtime="onnxruntime", file="m", sha256="0", inputs=inputs, **fields)


def job(**fields: Any) -> ScoreSpec:
    """Return what a job computes."""
    return ScoreSpec(model="m", inputs=("/in",), output="/out", **fields)


def preparation(
    schema: pa.Schema, *inputs: TensorSpec, spec: ScoreSpec | None = None, **more: Any
) -> ColumnPreparation:
    """Return a preparation for a model without files."""
    package = ModelPackage(folder=Path("/nowhere"), manifest=manifest(*inputs, **more))
    return make_preparation(package, spec or job(), schema)


def prepared(table: pa.RecordBatch, *inputs: TensorSpec, **job_fields: Any) -> PreparedRows:
    """Return the rows of a table, prepared for a model."""
    return preparation(table.schema, *inputs, spec=job(**job_fields)).prepare(table)


def tensors_of(rows: PreparedRows) -> dict[str, Any]:
    """Return the tensors of all good rows."""
    return rows.tensors(np.arange(len(rows.good)))


def one(values: Any, *, name: str = "x", kind: pa.DataType | None = None) -> pa.RecordBatch:
    """Return a table of one column."""
    array = values if isinstance(values, pa.Array) else pa.array(values, kind)
    return pa.RecordBatch.from_arrays([array], names=[name])


def reasons(rows: PreparedRows) -> dict[int, str]:
    """Return row → why it is bad."""
    return {refused.at: refused.message for refused in rows.refused}
