"""Exports torch networks: to ONNX, and to torch's own `.pt2` programs; each compared with the network it came from."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

from headrace.compression.data.random_rows import random_rows
from headrace.compression.errors import CompressionError
from headrace.compression.export.parity import check_parity
from headrace.compression.networks.loading import need_torch
from headrace.compression.onnx_model.sharing import share_constants
from headrace.compression.silence import silenced
from headrace.compression.steps import Step, StepContext, step_record
from headrace.contracts import HeadraceError, ModelPackage, Tensors, TensorSpec, read_package
from headrace.contracts.formatting import first_line
from headrace.contracts.package.manifest import BatchingAdvice, Manifest, check_name, sha256_of, write_manifest
from headrace.contracts.tensors.datatypes import FLOATS, datatype_of
from headrace.lifecycle.packages.adding import describe
from headrace.runtimes.loading import load_model

if TYPE_CHECKING:
    import onnx_ir
    from torch.export import ExportedProgram

    from headrace.compression.networks.network import Network

PROGRAM_FILE: Final = "model.pt2"

#: Row counts at which an export is compared: alone, a few, and no power of two.
CHECKED_ROWS: Final = (1, 3, 17)

#: Largest difference of an output that is allowed, in units of 1 + its largest absolute value.
TOLERANCE: Final = 1e-4

#: Row counts for tracing; torch takes dimensions of the same size for one, so the first that no dimension has.
_TRACED_ROWS: Final = (5, 7, 11, 13, 17, 19, 23, 29)

_FREE_SIZES: Final = "its forward must not write sizes as numbers: use x.shape[0], -1 or flatten(1)"

#: Those that tell of the exporter's own affairs; where tracing fails, torch also prints the whole graph.
_LOGGERS: Final = ("torch.onnx", "torch.export", "torch.fx.experimental.symbolic_shapes", "onnxscript", "onnx_ir")

#: How torch says that a dimension which was to vary became a number; inputs of the wrapper are `inputs`.
_SPECIALISED: Final = re.compile(r"L\['inputs'\]\[(\d+)\]\.size\(\)\[(\d+)\].{0,80}?constant \((\d+)\)", re.DOTALL)

#: protobuf can't write more into one file.
_MAX_FILE_BYTES: Final = 2**31 - 1


@dataclass(frozen=True)
class OnnxExport:
    """Writes ONNX with a dynamic number of rows, and compares ONNX Runtime's results with torch's.

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
                provenance=_provenance(network, self),
            )
        batching = _batching(network, tried=package)
        write_manifest(folder, msgspec.structs.replace(package.manifest, batching=batching, store=network.store))
        model = load_model(package, "cpu", context.threads)
        try:
            _compare(
                network,
                context,
                model.infer,
                (max(self.tolerance, network.tolerance), f"the ONNX file of {network.name!r}"),
            )
        finally:
            model.close()
        return read_package(folder)

    def _write(self, network: Network, program: ExportedProgram, file: Path) -> None:
        import torch

        sizes = (each.numel() * each.element_size() for each in program.state_dict.values())
        if sum(sizes) > _MAX_FILE_BYTES:
            raise CompressionError(f"the weights of {network.name!r} are larger than 2 GiB, which ONNX can't hold")
        with silenced(*_LOGGERS):
            try:
                made = torch.onnx.export(
                    program, dynamo=True, external_data=False, opset_version=self.opset, verbose=False
                )
            except Exception as exc:  # torch's exporter raises whatever its passes raise
                raise CompressionError(
                    f"network {network.name!r} can't be exported to ONNX: {_cause(exc)}; the operator it names has no "
                    "translation: rewrite that part of the network, or export with TorchExport"
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


@dataclass(frozen=True)
class TorchExport:
    """Writes torch's own program format, for the runtime `torch`.

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
        with silenced(*_LOGGERS):
            torch.export.save(program, folder / PROGRAM_FILE)
            loaded = torch.export.load(folder / PROGRAM_FILE).module()

        def run(inputs: Tensors) -> Tensors:
            from headrace.compression.networks.network import as_array

            with torch.no_grad():
                outputs = loaded(*network.arguments(inputs))
            return {name: as_array(tensor) for name, tensor in zip(network.outputs, outputs, strict=True)}

        _compare(
            network, context, run, (max(self.tolerance, network.tolerance), f"the .pt2 program of {network.name!r}")
        )
        manifest = _describe_program(network, folder, _provenance(network, self))
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            tried = describe(folder / PROGRAM_FILE, Path(scratch), name=network.name, allow_nan=network.allow_nan)
        write_manifest(folder, msgspec.structs.replace(manifest, batching=_batching(network, tried=tried)))
        return read_package(folder)


def _batching(network: Network, *, tried: ModelPackage) -> BatchingAdvice:
    """Return the network's advice, but for what the trial of its export found of its rows."""
    advice = network.batching.unmeasured()
    if tried.manifest.batching.independent_rows:
        return advice
    return msgspec.structs.replace(advice, independent_rows=False, row_sizes=())


def trace(network: Network) -> ExportedProgram:
    """Trace a network into a torch program that takes any number of rows by position and gives a tuple.

    Raises CompressionError when the network has a frozen number of rows, or does what can't be traced.
    """
    import torch

    _check_any_rows(network)
    arguments = network.arguments(_traced_rows(network))
    dynamic = torch.export.Dim.DYNAMIC
    dimensions = tuple(
        {0: dynamic, **{i: dynamic for i, size in enumerate(shape, 1) if size == -1}} for shape in _shapes(network)
    )
    with silenced(*_LOGGERS):
        try:
            # Inputs of the wrapper are *args: one parameter, whose dimensions are a tuple.
            return torch.export.export(network.positional(), arguments, dynamic_shapes=(dimensions,))
        except Exception as exc:  # torch's tracer raises whatever the user's code or its own passes raise
            raise _trace_failed(network, exc) from exc


def _check_any_rows(network: Network) -> None:
    """Refuse a network that can't run batches of any size, before tracing, whose errors are hard to read."""
    for rows in CHECKED_ROWS:
        try:
            outputs = network.infer(_repeated(network.example, rows))
        except HeadraceError:
            raise
        except Exception as exc:  # whatever the user's code raises
            raise CompressionError(
                f"network {network.name!r} fails on {rows} rows ({first_line(exc)}), so it may have a frozen batch "
                f"dimension; {_FREE_SIZES}"
            ) from exc
        for name, array in outputs.items():
            if array.ndim == 0 or len(array) != rows:
                raise CompressionError(
                    f"output {name!r} of network {network.name!r} has the shape {list(array.shape)} for {rows} rows; "
                    "its first dimension must be the rows"
                )


def _trace_failed(network: Network, exc: Exception) -> CompressionError:
    if found := _SPECIALISED.search(str(exc)):
        name = list(network.example)[int(found[1])]
        what = "batch dimension" if found[2] == "0" else f"dimension {found[2]}"
        return CompressionError(
            f"network {network.name!r} has a frozen {what} of {found[3]} in input {name!r} when it is traced, "
            f"so it would not take other sizes; {_FREE_SIZES}"
        )
    return CompressionError(
        f"network {network.name!r} can't be traced: {_cause(exc)}; its forward must not branch on values of tensors"
    )


def _shapes(network: Network) -> tuple[tuple[int, ...], ...]:
    """Return the shape of every input without rows, -1 where it varies. Raises CompressionError when they don't fit."""
    have = tuple(array.shape[1:] for array in network.example.values())
    shapes = network.shapes or have
    if len(shapes) != len(have) or any(
        len(shape) != len(sizes) or any(want not in {-1, size} for want, size in zip(shape, sizes, strict=True))
        for shape, sizes in zip(shapes, have, strict=False)
    ):
        raise CompressionError(
            f"the shapes {list(map(list, shapes))} of network {network.name!r} don't fit its example rows, which have "
            f"{list(map(list, have))}; give every input's, without rows"
        )
    return shapes


def _traced_rows(network: Network) -> Tensors:
    sizes = {size for array in network.example.values() for size in array.shape[1:]}
    rows = next((rows for rows in _TRACED_ROWS if rows not in sizes), _TRACED_ROWS[-1])
    return _repeated(network.example, rows)


def _repeated(inputs: Tensors, rows: int) -> Tensors:
    """Return `count` rows, repeated when there are fewer."""
    return {name: array[np.arange(rows) % len(array)] for name, array in inputs.items()}


def _provenance(network: Network, step: Step) -> dict[str, Any]:
    steps = [*network.provenance.get("steps", []), step_record(step)]
    return {"source": network.origin or network.name, **network.provenance, "steps": steps}


def _input_specs(network: Network) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(
            name=name,
            datatype=datatype_of(array.dtype),
            shape=shape,
            allow_nan=network.allow_nan or datatype_of(array.dtype) not in FLOATS,
        )
        for (name, array), shape in zip(network.example.items(), _shapes(network), strict=True)
    )


def _describe_program(network: Network, folder: Path, provenance: dict[str, Any]) -> Manifest:
    outputs = network.infer(_repeated(network.example, 3))
    others = next(network.infer(rows) for rows in _other_sizes(network) or [_repeated(network.example, 1)])
    return Manifest(
        name=network.name,
        version="0",
        runtime="torch",
        file=PROGRAM_FILE,
        sha256=sha256_of(folder / PROGRAM_FILE),
        inputs=_input_specs(network),
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


def _other_sizes(network: Network) -> list[Tensors]:
    """Return random rows with about half the size in every dimension that varies, if any does and torch can run it."""
    if not any(-1 in shape for shape in _shapes(network)):
        return []
    batch: Tensors = {}
    for spec, array in zip(_input_specs(network), network.example.values(), strict=True):
        sizes = zip(spec.shape, array.shape[1:], strict=True)
        shape = tuple(-(-size // 2) + 1 if want == -1 else size for want, size in sizes)
        batch |= random_rows([msgspec.structs.replace(spec, shape=shape)], CHECKED_ROWS[1], 1)
    try:
        network.infer(batch)
    except Exception:  # noqa: BLE001  (some networks take certain sizes only, and say so in their own ways)
        return []
    return [batch]


def _compare(
    network: Network, context: StepContext, run: Callable[[Tensors], Tensors], terms: tuple[float, str]
) -> None:
    """Run the export and the network on real and random rows, and compare all outputs."""
    tolerance, what = terms
    fixed = [
        msgspec.structs.replace(spec, shape=array.shape[1:])
        for spec, array in zip(_input_specs(network), network.example.values(), strict=True)
    ]
    train = context.data.train.inputs
    real = {name: train.get(name, array) for name, array in network.example.items()}
    if any(not len(real[name]) or real[name].shape[1:] != array.shape[1:] for name, array in network.example.items()):
        real = network.example
    batches = [_repeated(rows, count) for rows in (network.example, real) for count in CHECKED_ROWS]
    batches += [random_rows(fixed, count, 1) for count in CHECKED_ROWS] + _other_sizes(network)
    for batch in batches:
        expected = network.infer(batch)
        try:
            found = run(batch)
        except Exception as exc:  # runtimes raise what they like
            rows = len(next(iter(batch.values())))
            raise CompressionError(
                f"{what} fails on {rows} rows that the network itself can run: {first_line(exc)}"
            ) from exc
        check_parity(expected, found, tolerance, what)


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


def _cause(exc: Exception) -> str:
    """Return the innermost cause in one line: the exporter wraps it into pages about itself."""
    inner: BaseException = exc
    while inner.__cause__ is not None:
        inner = inner.__cause__
    lines = [line.strip(" -*\t") for line in str(inner).splitlines() if line.strip()]
    return " ".join(lines[:2])[:400] if lines else type(inner).__name__
