"""Reads an ONNX file: its signature, its weights, and the proof by a trial run that rows in are rows out."""

from __future__ import annotations

import datetime as dt
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

from headrace.contracts import PackageError, Tensors, TensorSpec, read_package
from headrace.contracts.datatypes import FLOATS, dtype_of
from headrace.contracts.package import Manifest, write_manifest
from headrace.contracts.wording import first_line
from headrace.runtimes.base import find_runtime

if TYPE_CHECKING:
    import onnx

#: ONNX Runtime's names of tensor types → OIP v2 datatypes.
_DATATYPES: Final = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(bfloat16)": "BF16",
    "tensor(string)": "BYTES",
}

#: Row counts of the trial: one row hides a frozen batch of one, three are neither one nor a usual batch size.
_TRIAL_ROWS: Final = (1, 3)

#: Sizes tried for dimensions that vary: a short sequence, then what image models with several poolings need.
_TRIAL_SIZES: Final = (16, 64, 224)

#: protobuf, which ONNX files are, can't write more into one file.
_MAX_FILE_BYTES: Final = 2**31 - 1


def take_in(file: Path, target: Path) -> dict[str, Any]:
    """Copy an ONNX file with all its weights into one; gives what it says of its origin."""
    import onnx
    from google.protobuf.message import DecodeError, EncodeError  # type: ignore[import-untyped]

    try:
        model = onnx.load(file, load_external_data=False)
        if _has_external_data(model.graph):
            onnx.load_external_data_for_model(model, str(file.absolute().parent))
            if model.ByteSize() > _MAX_FILE_BYTES:
                raise PackageError(f"{file} with its weights is larger than 2 GiB, which one ONNX file can't hold")
            target.write_bytes(model.SerializeToString())
        else:
            shutil.copyfile(file, target)
    except DecodeError as exc:
        raise PackageError(f"{file} is not an ONNX file, or a damaged one; export the model again") from exc
    except FileNotFoundError as exc:
        raise PackageError(f"{file} can't be read: {exc.filename or file} does not exist") from exc
    except (onnx.checker.ValidationError, EncodeError, ValueError) as exc:
        raise PackageError(f"the weights beside {file} can't be read: {exc}; copy both files, or export again") from exc
    producer = f"{model.producer_name} {model.producer_version}".strip()
    return {
        "source": file.name,
        "added_at": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "opset": max((opset.version for opset in model.opset_import if opset.domain in {"", "ai.onnx"}), default=0),
        **({"producer": producer} if producer else {}),
    }


def _has_external_data(graph: onnx.GraphProto) -> bool:
    """Whether some weight of a graph, or of a graph within it, lies in another file."""
    from onnx.external_data_helper import uses_external_data

    attributes = [attribute for node in graph.node for attribute in node.attribute]
    tensors = [*graph.initializer, *(attribute.t for attribute in attributes)]
    tensors += [tensor for attribute in attributes for tensor in attribute.tensors]
    graphs = [attribute.g for attribute in attributes if attribute.HasField("g")]
    graphs += [inner for attribute in attributes for inner in attribute.graphs]
    return any(map(uses_external_data, tensors)) or any(map(_has_external_data, graphs))


def signature_of(path: Path, *, allow_nan: bool) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Read inputs and outputs as the file declares them. Raises PackageError when headrace can't serve them."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as exc:  # ONNX Runtime's exception classes share no base but Exception.
        raise PackageError(f"ONNX Runtime can't load the file: {first_line(exc)}; export the model again") from exc
    inputs = session.get_inputs()
    if not inputs:
        raise PackageError("the model has no inputs, so there is nothing to ask it")
    for node in inputs:
        _check_rows(node.name, node.shape)
    return (
        tuple(_spec_of("input", node, allow_nan=allow_nan) for node in inputs),
        tuple(_spec_of("output", node, allow_nan=True) for node in session.get_outputs()),
    )


def _check_rows(name: str, shape: Sequence[int | str | None]) -> None:
    if not shape:
        raise PackageError(
            f"input {name!r} is a single value without rows; its first dimension must be the rows of a batch"
        )
    if isinstance(shape[0], int):
        raise PackageError(
            f"input {name!r} has a frozen batch dimension of {shape[0]}, so the model can't take batches of any size; "
            "export it with a dynamic first dimension (torch.onnx.export(..., dynamic_shapes=...), skl2onnx: None)"
        )


def _spec_of(kind: str, node: Any, *, allow_nan: bool) -> TensorSpec:
    datatype = _DATATYPES.get(node.type)
    if datatype is None:
        remedy = "export it as a plain tensor"
        if node.type.startswith(("seq(", "map(")):
            remedy += " (for scikit-learn classifiers: to_onnx(..., options={'zipmap': False}))"
        raise PackageError(f"{kind} {node.name!r} is of type {node.type}, which can't be batched; {remedy}")
    shape = tuple(size if isinstance(size, int) else -1 for size in node.shape[1:])
    return TensorSpec(name=node.name, datatype=datatype, shape=shape, allow_nan=allow_nan or datatype not in FLOATS)


def try_out(folder: Path, draft: Manifest) -> tuple[TensorSpec, ...]:
    """Run the model as a worker does, and give its outputs with what the run taught of their shapes."""
    write_manifest(folder, draft)
    model = find_runtime("onnxruntime", "cpu", 1).load(read_package(folder))
    sizes = _TRIAL_SIZES if any(spec.varies for spec in draft.inputs) else (1,)
    try:
        for size in sizes:
            try:
                results = [model.infer(random_rows(draft.inputs, rows, size)) for rows in _TRIAL_ROWS]
            except Exception as exc:  # noqa: BLE001  (ONNX Runtime's exceptions share no base; the last is reported)
                failure = exc
            else:
                return tuple(
                    _learn(spec, draft.inputs, [result[spec.name] for result in results]) for spec in draft.outputs
                )
    finally:
        model.close()
    raise PackageError(
        f"the model fails on random rows: {first_line(failure)}; it must run batches of {_TRIAL_ROWS[-1]} rows"
    ) from failure


def _learn(spec: TensorSpec, inputs: Sequence[TensorSpec], values: Sequence[np.ndarray[Any, Any]]) -> TensorSpec:
    """Check that an output has the rows of the input, and complete the shape that the file declares."""
    for rows, value in zip(_TRIAL_ROWS, values, strict=True):
        if value.ndim == 0 or value.shape[0] != rows:
            raise PackageError(
                f"output {spec.name!r} has the shape {list(value.shape)} for {rows} rows of input; its first dimension "
                "must be the rows: export the model so that every output keeps one entry a row"
            )
    seen = values[-1].shape[1:]
    declared = spec.shape if len(spec.shape) == len(seen) else (-1,) * len(seen)
    if not any(given.varies for given in inputs):
        # Nothing but the rows varies, so what the file leaves open was decided by its own sizes.
        same = values[0].shape[1:] == seen
        declared = tuple(have if same and want == -1 else want for want, have in zip(declared, seen, strict=True))
    return msgspec.structs.replace(spec, shape=declared)


def random_rows(specs: Sequence[TensorSpec], rows: int, size: int) -> Tensors:
    """Make a batch that most models can run: normal numbers; zeros and ones for indices; short strings."""
    random = np.random.default_rng(rows)
    batch: Tensors = {}
    for spec in specs:
        shape = (rows, *(size if want == -1 else want for want in spec.shape))
        if spec.datatype == "BYTES":
            batch[spec.name] = np.full(shape, b"a", dtype=object)
        elif spec.datatype in FLOATS:
            batch[spec.name] = random.standard_normal(shape).astype(dtype_of(spec.datatype))
        else:
            batch[spec.name] = random.integers(0, 2, shape).astype(dtype_of(spec.datatype))
    return batch


def check_labels(manifest: Manifest) -> None:
    """Refuse labels whose number no output has as its last dimension. Raises PackageError."""
    count = len(manifest.labels)
    if count and not any(spec.shape and spec.shape[-1] in {-1, count} for spec in manifest.outputs):
        outputs = "; ".join(spec.describe() for spec in manifest.outputs)
        raise PackageError(f"{count} labels fit no output, whose last dimension would be {count}; outputs: {outputs}")
