"""OpenVINO: its own format (`.xml` with weights in `.bin`) and `.onnx` files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from headrace.contracts import ConfigurationError, ModelPackage, PackageError
from headrace.contracts.telemetry import untracked
from headrace.runtimes.base import LoadedModel
from headrace.runtimes.fixed_rows import check_row_sizes
from headrace.runtimes.local.devices import split_device
from headrace.runtimes.local.failures import openvino_cause, passing_failure
from headrace.runtimes.local.openvino_shapes import ShapeCheck, needs_check
from headrace.runtimes.local.ports import Port, declared_rows, match_outputs, match_ports, refuse_datatypes
from headrace.runtimes.local.positional import PositionalModel

with untracked():
    import openvino as ov

_DEVICES: Final = {"cpu": "CPU", "gpu": "GPU", "npu": "NPU"}

#: Where a model file may ask for another precision than FP32: in its `rt_info`, which the checksum covers.
_PRECISION_PATH: Final = ["runtime_options", "INFERENCE_PRECISION_HINT"]


class OpenVinoRuntime:
    """Loads OpenVINO's `.xml` files with their `.bin`, and `.onnx` files."""

    def __init__(self, device: str, threads: int) -> None:
        """device: `cpu`, `gpu`, `gpu:N` or `npu`. Raises ConfigurationError when OpenVINO doesn't find it."""
        kind, index = split_device(device, _DEVICES, ("gpu",))
        self._core = ov.Core()
        found = [name for name in self._core.available_devices if name.partition(".")[0] == _DEVICES[kind]]
        self._device = f"{_DEVICES[kind]}.{index}" if index else _DEVICES[kind]
        if not found or (index and self._device not in found and not (index == "0" and found == [_DEVICES[kind]])):
            raise ConfigurationError(
                f"device {device!r} is not here: OpenVINO finds {', '.join(self._core.available_devices)}; "
                "install the device's driver, or use --device cpu"
            )
        self._threads = threads

    def load(self, package: ModelPackage) -> LoadedModel:
        """Load a package's model file. Raises PackageError naming the cause."""
        refuse_datatypes(package, "OpenVINO")
        weights = _weights(package)
        try:
            model = self._core.read_model(str(package.file), *weights)
            compiled = self._core.compile_model(model, self._device, self._options(model))
            request = compiled.create_infer_request()
        except RuntimeError as exc:  # The one class that OpenVINO raises.
            if (passing := passing_failure(exc)) is not None:
                raise passing from exc
            raise PackageError(f"{package.file} can't be loaded by OpenVINO: {openvino_cause(exc)}") from exc
        return OpenVinoModel(package, model, request)

    def _options(self, model: ov.Model) -> dict[str, object]:
        options: dict[str, object] = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            # On processors with BF16 the default runs FP32 models in BF16: other answers on another machine.
            "INFERENCE_PRECISION_HINT": _precision(model),
        }
        if self._device == "CPU":
            # Pinned threads of several workers would all sit on the same cores.
            options["ENABLE_CPU_PINNING"] = False
            if self._threads:
                options["INFERENCE_NUM_THREADS"] = self._threads
        return options


class OpenVinoModel(PositionalModel):
    """One compiled model and its one request."""

    def __init__(self, package: ModelPackage, model: ov.Model, request: ov.InferRequest) -> None:
        """Compare the model's names with the package's. Raises PackageError.

        model: of which the request's was compiled.
        """
        super().__init__(package)
        signature = package.manifest.file_signature
        self._request: ov.InferRequest | None = request
        self._has_state = bool(request.query_state())
        compiled = request.get_compiled_model()
        ports = [_port(port, signature.inputs) for port in compiled.inputs]
        self._places = match_ports(package, "input", signature.inputs, ports, else_by="nothing")
        check_row_sizes(package, declared_rows(signature.inputs, ports, self._places))
        ports = [_port(port, package.manifest.outputs) for port in compiled.outputs]
        self._picks = match_outputs(package, ports, else_by="nothing")
        self._check_shapes = ShapeCheck(model, self._places) if needs_check(model, compiled) else None

    def _run(self, arrays: Sequence[NDArray[Any]]) -> list[NDArray[np.generic]]:
        request = self._request
        assert request is not None
        if self._check_shapes is not None:
            self._check_shapes(tuple(array.shape for array in arrays))
        for place, array in zip(self._places, arrays, strict=True):
            request.set_input_tensor(place, ov.Tensor(array, shared_memory=True))
        if self._has_state:
            # What one request leaves behind is nothing to the next.
            request.reset_state()
        request.infer()
        # The next run writes into the same memory.
        return [np.array(request.get_output_tensor(pick).data) for pick in self._picks]

    def _free(self) -> None:
        self._request = None
        self._check_shapes = None


def _weights(package: ModelPackage) -> list[str]:
    """Return the file of weights that goes with an `.xml`; it must be listed, or nobody compares its checksum."""
    if package.file.suffix != ".xml":
        return []
    listed = [name for name in package.manifest.files if Path(name).suffix == ".bin"]
    if len(listed) != 1:
        raise PackageError(
            f"{package.folder / 'model.toml'} lists {len(listed)} files of weights (.bin) under [files]; an OpenVINO "
            "model has one"
        )
    return [str(package.folder / listed[0])]


def _precision(model: ov.Model) -> str:
    return str(model.get_rt_info(_PRECISION_PATH).value) if model.has_rt_info(_PRECISION_PATH) else "f32"


def _port(port: Any, specs: Sequence[Any]) -> Port:
    """Describe an input or output by that of its names that the package uses; it may have several."""
    names = port.get_names()
    name = next((spec.name for spec in specs if spec.name in names), min(names, default="(unnamed)"))
    shape = port.get_partial_shape()
    sizes = tuple(size.get_length() if size.is_static else -1 for size in shape) if shape.rank.is_static else None
    return Port(name, np.dtype(port.get_element_type().to_dtype()), sizes)
