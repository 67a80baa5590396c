"""Export of torch networks to torch's own `.pt2` programs."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from headrace.compression.export.comparison import (
    TOLERANCE,
    batching_of,
    compare,
    input_specs,
    other_sizes,
    provenance_of,
)
from headrace.compression.export.trace import LOGGERS, repeated, trace
from headrace.compression.networks.loading import need_torch
from headrace.compression.silence import silenced
from headrace.compression.steps import StepContext
from headrace.contracts import ModelPackage, Tensors, TensorSpec, read_package
from headrace.contracts.package.manifest import Manifest, check_name, sha256_of, write_manifest
from headrace.contracts.tensors.datatypes import datatype_of
from headrace.lifecycle.packages.adding import describe

if TYPE_CHECKING:
    from headrace.compression.networks.network import Network

PROGRAM_FILE: Final = "model.pt2"


@dataclass(frozen=True)
class TorchExport:
    """Export to torch's own program format, for the runtime `torch`.

    The program takes the inputs by position and gives a tuple, both in the order of `model.toml`; the rows it was
    traced with aren't in it. tolerance: as in OnnxExport.
    """

    tolerance: float = TOLERANCE

    def export(self, network: Network, context: StepContext) -> ModelPackage:
        """Return a package for the runtime `torch`. Raises CompressionError as OnnxExport does."""
        need_torch("export to .pt2")
        import torch

        check_name("model name", network.name)
        program = trace(network)
        folder = context.step_dir(self)
        # The rows it was traced with would go into the file, and with them somebody's data, pickled.
        program.example_inputs = None
        with silenced(*LOGGERS):
            torch.export.save(program, folder / PROGRAM_FILE)
            loaded = torch.export.load(folder / PROGRAM_FILE).module()

        def run(inputs: Tensors) -> Tensors:
            from headrace.compression.networks.network import as_array

            with torch.no_grad():
                outputs = loaded(*network.arguments(inputs))
            return {name: as_array(tensor) for name, tensor in zip(network.outputs, outputs, strict=True)}

        tolerance = max(self.tolerance, network.tolerance)
        compare(network, context, run, tolerance, f"the .pt2 program of {network.name!r}")
        manifest = _describe_program(network, folder, provenance_of(network, self))
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            tried = describe(folder / PROGRAM_FILE, Path(scratch), name=network.name, allow_nan=network.allow_nan)
        write_manifest(folder, msgspec.structs.replace(manifest, batching=batching_of(network, tried=tried)))
        return read_package(folder)


def _describe_program(network: Network, folder: Path, provenance: dict[str, Any]) -> Manifest:
    outputs = network.infer(repeated(network.example, 3))
    others = next(network.infer(rows) for rows in other_sizes(network) or [repeated(network.example, 1)])
    return Manifest(
        name=network.name,
        version="0",
        runtime="torch",
        file=PROGRAM_FILE,
        sha256=sha256_of(folder / PROGRAM_FILE),
        inputs=input_specs(network),
        outputs=tuple(
            TensorSpec(
                name=name,
                datatype=datatype_of(array.dtype),
                shape=tuple(
                    size if size == other else -1
                    for size, other in zip(array.shape[1:], others[name].shape[1:], strict=True)
                ),
            )
            for name, array in outputs.items()
        ),
        labels=network.labels,
        store=network.store,
        provenance=provenance,
    )
