"""The reference: bare ONNX Runtime, one request alone; and the comparison of an answer with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper

#: Marks the tensors outside a cast.
_CAST = "__cast"

#: Datatype → (relative to the tensor's largest value, absolute): what the same row may differ by in another batch.
TOLERANCES = {
    "float16": (2e-2, 2e-2),
    "bfloat16": (4e-2, 4e-2),
    "float32": (2e-4, 2e-4),
    "float64": (1e-9, 1e-9),
}


class Bare:
    """One model in bare ONNX Runtime."""

    def __init__(self, model: bytes, constants: Mapping[str, Any] = {}) -> None:
        """model: the bytes of the file. constants: inputs that a package sets and no request holds.

        ONNX Runtime can't hand BF16 to numpy, so a graph that has it gets casts.
        """
        self._constants = {name: np.array(value) for name, value in constants.items()}
        graph = onnx.load_from_string(model)
        self._bfloats = _cast_bfloats(graph)
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        content = graph.SerializeToString() if self._bfloats else model
        self._session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        given = [*self._session.get_inputs(), *self._session.get_overridable_initializers()]
        self._taken = {each.name: each.type for each in given}
        self.outputs = [each.name.removesuffix(_CAST) for each in self._session.get_outputs()]

    def answer(self, request: dict[str, np.ndarray]) -> dict[str, Any]:
        """Return what ONNX Runtime gives for one request alone. Raises what ONNX Runtime raises."""
        feeds = {}
        for name, value in {**request, **self._constants}.items():
            there = name + _CAST if name in self._bfloats else name
            feeds[there] = _as_taken(self._taken[there], value)
        results = dict(zip(self.outputs, self._session.run(None, feeds), strict=True))
        return {
            name: value.astype(ml_dtypes.bfloat16) if name in self._bfloats else value
            for name, value in results.items()
        }


def _cast_bfloats(model: onnx.ModelProto) -> set[str]:
    found = set()
    for tensors, is_input in ((model.graph.input, True), (model.graph.output, False)):
        for each in tensors:
            if each.type.tensor_type.elem_type != TensorProto.BFLOAT16:
                continue
            found.add(each.name)
            inside, outside = each.name, each.name + _CAST
            cast = (
                helper.make_node("Cast", [outside], [inside], to=TensorProto.BFLOAT16)
                if is_input
                else helper.make_node("Cast", [inside], [outside], to=TensorProto.FLOAT)
            )
            model.graph.node.insert(0 if is_input else len(model.graph.node), cast)
            each.name = outside
            each.type.tensor_type.elem_type = TensorProto.FLOAT
    return found


def _as_taken(kind: str, value: np.ndarray) -> Any:
    if kind.startswith("seq("):
        return list(value)
    if value.dtype == object:
        return np.array([item.decode() for item in value.reshape(-1)], object).reshape(value.shape)
    return value.astype(np.float32) if value.dtype == ml_dtypes.bfloat16 else value


def difference(expected: Any, given: Any) -> str:
    """Return how an answer's tensor differs from the reference beyond its tolerance; empty when it does not."""
    wanted, got = plain(expected), plain(given)
    if wanted.shape != got.shape:
        return f"shape {list(got.shape)} instead of {list(wanted.shape)}"
    if wanted.dtype != got.dtype:
        return f"{got.dtype} instead of {wanted.dtype}"
    if wanted.dtype.name not in TOLERANCES:
        return "" if np.array_equal(wanted, got) else f"{_short(got)} instead of {_short(wanted)}"
    relative, absolute = TOLERANCES[wanted.dtype.name]
    wide, have = wanted.astype(np.float64), got.astype(np.float64)
    finite = np.isfinite(wide)
    if not np.array_equal(wide[~finite], have[~finite], equal_nan=True) or not np.isfinite(have[finite]).all():
        return f"other values that are not finite: {_short(got)} instead of {_short(wanted)}"
    allowed = absolute + relative * np.abs(wide[finite]).max(initial=0)
    off = np.abs(wide[finite] - have[finite]).max(initial=0)
    return (
        "" if off <= allowed else f"off by {off:.3g} (allowed {allowed:.3g}): {_short(got)} instead of {_short(wanted)}"
    )


def plain(value: Any) -> np.ndarray:
    """Return a tensor, a list of tensors or a list of maps as one array, strings as bytes."""
    if isinstance(value, list):
        value = [list(each.values()) if isinstance(each, dict) else each for each in value]
        value = np.asarray(value, dtype=np.float32 if value and isinstance(value[0], list) else None)
    array = np.asarray(value)
    if array.dtype.kind in "OSU":
        flat = [item if isinstance(item, bytes) else str(item).encode() for item in array.reshape(-1).tolist()]
        return np.array(flat, object).reshape(array.shape)
    return array


def _short(array: np.ndarray) -> str:
    text = " ".join(str(array.reshape(-1)[:8].tolist()).split())
    return text if array.size <= 8 else f"{text[:-1]}, …]"


def differences(expected: dict[str, Any], given: dict[str, Any]) -> str:
    """Return how the answer to a request differs from the reference; empty when it does not."""
    if list(expected) != list(given):
        return f"outputs {list(given)} instead of {list(expected)}"
    found = {name: difference(value, given[name]) for name, value in expected.items()}
    return "; ".join(f"{name}: {text}" for name, text in found.items() if text)
