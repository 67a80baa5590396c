"""LiteRT: torch networks as `.tflite` files, by litert-torch in an environment of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from headrace.compression.conversion.environment import LITERT_TORCH, litert_python
from headrace.compression.conversion.litert_rows import free_rows, rows_to_convert
from headrace.compression.conversion.verify import TOLERANCE, kept_if_proven, need, prove_same
from headrace.compression.errors import CompressionError, NotApplicable
from headrace.compression.export.torch_program import TorchExport
from headrace.compression.onnx_model.verify import checked_rows, prove
from headrace.compression.quantization.int8.calibration import MINIMUM_ROWS
from headrace.compression.steps import StepContext, step_record
from headrace.contracts import ModelPackage, Tensors
from headrace.lifecycle.packages.registry import derive_package

if TYPE_CHECKING:
    from headrace.compression.networks.network import Network

EXTRA: Final = "litert"

MODEL_FILE: Final = "model.tflite"

#: Runs in the other environment, by its path.
_CONVERTER: Final = Path(__file__).with_name("litert_converter.py")

#: Libraries that litert-torch drags along would look for models and devices.
_ENVIRONMENT: Final = {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3"}


@dataclass(frozen=True)
class LiteRtExport:
    """Export to LiteRT, for any number of rows.

    precision: fp32; int8-dynamic makes weights int8, and activations as they come; int8 makes both int8 beforehand,
    with ranges from calibration rows. results: with int8, float leaves what goes into the last Softmax and ArgMax in
    float; int8 is for devices that have nothing else. tolerance: of fp32, the largest difference allowed, in units of
    1 + the output's largest absolute value.
    """

    precision: Literal["fp32", "int8-dynamic", "int8"] = "fp32"
    results: Literal["float", "int8"] = "float"
    tolerance: float = TOLERANCE

    def export(self, network: Network, context: StepContext) -> ModelPackage:
        """Return a package for LiteRT.

        Raises NotApplicable when the converter's environment is missing, or when a dimension other than the rows
        varies; CompressionError naming the operator that LiteRT hasn't or that holds on to a number of rows, or when
        outputs differ; DataError when int8 has fewer than 32 calibration rows.
        """
        need("export to LiteRT", EXTRA, "ai_edge_litert", "flatbuffers", "ai_edge_quantizer")
        python = litert_python()
        _refuse_varying(network)
        program = TorchExport().export(network, context)
        calibration = checked_rows(program, context, MINIMUM_ROWS).tensors if self.precision == "int8" else {}
        context.progress(0, 0, "conversion to LiteRT")
        content = self._quantize(_convert(network, program.file, python), calibration, context)
        folder = context.step_dir(self)
        versions = {name: version(name) for name in ("torch", "ai-edge-quantizer")} | {"litert-torch": LITERT_TORCH}
        with kept_if_proven(folder):
            file = folder / MODEL_FILE
            file.write_bytes(content)
            record = step_record(self) | {"versions": versions}
            product = derive_package(program, folder, [file], runtime="litert", step=record)
            if self.precision == "fp32":
                prove_same(product, program, context, self.tolerance, f"the LiteRT file of {network.name!r}")
            else:
                prove(product, program, context)
        return product

    def _quantize(self, content: bytes, rows: Tensors, context: StepContext) -> bytes:
        from headrace.compression.conversion.litert_int8 import full_int8, weights_int8

        if self.precision == "fp32":
            return content
        if self.precision == "int8-dynamic":
            return weights_int8(content)
        return full_int8(content, rows, self.results, context.threads)


def _refuse_varying(network: Network) -> None:
    for name, shape in zip(network.example, network.shapes, strict=False):
        if -1 in shape:
            raise NotApplicable(
                f"input {name!r} of network {network.name!r} varies in a dimension other than the rows, and a LiteRT "
                "file has fixed sizes; give it one size (pad to it), or use onnxruntime or openvino"
            )


def _convert(network: Network, program: Path, python: Path) -> bytes:
    """Convert a torch program in the other environment, and free its rows."""
    sizes = [size for tensor in network.module.state_dict().values() for size in tensor.shape]
    sizes += [size for array in network.example.values() for size in array.shape[1:]]
    rows = rows_to_convert(sizes)
    with tempfile.TemporaryDirectory(dir=program.parent) as scratch:
        folder = Path(scratch)
        shutil.copyfile(program, folder / "program.pt2")
        inputs = [
            {"datatype": array.dtype.name, "shape": [rows, *array.shape[1:]]} for array in network.example.values()
        ]
        job = {"torch": version("torch").partition("+")[0], "inputs": inputs}
        (folder / "job.json").write_text(json.dumps(job), "utf-8")
        _run_converter(python, folder, network.name)
        return free_rows((folder / "model.tflite").read_bytes(), rows)


def _run_converter(python: Path, folder: Path, name: str) -> None:
    done = subprocess.run(
        [str(python), "-I", str(_CONVERTER), str(folder)],
        env={**os.environ, **_ENVIRONMENT},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        text=True,
    )
    if not done.returncode:
        return
    error = folder / "error.json"
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    said = (
        json.loads(error.read_text("utf-8"))["error"]
        if error.exists()
        else (lines or [f"exit code {done.returncode}"])[-1]
    )
    raise CompressionError(f"network {name!r} can't be converted to LiteRT: {_readable(said)}")


def _readable(said: str) -> str:
    """Translate known messages of the converter."""
    found = said.removeprefix("Lowering not found: ")
    if found == said:
        return said
    return f"LiteRT has no operator for {found}; rewrite that part of the network, or use onnxruntime or openvino"
