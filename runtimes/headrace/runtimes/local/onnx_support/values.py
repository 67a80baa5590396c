"""Values that cross between numpy and ONNX Runtime in another form: strings, BF16, sequences."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from headrace.contracts import ModelPackage, OutputMismatch, PackageError, Signature, Tensors, TensorSpec
from headrace.contracts.tensors.datatypes import DTYPES, dtype_of

#: TensorProto.BFLOAT16 of onnx.proto; numpy has no such type, so the value crosses by its number.
_ONNX_BFLOAT16: Final = 16

#: ONNX Runtime's name of the type of such a value.
_BFLOAT16_TENSOR: Final = "tensor(bfloat16)"


class Conversion:
    """Runs a session some of whose inputs or outputs numpy can't hold as ONNX Runtime does."""

    def __init__(self, signature: Signature) -> None:
        """signature: that of the file."""
        self._sequences: Final = {spec.name for spec in signature.inputs if spec.sequence}
        self._outputs: Final = signature.outputs

    def run(self, session: ort.InferenceSession, inputs: Tensors) -> list[NDArray[Any]]:
        """Run one batch; the outputs in their order."""
        feed = {name: self._to_ort(name, array) for name, array in inputs.items()}
        values = self._values(session, [spec.name for spec in self._outputs], feed)
        return [self._from_ort(spec, value) for spec, value in zip(self._outputs, values, strict=True)]

    @staticmethod
    def _values(session: ort.InferenceSession, outputs: list[str], feed: dict[str, Any]) -> Sequence[Any]:
        values: Sequence[Any] = session.run(outputs, feed)
        return values

    def _from_ort(self, spec: TensorSpec, value: Any) -> NDArray[Any]:
        if isinstance(value, list):
            return self._stacked(spec, [_unquoted(element) for element in value])
        if value is None:
            raise OutputMismatch(f"the model gave nothing for its output {spec.name!r}")
        return _unquoted(value)

    def _stacked(self, spec: TensorSpec, elements: list[NDArray[Any]]) -> NDArray[Any]:
        if not elements:
            return np.empty((0, *(max(size, 0) for size in spec.shape[1:])), dtype_of(spec.datatype))
        shapes = sorted({element.shape for element in elements})
        if len(shapes) > 1:
            found = " and ".join(str(list(shape)) for shape in shapes[:2])
            several = len(self._outputs) > 1
            remedy = (
                "keep the other outputs only: `headrace models add … --keep A,B`" if several else "export it padded"
            )
            raise OutputMismatch(
                f"output {spec.name!r} is a sequence of tensors of different shapes, such as {found}, which can't be "
                f"stacked into one; {remedy}"
            )
        return np.stack(elements)

    def _to_ort(self, name: str, array: NDArray[Any]) -> object:
        if name in self._sequences:
            return [_to_ort(element) for element in array]
        return _to_ort(array)


class Bf16Conversion(Conversion):
    """Runs a session with outputs of BF16, which ONNX Runtime doesn't turn into arrays."""

    @staticmethod
    def _values(session: ort.InferenceSession, outputs: list[str], feed: dict[str, Any]) -> Sequence[Any]:
        given = {
            name: value if isinstance(value, ort.OrtValue) else ort.OrtValue.ortvalue_from_numpy(value)
            for name, value in feed.items()
        }
        return [_array_of(value) for value in session.run_with_ort_values(outputs, given)]


def converted(package: ModelPackage, signature: Signature) -> Conversion | None:
    """Return how values cross for a model; None when arrays cross as they are. Raises PackageError where none can."""
    tensors = (*signature.inputs, *signature.outputs)
    if not any(spec.datatype in {"BYTES", "BF16"} or spec.sequence for spec in tensors):
        return None
    if not any(spec.datatype == "BF16" for spec in signature.outputs):
        return Conversion(signature)
    for spec in signature.inputs:
        if spec.datatype == "BYTES" or spec.sequence:
            raise PackageError(
                f"{package.file} gives BF16 for the input {spec.describe()}, which ONNX Runtime can't do from Python; "
                "leave the BF16 outputs out with [store] keep"
            )
    return Bf16Conversion(signature)


def _to_ort(array: NDArray[Any]) -> object:
    if array.dtype == DTYPES["BF16"]:
        # ascontiguousarray gives a single value a dimension.
        codes = np.ascontiguousarray(array).view(np.uint16).reshape(array.shape)
        return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(codes, _ONNX_BFLOAT16)
    if array.dtype.kind == "O":
        return np.array([element.decode() for element in array.reshape(-1)], dtype=object).reshape(array.shape)
    return array


def _array_of(value: ort.OrtValue) -> Any:
    """Return the value of an OrtValue in memory of its own."""
    if value.data_type() != _BFLOAT16_TENSOR:
        return value.numpy()
    array = np.empty(value.shape(), DTYPES["BF16"])
    ctypes.memmove(array.ctypes.data, value.data_ptr(), array.nbytes)
    return array


def _unquoted(value: NDArray[Any]) -> NDArray[Any]:
    if value.dtype.kind in "OSU":
        flat = np.empty(value.size, dtype=object)
        flat[:] = [element.encode() if isinstance(element, str) else bytes(element) for element in value.reshape(-1)]
        return flat.reshape(value.shape)
    return value
