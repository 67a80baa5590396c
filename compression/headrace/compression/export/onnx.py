"""Export of torch networks to ONNX."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from headrace.compression.errors import CompressionError
from headrace.compression.export.comparison import TOLERANCE, batching_of, compare, provenance_of
from headrace.compression.export.trace import LOGGERS, cause_of, trace
from headrace.compression.networks.loading import need_torch
from headrace.compression.onnx_model.sharing import share_constants
from headrace.compression.silence import silenced
from headrace.compression.steps import StepContext
from headrace.contracts import ModelPackage, read_package
from headrace.contracts.package.manifest import check_name, write_manifest
from headrace.lifecycle.packages.adding import describe
from headrace.runtimes.loading import load_model

if TYPE_CHECKING:
    import onnx_ir
    from torch.export import ExportedProgram

    from headrace.compression.networks.network import Network

#: protobuf can't write more into one file.
_MAX_FILE_BYTES: Final = 2**31 - 1


@dataclass(frozen=True)
class OnnxExport:
    """Export to ONNX with a dynamic number of rows; ONNX Runtime's results are compared with torch's.

    opset: of ONNX. tolerance: largest difference allowed, in units of 1 + the output's largest absolute value.
    Dimensions other than the rows vary where `Network.shapes` says -1.
    """

    opset: int = 20
    tolerance: float = TOLERANCE

    def export(self, network: Network, context: StepContext) -> ModelPackage:
        """Return a package for ONNX Runtime.

        Raises CompressionError when the network has a frozen number of rows, can't be exported, or comes out different.
        """
        need_torch("export to ONNX")
        check_name("model name", network.name)
        program = trace(network)
        folder = context.step_dir(self)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            file = Path(scratch) / f"{network.name}.onnx"
            self._write(network, program, file)
            package = describe(
                file,
                folder,
                name=network.name,
                labels=network.labels,
                allow_nan=network.allow_nan,
                provenance=provenance_of(network, self),
            )
        batching = batching_of(network, tried=package)
        write_manifest(folder, msgspec.structs.replace(package.manifest, batching=batching, store=network.store))
        model = load_model(package, "cpu", context.threads)
        try:
            tolerance = max(self.tolerance, network.tolerance)
            compare(network, context, model.infer, tolerance, f"the ONNX file of {network.name!r}")
        finally:
            model.close()
        return read_package(folder)

    def _write(self, network: Network, program: ExportedProgram, file: Path) -> None:
        import torch

        sizes = (each.numel() * each.element_size() for each in program.state_dict.values())
        if sum(sizes) > _MAX_FILE_BYTES:
            raise CompressionError(f"the weights of {network.name!r} are larger than 2 GiB, which ONNX can't hold")
        with silenced(*LOGGERS):
            try:
                made = torch.onnx.export(
                    program, dynamo=True, external_data=False, opset_version=self.opset, verbose=False
                )
            except Exception as exc:  # torch's exporter raises whatever its passes raise
                raise CompressionError(
                    f"network {network.name!r} can't be exported to ONNX: {cause_of(exc)}; the operator it names has "
                    "no translation: rewrite that part of the network, or export with TorchExport"
                ) from exc
            assert made is not None
            _tidy(made.model, list(network.example), list(network.outputs))
            made.save(file, external_data=False)
        _share(file)


def _share(file: Path) -> None:
    """Keep one copy of equal weights, which a network may hold under several names."""
    import onnx

    model = onnx.load(file)
    share_constants(model)
    file.write_bytes(model.SerializeToString(deterministic=True))


def _tidy(model: onnx_ir.Model, inputs: list[str], outputs: list[str]) -> None:
    """Name inputs and outputs, and remove the exporter's notes of this machine's files."""
    graph = model.graph
    rows = str(graph.inputs[0].shape[0]) if graph.inputs and graph.inputs[0].shape else ""
    nodes = list(graph.all_nodes())
    values = [*graph.inputs, *graph.initializers.values(), *(value for node in nodes for value in node.outputs)]
    for metadata in (
        model.metadata_props,
        *(each.metadata_props for each in nodes),
        *(each.metadata_props for each in values),
    ):
        metadata.clear()
    taken = {*inputs, *outputs, *(value.name for value in values)}
    for number, value in enumerate(values):
        _name_rows(value, rows)
        # `network.` is of the wrapper that was traced.
        plain = (value.name or "").removeprefix("network.") if value.is_initializer() else value.name
        if plain != value.name or plain in (*inputs, *outputs):
            value.name = f"{plain}.{number}" if plain in taken else plain
    for value, name in (*zip(graph.inputs, inputs, strict=True), *zip(graph.outputs, outputs, strict=True)):
        value.name = name


def _name_rows(value: onnx_ir.Value, symbol: str) -> None:
    """Call the row dimension `rows`, where torch numbers its symbols."""
    import onnx_ir

    if value.shape is not None:
        for index, size in enumerate(value.shape):
            if isinstance(size, onnx_ir.SymbolicDim) and str(size) == symbol:
                value.shape[index] = onnx_ir.SymbolicDim("rows")
