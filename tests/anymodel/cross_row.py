"""Steps in which rows meet: each takes a tensor and returns one in which a row depends on the others of its run.

Some show it strongly, some faintly. A step returns None when it does not suit the tensor.
"""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper
from tests.anymodel.building import Builder, Value


def suits(v: Value) -> bool:
    return v.dtype in {"float32", "float64"} and v.row is not None


def is_table(v: Value) -> bool:
    return suits(v) and len(v.dims) == 2 and v.row == 0


def _combined(b: Builder, v: Value, other: str) -> Value:
    """Mix in what came of all rows, strongly or faintly."""
    factor = b.random.choice([1.0, 1.0, 0.1, 1e-2])
    faint = b.node("Mul", other, b.const(factor, v.dtype))
    return v.now(b.node(b.random.choice(["Add", "Sub"]), v.name, faint), mixed=True, exact=False)


def everything(b: Builder, v: Value, kind: str) -> str:
    return str(b.node(kind, v.name, keepdims=0))


def rows_reduced(b: Builder, v: Value) -> Value | None:
    if not suits(v):
        return None
    kind = b.random.choice(["ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin"])
    return _combined(b, v, b.node(kind, v.name, b.const([v.row]), keepdims=1))


def rows_summed_up(b: Builder, v: Value) -> Value | None:
    return v.now(b.node("CumSum", v.name, b.const(v.row)), mixed=True, exact=False) if suits(v) else None


def rows_softmax(b: Builder, v: Value) -> Value | None:
    return v.now(b.node("Softmax", v.name, axis=v.row), mixed=True, exact=False) if suits(v) else None


def rows_normalized(b: Builder, v: Value) -> Value | None:
    if not is_table(v) or v.dtype != "float32" or not isinstance(v.dims[1], int):
        return None
    kind = b.random.choice(["training", "variance"])
    if kind == "variance":
        out = b.node("MeanVarianceNormalization", v.name, axes=[0])
    else:
        # All different: ONNX Runtime 1.32 shares equal constants, and then trains the scale along with the variance.
        parts = [b.const(np.full(v.dims[1], value), v.dtype) for value in (0.9, 0.1, 0.2, 1.1)]
        out = b.node("BatchNormalization", v.name, *parts, outputs=3, training_mode=1, epsilon=0.5)[0]
    return v.now(out, mixed=True, exact=False)


def rows_reversed(b: Builder, v: Value) -> Value | None:
    if not suits(v):
        return None
    ends = [b.const([x]) for x in (-1, -(2**40), v.row, -1)]
    return v.now(b.node("Slice", v.name, *ends), mixed=True)


def rows_rolled(b: Builder, v: Value) -> Value | None:
    if not suits(v):
        return None
    axis = b.const([v.row])
    rest = b.node("Slice", v.name, b.const([1]), b.const([2**40]), axis)
    first = b.node("Slice", v.name, b.const([0]), b.const([1]), axis)
    return v.now(b.node("Concat", rest, first, axis=v.row), mixed=True)


def rows_sorted(b: Builder, v: Value) -> Value | None:
    if not suits(v) or not v.exact:
        return None
    return v.now(b.node("TopK", v.name, b.size(v.name, int(v.row or 0)), outputs=2, axis=v.row)[0], mixed=True)


def best_row(b: Builder, v: Value) -> Value | None:
    if not suits(v) or not v.exact:
        return None
    best = b.node("TopK", v.name, b.const([1]), outputs=2, axis=v.row)[0]
    return _combined(b, v, best)


def beside_the_first(b: Builder, v: Value) -> Value | None:
    if not suits(v):
        return None
    start = b.random.choice([0, -1])
    end = 1 if start == 0 else 2**40
    return _combined(b, v, b.node("Slice", v.name, b.const([start]), b.const([end]), b.const([v.row])))


def _places(b: Builder, v: Value) -> str:
    """Return the number of each row, along the axis of the rows."""
    row = int(v.row or 0)
    count = b.node("Squeeze", b.size(v.name, row))
    numbers = b.cast(b.node("Range", b.const(0), count, b.const(1)), v.dtype)
    shape = [1] * len(v.dims)
    shape[row] = -1
    return str(b.node("Reshape", numbers, b.const(shape)))


def rows_numbered(b: Builder, v: Value) -> Value | None:
    if not suits(v):
        return None
    numbers = _places(b, v)
    if b.chance(0.5):
        numbers = b.node("Mod", numbers, b.const(b.random.randint(2, 4), v.dtype), fmod=1)
    return _combined(b, v, numbers)


def rows_counted(b: Builder, v: Value) -> Value | None:
    if not suits(v):
        return None
    count = b.cast(b.size(v.name, int(v.row or 0)), v.dtype)
    return v.now(b.node(b.random.choice(["Mul", "Div"]), v.name, count), mixed=True, exact=False)


def rows_reshaped(b: Builder, v: Value) -> Value | None:
    if not is_table(v) or not isinstance(v.dims[1], int):
        return None
    mixed = b.node("Reshape", v.name, b.const([v.dims[1], -1]))
    return v.now(b.node("Transpose", mixed, perm=[1, 0]), mixed=True)


def neighbours(b: Builder, v: Value) -> Value | None:
    """A convolution for which the rows are time."""
    if not is_table(v) or v.dtype != "float32" or not isinstance(v.dims[1], int):
        return None
    time_last = b.node("Unsqueeze", b.node("Transpose", v.name, perm=[1, 0]), b.const([0]))
    out = b.node("Conv", time_last, b.noise((v.dims[1], v.dims[1], 3)), pads=[1, 1])
    return v.now(b.node("Transpose", b.node("Squeeze", out, b.const([0])), perm=[1, 0]), mixed=True, exact=False)


def attention(b: Builder, v: Value) -> Value | None:
    if not is_table(v):
        return None
    scores = b.node("MatMul", v.name, b.node("Transpose", v.name, perm=[1, 0]))
    return v.now(b.node("MatMul", b.node("Softmax", scores, axis=-1), v.name), mixed=True, exact=False)


def gram(b: Builder, v: Value) -> Value | None:
    """Two axes of rows in one tensor."""
    if not is_table(v):
        return None
    out = b.node("MatMul", v.name, b.node("Transpose", v.name, perm=[1, 0]))
    return v.now(out, dims=(v.dims[0], v.dims[0]), mixed=True, exact=False)


def parted(b: Builder, v: Value) -> Value | None:
    """Rows that pass a test come first: the number of rows stays, their order does not."""
    if not is_table(v) or not v.exact:
        return None
    passing = b.node("Greater", b.node("ReduceMax", v.name, b.const([1]), keepdims=0), b.const(0.5, v.dtype))
    halves = [b.node("Compress", v.name, flags, axis=0) for flags in (passing, b.node("Not", passing))]
    return v.now(b.node("Concat", *halves, axis=0), mixed=True)


def filtered(b: Builder, v: Value) -> Value | None:
    """Only the rows that pass a test are left."""
    if not is_table(v) or not v.exact:
        return None
    passing = b.node("Greater", b.node("ReduceMax", v.name, b.const([1]), keepdims=0), b.const(0.5, v.dtype))
    return v.now(b.node("Compress", v.name, passing, axis=0), dims=("?", v.dims[1]), mixed=True)


def found(b: Builder, v: Value) -> Value | None:
    """Where values are above a threshold, with the numbers of the rows."""
    if not suits(v) or not v.exact:
        return None
    places = b.node("NonZero", b.node("Greater", v.name, b.const(0.5, v.dtype)))
    return Value(b.node("Transpose", places, perm=[1, 0]), "int64", ("?", len(v.dims)), 0, mixed=True)


def scattered(b: Builder, v: Value) -> Value | None:
    """Each row goes where its largest value points."""
    if not is_table(v) or not v.exact or v.dtype != "float32":
        return None
    targets = b.node("ArgMax", v.name, axis=1, keepdims=1)
    targets = b.node("Mod", targets, b.size(v.name, 0))
    return v.now(b.node("ScatterND", v.name, targets, v.name, reduction="add"), mixed=True, exact=False)


def scanned(b: Builder, v: Value) -> Value | None:
    """A loop over the rows that remembers."""
    if not is_table(v) or v.dtype != "float32" or not isinstance(v.dims[1], int):
        return None
    info = helper.make_tensor_value_info
    width = [v.dims[1]]
    nodes = [
        helper.make_node("Mul", ["state", "decay"], ["old"]),
        helper.make_node("Add", ["old", "one"], ["next"]),
        helper.make_node("Identity", ["next"], ["out"]),
    ]
    body = helper.make_graph(
        nodes,
        "body",
        [info("state", TensorProto.FLOAT, width), info("one", TensorProto.FLOAT, width)],
        [info("next", TensorProto.FLOAT, width), info("out", TensorProto.FLOAT, width)],
        [helper.make_tensor("decay", TensorProto.FLOAT, [], [0.5])],
    )
    start = b.const(np.zeros(width), v.dtype)
    _, out = b.node("Scan", start, v.name, outputs=2, num_scan_inputs=1, body=body)
    return v.now(out, mixed=True, exact=False)


def rows_as_time(b: Builder, v: Value) -> Value | None:
    """A GRU for which the rows are time."""
    if not is_table(v) or v.dtype != "float32" or not isinstance(v.dims[1], int):
        return None
    series = b.node("Unsqueeze", v.name, b.const([1]))
    weights = b.noise((1, 6, v.dims[1]), scale=0.5), b.noise((1, 6, 2), scale=0.5)
    out, _ = b.node("GRU", series, *weights, outputs=2, hidden_size=2)
    return v.now(b.node("Squeeze", out, b.const([1, 2])), dims=(v.dims[0], 2), mixed=True, exact=False)


def quantized_together(b: Builder, v: Value) -> Value | None:
    """One scale for the whole run, as dynamic quantization has it."""
    if not suits(v) or v.dtype != "float32":
        return None
    parts = b.node("DynamicQuantizeLinear", v.name, outputs=3)
    return v.now(b.node("DequantizeLinear", *parts), mixed=True, exact=False)


def doubled(b: Builder, v: Value) -> Value | None:
    """Twice as many rows come out as go in."""
    if not suits(v):
        return None
    out = b.node("Concat", v.name, b.node("Neg", v.name), axis=v.row)
    dims = tuple("?" if axis == v.row else size for axis, size in enumerate(v.dims))
    return v.now(out, dims=dims, mixed=True)


def pooled(b: Builder, v: Value) -> Value | None:
    """No rows are left."""
    if not suits(v) or len(v.dims) < 2:
        return None
    kind = b.random.choice(["ReduceMean", "ReduceMax"])
    out = b.node(kind, v.name, b.const([v.row]), keepdims=0)
    return v.now(out, dims=tuple(v.dims[axis] for axis in v.features), row=None, mixed=True, exact=False)


def flattened(b: Builder, v: Value) -> Value | None:
    if not suits(v):
        return None
    return v.now(b.node("Reshape", v.name, b.const([-1])), dims=("?",), row=0, mixed=True)


def longest_of_all(b: Builder, v: Value) -> Value | None:
    """A mask as wide as the longest of the run, as padding to the longest makes it."""
    if v.dtype not in {"int64", "int32"} or len(v.dims) != 1 or v.row != 0:
        return None
    lengths = b.cast(v.name, "int64")
    widest = b.node("Add", b.node("ReduceMax", lengths, keepdims=0), b.const(1))
    places = b.node("Range", b.const(0), widest, b.const(1))
    mask = b.node("Less", places, b.node("Unsqueeze", lengths, b.const([1])))
    return Value(b.cast(mask, "float32"), "float32", (v.dims[0], "?"), 0, mixed=True)


def same_words(b: Builder, v: Value) -> Value | None:
    """The number of rows with the same number in them."""
    if v.dtype not in {"int64", "int32"} or len(v.dims) != 1 or v.row != 0:
        return None
    same = b.node("Equal", b.node("Unsqueeze", v.name, b.const([0])), b.node("Unsqueeze", v.name, b.const([1])))
    count = b.node("ReduceSum", b.cast(same, "int64"), b.const([1]), keepdims=0)
    return Value(count, "int64", v.dims, 0, mixed=True)


STEPS = (
    rows_reduced,
    rows_summed_up,
    rows_softmax,
    rows_normalized,
    rows_reversed,
    rows_rolled,
    rows_sorted,
    best_row,
    beside_the_first,
    rows_numbered,
    rows_counted,
    rows_reshaped,
    neighbours,
    attention,
    gram,
    parted,
    filtered,
    found,
    scattered,
    scanned,
    rows_as_time,
    quantized_together,
    doubled,
    pooled,
    flattened,
    longest_of_all,
    same_words,
)
