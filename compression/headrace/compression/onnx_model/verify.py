"""The end of a step on an ONNX model: its product becomes a package, verified against the source."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

from headrace.compression.data.random_rows import random_rows
from headrace.compression.data.row_layout import RUN_ROWS, RowRuns, as_taken, rows_first
from headrace.compression.errors import CompressionError, DataError, NotApplicable, ProductFailed
from headrace.compression.onnx_model.shared_ranges import company_changes
from headrace.compression.onnx_model.sharing import share_constants
from headrace.compression.onnx_model.source import name_nodes, nodes_of, require_constants, sort_nodes
from headrace.compression.steps import StepContext
from headrace.contracts import ModelPackage, PackageError, SignatureMismatch, Tensors, read_package
from headrace.contracts.formatting import first_line
from headrace.contracts.package.manifest import write_manifest
from headrace.lifecycle.packages.registry import MODEL_FILE, derive_package
from headrace.runtimes.base import LoadedModel
from headrace.runtimes.loading import load_model

if TYPE_CHECKING:
    import onnx

#: Row counts of the proof: one, few, and a full batch.
PROOF_ROWS: Final = (1, 3, 64)

#: Operators that take the range of a whole batch, so that a row's answer depends a little on those beside it.
BATCH_DEPENDENT: Final = "DynamicQuantize"
_DEPENDS: Final = "an answer depends a little on the rows that share its batch"

#: Sizes tried for dimensions that vary when there are no real rows: a short sequence, then what image models need.
_TRIAL_SIZES: Final = (16, 64, 224)


def finish(
    model: onnx.ModelProto, source: ModelPackage, context: StepContext, folder: Path, record: dict[str, Any]
) -> ModelPackage:
    """Write a step's model into its folder as a package, load it and compare its outputs with the source's.

    record: of the step. Raises CompressionError when it can't be served as the source; the folder is then empty.
    """
    name_nodes(model.graph)
    sort_nodes(model.graph)
    share_constants(model)
    leave_out_notes(model)
    require_constants(model, source)
    shares_range = any(node.op_type.startswith(BATCH_DEPENDENT) for node in nodes_of(model.graph))
    if shares_range:
        record = {**record, "batch_dependent": True, "notes": [*record.get("notes", []), _DEPENDS]}
    folder.mkdir(exist_ok=True)
    file = folder / MODEL_FILE
    file.write_bytes(model.SerializeToString(deterministic=True))
    product = derive_package(source, folder, [file], runtime="onnxruntime", step=record)
    try:
        prove(product, source, context)
        return _kept_apart(product, source, context) if shares_range else product
    except CompressionError:
        shutil.rmtree(folder)
        raise


def _kept_apart(product: ModelPackage, source: ModelPackage, context: StepContext) -> ModelPackage:
    """Have the requests to a product run alone where company changes its answers by more than quantization does."""
    manifest = product.manifest
    if not manifest.batching.independent_rows:
        return product
    before, after = load(source, context.threads), load(product, context.threads)
    try:
        why = company_changes(source, before, after, proof_batches(source, context, before)[-1])
    finally:
        before.close()
        after.close()
    if not why:
        return product
    if manifest.batching.row_sizes:
        raise NotApplicable(f"{why}; a model that pads its batches can't be served with rows that depend on each other")
    *steps, last = manifest.provenance["steps"]
    last = {**last, "notes": [*last.get("notes", []), f"each request runs alone: {why}"]}
    batching = msgspec.structs.replace(manifest.batching, independent_rows=False)
    provenance = {**manifest.provenance, "steps": [*steps, last]}
    write_manifest(product.folder, msgspec.structs.replace(manifest, batching=batching, provenance=provenance))
    return read_package(product.folder)


def leave_out_notes(model: onnx.ModelProto) -> None:
    """Drop what ONNX Runtime notes in a file and infers by itself: in graphs of many nodes it outweighs the weights."""
    del model.graph.value_info[:]
    for node in model.graph.node:
        node.ClearField("doc_string")
    used = {node.domain for node in nodes_of(model.graph)} | {"", *(each.domain for each in model.functions)}
    for position in reversed(range(len(model.opset_import))):
        if model.opset_import[position].domain.replace("ai.onnx", "", 1) not in {
            domain.replace("ai.onnx", "", 1) for domain in used
        }:
            del model.opset_import[position]


def prove(product: ModelPackage, source: ModelPackage, context: StepContext) -> None:
    """Run both on the same rows: names, datatypes and shapes must be the same, and finite what was finite.

    Raises CompressionError naming the output that isn't.
    """
    before = load(source, context.threads)
    try:
        after = load(product, context.threads)
    except PackageError as exc:
        before.close()
        raise ProductFailed(f"the compressed model can't be loaded: {exc}") from exc
    try:
        for batch in proof_batches(source, context, before):
            _compare(run(before, batch, "the model"), _run_product(after, batch))
    finally:
        before.close()
        after.close()


def load(package: ModelPackage, threads: int) -> LoadedModel:
    """Load a package with the runtime that serves it."""
    return load_model(package, "cpu", threads)


def run(model: LoadedModel, batch: Tensors, whose: str) -> Tensors:
    """Run one batch. Raises CompressionError with the cause."""
    try:
        return model.infer(batch)
    except Exception as exc:  # ONNX Runtime's exception classes share no base but Exception.
        raise CompressionError(f"{whose} fails on its own rows: {first_line(exc)}") from exc


def _run_product(model: LoadedModel, batch: Tensors) -> Tensors:
    try:
        return run(model, batch, "the compressed model")
    except CompressionError as exc:
        raise ProductFailed(exc.message) from exc.__cause__


def checked_rows(package: ModelPackage, context: StepContext, minimum: int) -> RowRuns:
    """Return the calibration rows, checked.

    Raises DataError when they are fewer than `minimum`, don't fit the model's inputs, or hold NaN or infinity.
    """
    rows = context.data.calibration.inputs
    count = len(next(iter(rows.values()), ()))
    if count < minimum:
        raise DataError(
            f"calibration needs at least {minimum} rows, but there are {count}; give more data, such as the rows that "
            "trained the model"
        )
    checked = RowRuns.of(package, _fitting_rows(package, rows), RUN_ROWS)
    for name, array in checked.tensors.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise DataError(f"the calibration rows hold NaN or infinity in {name!r}; leave those rows out")
    return checked


def _fitting_rows(package: ModelPackage, rows: Tensors) -> Tensors:
    specs = package.manifest.inputs
    try:
        return rows_first(specs, package.manifest.signature.check_inputs(as_taken(specs, rows)))
    except SignatureMismatch as exc:
        raise DataError(f"the calibration rows don't fit {package.name} {package.version}: {exc}") from exc


def proof_batches(source: ModelPackage, context: StepContext, model: LoadedModel) -> list[Tensors]:
    """Return batches to prove with: of real rows, repeated if there are few; of random ones if there are none."""
    inputs = source.manifest.inputs
    if len(context.data.calibration):
        rows = _fitting_rows(source, context.data.calibration.inputs)
        return [
            as_taken(inputs, {name: np.resize(array, (count, *array.shape[1:])) for name, array in rows.items()})
            for count in PROOF_ROWS
        ]
    sizes = _TRIAL_SIZES if any(spec.varies for spec in inputs) else (1,)
    fitting = next((size for size in sizes if _runs(model, random_rows(inputs, 1, size))), sizes[-1])
    return [random_rows(inputs, count, fitting) for count in PROOF_ROWS]


def _runs(model: LoadedModel, batch: Tensors) -> bool:
    try:
        model.infer(batch)
    except Exception:  # noqa: BLE001  (ONNX Runtime's exceptions share no base; another size is tried)
        return False
    return True


def _compare(before: Tensors, after: Tensors) -> None:
    if before.keys() != after.keys():
        raise CompressionError(f"the compressed model gives {', '.join(after)} instead of {', '.join(before)}")
    for name, want in before.items():
        have = after[name]
        if (have.dtype, have.shape) != (want.dtype, want.shape):
            raise CompressionError(
                f"output {name!r} of the compressed model is {have.dtype} {list(have.shape)}, but was {want.dtype} "
                f"{list(want.shape)}"
            )
        if want.dtype.kind == "f" and bool((np.isfinite(want) & ~np.isfinite(have)).any()):
            raise CompressionError(f"output {name!r} of the compressed model is NaN or infinite where it was a number")
