"""ONNX Runtime: CPU, CUDA and TensorRT execution providers."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from headrace.contracts import ConfigurationError, ModelPackage, PackageError, Tensors
from headrace.contracts.datatypes import DTYPES
from headrace.contracts.wording import first_line
from headrace.runtimes.local.failures import passing_failure

#: `--device` name → execution provider, and the provider operators fall back to that it can't run.
_PROVIDERS: Final = {
    "cpu": ("CPUExecutionProvider",),
    "cuda": ("CUDAExecutionProvider", "CPUExecutionProvider"),
    "tensorrt": ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"),
}

#: TensorProto.BFLOAT16 of onnx.proto; numpy has no such type, so the value crosses by its number.
_ONNX_BFLOAT16: Final = 16

#: ONNX Runtime's severity "error": its warnings about graph details help nobody who runs a worker.
_LOG_ERRORS_ONLY: Final = 3


class OnnxRuntime:
    """Loads `.onnx` files."""

    def __init__(self, device: str, threads: int) -> None:
        """device: `cpu`, `cuda`, `cuda:N`, `tensorrt` or `tensorrt:N`. Raises ConfigurationError when absent."""
        # Official builds tell their maker of the models that are loaded.
        ort.disable_telemetry_events()
        self._providers = providers_for(device, ort.get_available_providers())
        self._threads = threads

    def load(self, package: ModelPackage) -> OnnxModel:
        """Load a package's `.onnx` file. Raises PackageError naming the cause."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _LOG_ERRORS_ONLY
        # Threads that spin between batches steal the cores of the worker's own threads.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            session = ort.InferenceSession(str(package.file), options, providers=self._providers)
        except Exception as exc:  # ONNX Runtime's exception classes share no base but Exception.
            if (passing := passing_failure(exc)) is not None:
                raise passing from exc
            raise PackageError(f"{package.file} can't be loaded by ONNX Runtime: {first_line(exc)}") from exc
        return OnnxModel(package, session)


class OnnxModel:
    """One inference session."""

    def __init__(self, package: ModelPackage, session: ort.InferenceSession) -> None:
        """Compare the session's names with the package's. Raises PackageError."""
        signature = package.manifest.signature
        self._session: ort.InferenceSession | None = session
        self._outputs = [spec.name for spec in signature.outputs]
        for kind, specs, nodes in (
            ("input", signature.inputs, session.get_inputs()),
            ("output", signature.outputs, session.get_outputs()),
        ):
            unknown = {spec.name for spec in specs} - {node.name for node in nodes}
            if unknown:
                raise PackageError(
                    f"{package.file} has no {kind} {', '.join(sorted(unknown))} as model.toml says; it has: "
                    f"{', '.join(node.name for node in nodes)}"
                )
        self._plain = not any(spec.datatype in {"BYTES", "BF16"} for spec in (*signature.inputs, *signature.outputs))

    def infer(self, inputs: Tensors) -> Tensors:
        """Run one batch."""
        if self._session is None:
            raise RuntimeError("the model was closed")
        feed: dict[str, Any] = inputs if self._plain else {name: _to_ort(array) for name, array in inputs.items()}
        try:
            values = self._session.run(self._outputs, feed)
        except Exception as exc:
            if (passing := passing_failure(exc)) is not None:
                raise passing from exc
            raise
        if not self._plain:
            values = [_from_ort(value) for value in values]
        return dict(zip(self._outputs, values, strict=True))

    def close(self) -> None:
        """Free the session."""
        self._session = None


def providers_for(device: str, available: list[str]) -> list[str | tuple[str, dict[str, str]]]:
    """Choose execution providers for a `--device`. Raises ConfigurationError naming what is missing."""
    kind, _, index = device.partition(":")
    if kind not in _PROVIDERS or (index and not index.isdigit()) or (kind == "cpu" and index):
        raise ConfigurationError(f"device {device!r} does not exist; use cpu, cuda, cuda:N, tensorrt or tensorrt:N")
    wanted = _PROVIDERS[kind]
    if wanted[0] not in available:
        raise ConfigurationError(
            f"device {device!r} needs ONNX Runtime's {wanted[0]}, but this installation has only "
            f"{', '.join(available)}; install onnxruntime-gpu and its CUDA libraries, or use --device cpu"
        )
    return [
        (name, {"device_id": index}) if index and name != "CPUExecutionProvider" else name
        for name in wanted
        if name in available
    ]


def _to_ort(array: NDArray[Any]) -> object:
    if array.dtype == DTYPES["BF16"]:
        return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(array.view(np.uint16), _ONNX_BFLOAT16)
    if array.dtype.kind == "O":
        return np.array([element.decode() for element in array.reshape(-1)], dtype=object).reshape(array.shape)
    return array


def _from_ort(value: NDArray[Any]) -> NDArray[Any]:
    if value.dtype.kind in "OSU":
        flat = np.empty(value.size, dtype=object)
        flat[:] = [element.encode() if isinstance(element, str) else bytes(element) for element in value.reshape(-1)]
        return flat.reshape(value.shape)
    return value
