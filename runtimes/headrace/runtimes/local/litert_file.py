"""LiteRT: `.tflite` files."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from headrace.contracts import ModelPackage, PackageError
from headrace.contracts.formatting import first_line
from headrace.contracts.package.signature import TensorSpec
from headrace.runtimes.base import LoadedModel
from headrace.runtimes.fixed_rows import check_row_sizes
from headrace.runtimes.local.devices import split_device
from headrace.runtimes.local.failures import passing_failure
from headrace.runtimes.local.ports import UNSUPPORTED, ElseBy, Port, match_outputs, match_ports, refuse_datatypes
from headrace.runtimes.local.positional import PositionalModel

#: Kinds of numpy datatypes that hold whole numbers.
_WHOLE: Final = "iu"


#: Names of what has none of its own, numbered in the order of the network's arguments or results.
_NUMBERED: Final = re.compile(r"(?:args?|inputs?|outputs?)_\d+")

#: Operators with a state in a tensor of their own.
_STATEFUL: Final = frozenset({
    "SVDF", "RNN", "LSTM", "UNIDIRECTIONAL_SEQUENCE_RNN", "UNIDIRECTIONAL_SEQUENCE_LSTM", "BIDIRECTIONAL_SEQUENCE_RNN",
    "BIDIRECTIONAL_SEQUENCE_LSTM",
})  # fmt: skip

Kind: TypeAlias = Literal["input", "output"]

#: In place of a number of rows, of a model none of whose inputs has rows.
NO_ROWS: Final = 0


class LiteRtRuntime:
    """Loads `.tflite` files for the CPU."""

    def __init__(self, device: str, threads: int) -> None:
        """device: `cpu`. threads: 0 is one. Raises ConfigurationError for any other device."""
        split_device(device, ("cpu",))
        self._threads = threads or None

    def load(self, package: ModelPackage) -> LoadedModel:
        """Load a package's `.tflite` file. Raises PackageError naming the cause."""
        refuse_datatypes(package, "LiteRT", UNSUPPORTED | {"UINT64"})
        try:
            model = LiteRtModel(package, self._interpreter(package))
            free = model.rows == NO_ROWS or self._fits(package, (2, 3))
            check_row_sizes(package, [] if free else self._fixed_rows(package, model))
        except PackageError:
            raise
        except (RuntimeError, ValueError, OSError) as exc:
            if (passing := passing_failure(exc)) is not None:
                raise passing from exc
            raise PackageError(f"{package.file} can't be loaded by LiteRT: {first_line(exc)}") from exc
        return model

    def _interpreter(self, package: ModelPackage) -> Callable[[], Interpreter]:
        return partial(Interpreter, str(package.file), num_threads=self._threads)

    def _fixed_rows(self, package: ModelPackage, model: LiteRtModel) -> list[int]:
        """Return those of the package's `row_sizes` that the file takes, or the number of rows that it declares."""
        asked = package.manifest.batching.row_sizes or (model.rows,)
        sizes = [rows for rows in asked if rows > 0 and self._fits(package, (rows,))]
        if not sizes:
            model.close()
            raise PackageError(
                f"{package.file} can't run other numbers of rows than the one it was converted with, since shapes "
                "inside it are frozen; convert it anew with dynamic shapes, or set [batching] row_sizes to that number"
            )
        return sizes

    def _fits(self, package: ModelPackage, counts: Sequence[int]) -> bool:
        """Try numbers of rows on an interpreter of its own: a failed attempt leaves it useless.

        The file's word is not enough: converters freeze shapes inside though the input's is free.
        """
        model = LiteRtModel(package, self._interpreter(package))
        try:
            return all(model.fits(rows) for rows in counts)
        except RuntimeError:
            return False
        finally:
            model.close()


class LiteRtModel(PositionalModel):
    """One interpreter, its memory laid out for the number of rows that ran last."""

    def __init__(self, package: ModelPackage, make: Callable[[], Interpreter]) -> None:
        """Compare the file with the package. make: returns a new interpreter of it. Raises PackageError."""
        super().__init__(package)
        signature = package.manifest.file_signature
        self._make = make
        interpreter = make()
        self._state = state_of(interpreter)
        self._interpreter: Interpreter | None = interpreter
        self._inputs = _matched(package, "input", interpreter)
        self._results = _matched(package, "output", interpreter)
        self._input_specs = signature.inputs
        self._output_specs = signature.outputs
        self._shapes: list[tuple[int, ...]] = []
        shapes = zip(signature.inputs, self._inputs, strict=True)
        #: The number of rows that the file declares; -1 is any, NO_ROWS that no input has rows.
        self.rows = next(
            (int(detail["shape_signature"][spec.rows_at]) for spec, detail in shapes if not spec.per_request), NO_ROWS
        )

    def fits(self, rows: int) -> bool:
        """Lay the memory out for this number of rows; return whether the outputs have as many."""
        shapes = [tuple(max(size, 1) for size in spec.whole_shape(rows)) for spec in self._input_specs]
        self._lay_out(shapes)
        interpreter = self._interpreter
        assert interpreter is not None
        # Memory that nobody wrote holds ids that no embedding table has.
        for detail, shape in zip(self._inputs, shapes, strict=True):
            interpreter.set_tensor(detail["index"], np.zeros(shape, detail["dtype"]))
        interpreter.invoke()
        found = [interpreter.get_tensor(detail["index"]).shape for detail in self._results]
        return all(
            spec.per_request or shape[spec.rows_at : spec.rows_at + 1] == (rows,)
            for spec, shape in zip(self._output_specs, found, strict=True)
        )

    def _run(self, arrays: Sequence[NDArray[Any]]) -> list[NDArray[np.generic]]:
        if self._state == "resources":
            # What one request leaves behind is nothing to the next, and nothing resets resources.
            self._interpreter, self._shapes = self._make(), []
        self._lay_out([array.shape for array in arrays])
        interpreter = self._interpreter
        assert interpreter is not None
        if self._state == "variables":
            interpreter.reset_all_variables()
        for detail, array in zip(self._inputs, arrays, strict=True):
            interpreter.set_tensor(detail["index"], _to_file(array, detail))
        interpreter.invoke()
        # get_tensor copies.
        return [
            _from_file(interpreter.get_tensor(detail["index"]), detail, spec)
            for detail, spec in zip(self._results, self._output_specs, strict=True)
        ]

    def _lay_out(self, shapes: list[tuple[int, ...]]) -> None:
        if shapes == self._shapes:
            return
        interpreter = self._interpreter
        assert interpreter is not None
        self._shapes = []  # Until it succeeded nothing is known.
        for detail, shape in zip(self._inputs, shapes, strict=True):
            interpreter.resize_tensor_input(detail["index"], shape)
        interpreter.allocate_tensors()
        self._shapes = shapes

    def _free(self) -> None:
        self._interpreter = None


def state_of(interpreter: Interpreter) -> Literal["none", "variables", "resources"]:
    """Return whether a file keeps something from one run to the next, and how."""
    details = interpreter.get_tensor_details()
    # A resource stands for a variable that operators read and assign; numpy has no type for it.
    if any(detail["dtype"] is np.object_ for detail in details):
        return "resources"
    operators = {operator["op_name"] for operator in interpreter._get_ops_details()}
    return "variables" if operators & _STATEFUL else "none"


def _matched(package: ModelPackage, kind: Kind, interpreter: Interpreter) -> list[dict[str, Any]]:
    """Return the file's description of each of a package's inputs, or of each output that it keeps, in its order."""
    specs = package.manifest.file_signature.inputs if kind == "input" else package.manifest.outputs
    named = named_details(package.file, kind, interpreter)
    if {spec.name for spec in specs} <= {detail["name"] for _, detail in named}:
        named = [(detail["name"], detail) for _, detail in named]
    ports = [_port(name, detail, specs) for name, detail in named]
    numbered = all(_NUMBERED.fullmatch(name) for name, _ in named)
    else_by: ElseBy = "order" if numbered else "datatype and shape"
    if kind == "input":
        found = match_ports(package, kind, specs, ports, else_by=else_by)
    else:
        found = match_outputs(package, ports, else_by=else_by)
    return [named[index][1] for index in found]


def named_details(file: Path, kind: Kind, interpreter: Interpreter) -> list[tuple[str, dict[str, Any]]]:
    """Return the inputs or outputs of a file under its signature's names; without a signature, under their tensors'.

    `args_10` comes after `args_9`: converters number what has no name, and the file sorts names as text.
    Raises PackageError for a file with several signatures.
    """
    details = interpreter.get_input_details() if kind == "input" else interpreter.get_output_details()
    signatures = interpreter.get_signature_list()
    if len(signatures) > 1:
        names = ", ".join(signatures)
        raise PackageError(
            f"{file} has the signatures {names}, of which a package serves one; convert it with one: "
            f"TFLiteConverter.from_saved_model(…, signature_keys=[{next(iter(signatures))!r}])"
        )
    if not signatures:
        return [(detail["name"], detail) for detail in details]
    runner = interpreter.get_signature_runner(next(iter(signatures)))
    named = runner.get_input_details() if kind == "input" else runner.get_output_details()
    return sorted(named.items(), key=lambda item: [int(part) if part.isdigit() else part for part in _parts(item[0])])


def _parts(name: str) -> list[str]:
    return re.split(r"(\d+)", name)


def _port(name: str, detail: dict[str, Any], specs: Sequence[TensorSpec]) -> Port:
    dtype: np.dtype[Any] | None = np.dtype(detail["dtype"])
    # Quantized values and narrowed whole numbers are converted at the edge.
    if _scale(detail) or (dtype == np.int32 and any(spec.datatype == "INT64" for spec in specs)):
        dtype = None
    # An output whose shape the converter didn't know has none here.
    shape = tuple(int(size) for size in detail["shape_signature"]) or None
    return Port(name, dtype, shape)


def _scale(detail: dict[str, Any]) -> float:
    """Return the scale of a quantized tensor, 0.0 for one that isn't."""
    return float(detail["quantization"][0])


def _to_file(array: NDArray[Any], detail: dict[str, Any]) -> NDArray[Any]:
    dtype = np.dtype(detail["dtype"])
    if array.dtype == dtype:
        return array
    limits = np.iinfo(dtype)
    if array.dtype.kind == "f" and (scale := _scale(detail)):
        codes: NDArray[Any] = np.rint(array / np.float32(scale)) + detail["quantization"][1]
        if np.isnan(codes).any():
            raise ValueError(f"input {detail['name']!r} holds NaN, for which {dtype} has no code")
        clipped: NDArray[Any] = np.clip(codes, limits.min, limits.max).astype(dtype)
        return clipped
    if array.dtype.kind in _WHOLE and limits.min <= array.min() and array.max() <= limits.max:
        return array.astype(dtype)
    raise ValueError(f"input {detail['name']!r} holds values outside {dtype}, which the file takes")


def _from_file(array: NDArray[Any], detail: dict[str, Any], spec: TensorSpec) -> NDArray[Any]:
    scale = _scale(detail)
    if scale and array.dtype.kind in _WHOLE and spec.datatype.startswith("FP"):
        return (array.astype(np.float32) - np.float32(detail["quantization"][1])) * np.float32(scale)
    return array
