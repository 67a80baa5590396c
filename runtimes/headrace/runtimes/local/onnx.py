"""ONNX Runtime: CPU, CUDA and TensorRT execution providers."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Final

import onnxruntime as ort

from headrace.contracts import ConfigurationError, ModelPackage, PackageError, Tensors, TensorSpec
from headrace.contracts.formatting import first_line
from headrace.runtimes.fixed_rows import check_row_sizes
from headrace.runtimes.local.failures import passing_failure
from headrace.runtimes.local.onnx_support.outputs import model_of_outputs
from headrace.runtimes.local.onnx_support.session import SessionConfig, SessionFailed, open_session
from headrace.runtimes.local.onnx_support.types import datatype_of_tensor
from headrace.runtimes.local.onnx_support.values import converted
from headrace.runtimes.local.ports import Port, declared_rows

#: `--device` name → execution provider, and the provider operators fall back to that it can't run.
_PROVIDERS: Final = {
    "cpu": ("CPUExecutionProvider",),
    "cuda": ("CUDAExecutionProvider", "CPUExecutionProvider"),
    "tensorrt": ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"),
}

#: ONNX Runtime's severity "fatal". Exceptions hold the text of its errors, which is logged where they are caught; its
#: warnings about graph details help nobody who runs a worker.
_LOG_FATAL_ONLY: Final = 4

#: Leaves a parameter of ONNX Runtime's arena as it is by default.
_ARENA_DEFAULT: Final = -1


@functools.cache
def _share_arena() -> None:
    """Let all sessions of this process that ask for it take memory on the CPU from one arena.

    An arena keeps what it ever had, and outputs lie in it until they are stored: while Postgres is away, each model's
    own would grow to all that the outbox holds.
    """
    where = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    ort.create_and_register_allocator(where, ort.OrtArenaCfg(0, _ARENA_DEFAULT, _ARENA_DEFAULT, _ARENA_DEFAULT))


class OnnxRuntime:
    """Loads `.onnx` files."""

    def __init__(self, device: str, threads: int) -> None:
        """device: `cpu`, `cuda`, `cuda:N`, `tensorrt` or `tensorrt:N`. Raises ConfigurationError when absent."""
        # Official builds tell their maker of the models that are loaded.
        ort.disable_telemetry_events()
        ort.set_default_logger_severity(_LOG_FATAL_ONLY)
        _share_arena()
        self._providers = providers_for(device, ort.get_available_providers())
        self._threads = threads

    def load(self, package: ModelPackage) -> OnnxModel:
        """Load a package's `.onnx` file. Raises PackageError naming the cause."""
        # Threads that spin between batches steal the cores of the worker's own threads.
        entries = {"session.intra_op.allow_spinning": "0", "session.use_env_allocators": "1"}
        if package.manifest.files:
            # Of a model that is given as bytes ONNX Runtime doesn't know where its weights are.
            entries["session.model_external_initializers_file_folder_path"] = str(package.file.parent)
        config = SessionConfig(threads=self._threads, providers=self._providers, entries=entries)
        try:
            session = open_session(model_of_outputs(package), config)
        except SessionFailed as exc:
            if (passing := passing_failure(exc.cause)) is not None:
                raise passing from exc.cause
            raise PackageError(
                f"{package.file} can't be loaded by ONNX Runtime: {first_line(exc.cause)}"
            ) from exc.cause
        return OnnxModel(package, session)


class OnnxModel:
    """One inference session."""

    def __init__(self, package: ModelPackage, session: ort.InferenceSession) -> None:
        """Compare the session's names with the package's. Raises PackageError."""
        signature = package.manifest.file_signature
        self._session: ort.InferenceSession | None = session
        self._outputs = [spec.name for spec in signature.outputs]
        inputs = [*session.get_inputs(), *session.get_overridable_initializers()]
        _compare(package, "input", signature.inputs, inputs)
        _compare(package, "output", signature.outputs, session.get_outputs())
        check_row_sizes(package, _rows_of(signature.inputs, inputs))
        self._converted = converted(package, signature)

    def infer(self, inputs: Tensors) -> Tensors:
        """Run one batch."""
        if self._session is None:
            raise RuntimeError("the model was closed")
        try:
            if self._converted is None:
                values = self._session.run(self._outputs, inputs)
            else:
                values = self._converted.run(self._session, inputs)
        except Exception as exc:
            if (passing := passing_failure(exc)) is not None:
                raise passing from exc
            raise
        return dict(zip(self._outputs, values, strict=True))

    def close(self) -> None:
        """Free the session."""
        self._session = None


def _compare(package: ModelPackage, kind: str, specs: Sequence[TensorSpec], nodes: Sequence[Any]) -> None:
    """Raise PackageError where names, datatypes or sizes of the file are not those of the package."""
    found = {node.name: node for node in nodes}
    unknown = sorted({spec.name for spec in specs} - set(found))
    if unknown:
        raise PackageError(
            f"{package.file} has no {kind} {', '.join(unknown)} as model.toml says; it has: {', '.join(found)}"
        )
    for spec in specs:
        node = found[spec.name]
        datatype = datatype_of_tensor(node.type)
        if datatype is not None and datatype != spec.datatype:
            raise PackageError(
                f"{package.file} has {kind} {spec.name!r} of {datatype}, but model.toml says {spec.datatype}"
            )
        # Outputs are compared when they come: exporters declare sizes that aren't those. Of a tensor without known
        # dimensions ONNX Runtime says that it has none.
        if kind == "input" and datatype is not None and node.shape and not _takes(spec, node.shape):
            raise PackageError(
                f"{package.file} has input {spec.name!r} of shape {node.shape}, but model.toml says {spec.describe()}"
            )


def _takes(spec: TensorSpec, shape: Sequence[int | str | None]) -> bool:
    """Return whether a package's input may be what the file declares; what varies in either is left to requests."""
    wanted = spec.whole_shape(-1)
    if spec.any_shape or len(wanted) != len(shape):
        return spec.any_shape
    sizes = [(want, have) for want, have in zip(wanted, shape, strict=True) if isinstance(have, int)]
    return all(want in (-1, have) for want, have in sizes)


def _rows_of(specs: Sequence[TensorSpec], nodes: Sequence[Any]) -> list[int]:
    """Return the numbers of rows that the file fixes; none when it takes any."""
    names = [node.name for node in nodes]
    # Of a tensor without known dimensions ONNX Runtime says that it has none; declared_rows finds no rows in it.
    ports = [
        Port(node.name, None, tuple(size if isinstance(size, int) else -1 for size in node.shape)) for node in nodes
    ]
    return declared_rows(specs, ports, [names.index(spec.name) for spec in specs])


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
