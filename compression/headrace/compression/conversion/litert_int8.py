"""Int8 LiteRT files, by ai-edge-quantizer."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Literal

from numpy.typing import NDArray

from headrace.compression.errors import CompressionError, NotApplicable
from headrace.compression.silence import silenced
from headrace.contracts import Tensors
from headrace.contracts.formatting import first_line

if TYPE_CHECKING:
    from ai_edge_litert.schema_py_generated import SubGraphT
    from ai_edge_quantizer.quantizer import Quantizer

#: Rows of one calibration run: all activations of a batch are in memory at once.
_BATCH_ROWS: Final = 16

#: Operators whose results may stay float though they compute in int8.
_LAST: Final = frozenset({"FULLY_CONNECTED", "BATCH_MATMUL"})

#: Operators that end a network and gain nothing from int8.
_ENDS: Final = frozenset({"SOFTMAX", "ARG_MAX", "LOGISTIC"})


def weights_int8(content: bytes) -> bytes:
    """Return the file with int8 weights; kernels that can do so quantize activations at run time."""
    from ai_edge_quantizer import recipe

    return _quantize(content, lambda quantizer: quantizer.load_quantization_recipe(recipe.dynamic_wi8_afp32()), None)


def full_int8(content: bytes, rows: Tensors, results: Literal["float", "int8"], threads: int) -> bytes:
    """Return the file with int8 weights and activations.

    rows: to calibrate with, in the order of the file's inputs. results: float leaves logits that Softmax and ArgMax
    read in float: with 255 steps the two highest would often be the same.
    """
    from ai_edge_quantizer.algorithm_manager import AlgorithmName
    from ai_edge_quantizer.qtyping import TFLOperationName

    every = TFLOperationName.ALL_SUPPORTED

    def choose(quantizer: Quantizer) -> None:
        quantizer.add_static_config(".*", every, activation_num_bits=8, weight_num_bits=8)
        if results == "int8":
            return
        logits, ends = _last_tensors(content)
        quantizer.update_quantization_recipe(".*", TFLOperationName.OUTPUT, algorithm_key=AlgorithmName.NO_QUANTIZE)
        for name in ends:
            quantizer.update_quantization_recipe(_only(name), every, algorithm_key=AlgorithmName.NO_QUANTIZE)
        for name in logits:
            # Only weights become int8 here.
            quantizer.add_dynamic_config(_only(name), every, num_bits=8)

    return _quantize(content, choose, (rows, threads))


def _quantize(content: bytes, choose: Callable[[Quantizer], None], calibration: tuple[Tensors, int] | None) -> bytes:
    """Quantize as `choose` tells the quantizer. calibration: rows and threads, where ranges are found beforehand."""
    # A table of sizes, a bar, and the interpreter's remark on calibration.
    with silenced():
        from ai_edge_quantizer.quantizer import Quantizer

        try:
            quantizer = Quantizer(content)
            choose(quantizer)
            ranges = None
            if calibration is not None:
                rows, threads = calibration
                ranges = quantizer.calibrate(_batches(content, rows), num_threads=threads)
            quantized = quantizer.quantize(ranges).quantized_model
        except Exception as exc:  # The quantizer raises ValueError, RuntimeError, KeyError and others alike.
            raise CompressionError(f"ai-edge-quantizer can't quantize this model: {first_line(exc)}") from exc
    if quantized is None or not _has_int8(bytes(quantized)):
        raise NotApplicable("LiteRT has no operator in this model that it can run in int8")
    return bytes(quantized)


def _has_int8(content: bytes) -> bool:
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAsModel(content, 0)
    graphs = [model.Subgraphs(number) for number in range(model.SubgraphsLength())]
    kinds = {graph.Tensors(number).Type() for graph in graphs for number in range(graph.TensorsLength())}
    return schema.TensorType.INT8 in kinds


def _batches(content: bytes, rows: Tensors) -> dict[str, list[dict[str, NDArray[Any]]]]:
    """Cut rows into batches under the names and in the datatypes of the file's one signature."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content)
    (signature, names), *_ = interpreter.get_signature_list().items()
    details = interpreter.get_signature_runner(signature).get_input_details()
    # The file sorts names as text, which puts args_10 before args_2.
    inputs = sorted(names["inputs"], key=lambda name: [int(part) if part.isdigit() else part for part in _parts(name)])
    count = len(next(iter(rows.values())))
    return {
        signature: [
            {
                name: array[start : start + _BATCH_ROWS].astype(details[name]["dtype"])
                for name, array in zip(inputs, rows.values(), strict=True)
            }
            for start in range(0, count, _BATCH_ROWS)
        ]
    }


def _parts(name: str) -> list[str]:
    return re.split(r"(\d+)", name)


def _last_tensors(content: bytes) -> tuple[list[str], list[str]]:
    """Name the logits, and what SOFTMAX and its like make of them for a result."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(content, 0))
    operators = {number: name for name, number in vars(schema.BuiltinOperator).items() if isinstance(number, int)}
    logits: dict[str, None] = {}
    ends: dict[str, None] = {}
    for graph in model.subgraphs:
        makers = {int(output): operator for operator in graph.operators for output in operator.outputs}

        def operator_of(index: int, makers: dict[int, Any] = makers) -> str:
            if index not in makers:
                return ""
            code = model.operatorCodes[makers[index].opcodeIndex]
            name: str = operators[max(code.builtinCode, code.deprecatedBuiltinCode)]
            return name

        for result in map(int, graph.outputs):
            last = result
            if operator_of(result) in _ENDS:
                ends[_name(graph, result)] = None
                last = int(makers[result].inputs[0])
            if operator_of(last) in _LAST:
                logits[_name(graph, last)] = None
    return list(logits), list(ends)


def _name(graph: SubGraphT, tensor: int) -> str:
    name: bytes = graph.tensors[tensor].name
    return name.decode()


def _only(tensor: str) -> str:
    """Return the pattern that matches the one operator with this output."""
    return f"^{re.escape(tensor)};?$"
