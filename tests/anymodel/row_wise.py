"""Steps that keep rows apart: each takes a tensor and returns one in which a row depends on that row alone.

A step returns None when it does not suit the tensor.
"""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper, numpy_helper
from tests.anymodel.building import TYPES, Builder, Value


def exact_unary(b: Builder, v: Value) -> Value | None:
    if not v.is_float:
        return None
    return v.now(b.node(b.random.choice(["Relu", "Abs", "Neg", "Floor", "Identity"]) if v.exact else "Neg", v.name))


def smooth_unary(b: Builder, v: Value) -> Value | None:
    if not v.is_float:
        return None
    kind = b.random.choice(["Sigmoid", "Tanh", "Softplus", "Erf", "Gelu", "HardSigmoid", "Elu", "Mish"])
    return v.now(b.node(kind, v.name), exact=False)


def with_constant(b: Builder, v: Value) -> Value | None:
    if not v.is_float or not v.features:
        return None
    last = v.features[-1]
    size = v.dims[last]
    shape = [1] * (len(v.dims) - last)
    if isinstance(size, int):
        shape[0] = size
    constant = b.noise(tuple(shape), v.dtype)
    return v.now(b.node(b.random.choice(["Add", "Mul", "Sub", "Max", "Min"]), v.name, constant))


def with_parameter(b: Builder, v: Value) -> Value | None:
    if not v.is_float or any(each.parameter for each in b.inputs):
        return None
    shape: tuple[int, ...] = b.random.choice([(), (1,), (1, 1)])
    if len(shape) > len(v.dims):
        shape = ()
    given = b.input(f"k{len(b.inputs)}", v.dtype, shape, parameter=True)
    return v.now(b.node(b.random.choice(["Add", "Mul"]), v.name, given.name))


def switched(b: Builder, v: Value) -> Value | None:
    """A branch that a parameter of the call chooses, as Silero's `sr` does."""
    if v.dtype != "float32" or any(each.parameter for each in b.inputs):
        return None
    given = b.input(f"k{len(b.inputs)}", "int64", b.random.choice([(), (1,)]), parameter=True)
    flag = b.node("Reshape", b.node("Equal", given.name, b.const(1)), b.const(np.zeros(0)))
    out = b.name()
    branches = [
        helper.make_graph(
            [helper.make_node(kind, [v.name], [f"{out}_{side}"])],
            side,
            [],
            [helper.make_tensor_value_info(f"{out}_{side}", TYPES[v.dtype], None)],
        )
        for side, kind in (("then", "Neg"), ("else", "Abs"))
    ]
    return v.now(b.node("If", flag, then_branch=branches[0], else_branch=branches[1]))


def matmul(b: Builder, v: Value) -> Value | None:
    size = v.dims[-1]
    if not v.is_float or v.row == len(v.dims) - 1 or not isinstance(size, int) or _crashes_a_product(b, v):
        return None
    width = b.random.randint(1, 5)
    out = b.node("MatMul", v.name, b.noise((size, width), v.dtype))
    return v.now(out, dims=(*v.dims[:-1], width), exact=False)


def _crashes_a_product(b: Builder, v: Value) -> bool:
    """Whether a tensor was cast, as FP16 will be: ONNX Runtime 1.32 crashes while it loads Transpose, Cast, MatMul."""
    return v.dtype == "float16" or any(node.op_type == "Cast" and v.name in node.output for node in b.nodes)


def gemm(b: Builder, v: Value) -> Value | None:
    if v.dtype != "float32" or len(v.dims) != 2 or v.row != 0 or not isinstance(v.dims[1], int):
        return None
    width = b.random.randint(1, 5)
    out = b.node("Gemm", v.name, b.noise((width, v.dims[1])), b.noise((width,)), transB=1)
    return v.now(out, dims=(v.dims[0], width), exact=False)


def feature_softmax(b: Builder, v: Value) -> Value | None:
    if not v.is_float or not v.features:
        return None
    # Whether ONNX Runtime 1.32 heeds a row's own NaN in a softmax of doubles depends on the row's place.
    b.finite |= v.dtype == "float64"
    return v.now(
        b.node(b.random.choice(["Softmax", "LogSoftmax"]), v.name, axis=b.random.choice(v.features)), exact=False
    )


def layer_norm(b: Builder, v: Value) -> Value | None:
    size = v.dims[-1]
    if v.dtype != "float32" or v.row == len(v.dims) - 1 or not isinstance(size, int) or size < 2:
        return None
    scale = b.const(np.ones(size), v.dtype)
    # A large epsilon: next to zero variance, rounding would be all that is left.
    return v.now(b.node("LayerNormalization", v.name, scale, axis=-1, epsilon=0.5), exact=False)


def feature_reduce(b: Builder, v: Value) -> Value | None:
    if not v.is_float or not v.features or len(v.dims) < 2:
        return None
    axis = b.random.choice(v.features)
    kind = b.random.choice(["ReduceSum", "ReduceMean", "ReduceMax", "ReduceL2"])
    keep = b.chance(0.5)
    out = b.node(kind, v.name, b.const([axis]), keepdims=int(keep))
    if keep:
        return v.now(out, dims=(*v.dims[:axis], 1, *v.dims[axis + 1 :]), exact=v.exact and kind == "ReduceMax")
    row = v.row if v.row is None or v.row < axis else v.row - 1
    return v.now(out, dims=v.dims[:axis] + v.dims[axis + 1 :], row=row, exact=v.exact and kind == "ReduceMax")


def feature_cumsum(b: Builder, v: Value) -> Value | None:
    if not v.is_float or v.dtype == "float16" or not v.features:
        return None
    return v.now(b.node("CumSum", v.name, b.const(b.random.choice(v.features))), exact=False)


def feature_sort(b: Builder, v: Value) -> Value | None:
    axes = [axis for axis in v.features if isinstance(v.dims[axis], int)]
    if v.dtype != "float32" or not v.exact or not axes:
        return None
    axis = b.random.choice(axes)
    count = b.random.randint(1, int(v.dims[axis]))
    out, _ = b.node("TopK", v.name, b.const([count]), outputs=2, axis=axis)
    return v.now(out, dims=(*v.dims[:axis], count, *v.dims[axis + 1 :]))


def transpose(b: Builder, v: Value) -> Value | None:
    if len(v.dims) < 2:
        return None
    order = list(range(len(v.dims)))
    b.random.shuffle(order)
    row = None if v.row is None else order.index(v.row)
    return v.now(b.node("Transpose", v.name, perm=order), dims=tuple(v.dims[i] for i in order), row=row)


def flatten(b: Builder, v: Value) -> Value | None:
    sizes = [size for size in (v.dims[axis] for axis in v.features) if isinstance(size, int)]
    if v.row != 0 or len(v.dims) != 3 or len(sizes) != len(v.features):
        return None
    return v.now(b.node("Flatten", v.name, axis=1), dims=(v.dims[0], int(np.prod(sizes))))


def feature_reverse(b: Builder, v: Value) -> Value | None:
    axes = [axis for axis in v.features if isinstance(v.dims[axis], int)]
    # ONNX Runtime 1.32 loses strings in Gather, all but the first; `cross_row.strings_lost` is for that.
    if not axes or v.dtype == "object":
        return None
    axis = b.random.choice(axes)
    picked = [b.random.randrange(int(v.dims[axis])) for _ in range(b.random.randint(1, 4))]
    out = b.node("Gather", v.name, b.const(picked), axis=axis)
    return v.now(out, dims=(*v.dims[:axis], len(picked), *v.dims[axis + 1 :]))


def feature_concat(b: Builder, v: Value) -> Value | None:
    axes = [axis for axis in v.features if isinstance(v.dims[axis], int)]
    if not v.is_float or not axes:
        return None
    axis = b.random.choice(axes)
    out = b.node("Concat", v.name, b.node("Neg", v.name), axis=axis)
    return v.now(out, dims=(*v.dims[:axis], 2 * int(v.dims[axis]), *v.dims[axis + 1 :]))


def choose(b: Builder, v: Value) -> Value | None:
    if not v.is_float or not v.exact:
        return None
    chosen = b.node("Greater", v.name, b.const(0.5, v.dtype))
    return v.now(b.node("Where", chosen, v.name, b.const(-1, v.dtype)))


def unsqueeze(b: Builder, v: Value) -> Value | None:
    if len(v.dims) > 3:
        return None
    axis = b.random.randint(0, len(v.dims))
    row = None if v.row is None else v.row + (axis <= v.row)
    return v.now(b.node("Unsqueeze", v.name, b.const([axis])), dims=(*v.dims[:axis], 1, *v.dims[axis:]), row=row)


def to_integers(b: Builder, v: Value) -> Value | None:
    if v.dtype != "float32" or not v.exact:
        return None
    whole = b.node("Cast", b.node("Greater", v.name, b.const(0.3, v.dtype)), to=TensorProto.INT64)
    return v.now(whole, dtype="int64")


def to_floats(b: Builder, v: Value) -> Value | None:
    if v.dtype not in {"int64", "int32", "bool", "float16", "float64"}:
        return None
    return v.now(b.cast(v.name, "float32"), dtype="float32")


def look_up(b: Builder, v: Value) -> Value | None:
    if v.dtype not in {"int64", "int32"} or len(v.dims) > 3:
        return None
    places = b.node("Mod", b.cast(v.name, "int64"), b.const(4))
    return v.now(b.node("Gather", b.noise((4, 3)), places), dtype="float32", dims=(*v.dims, 3))


def words_to_numbers(b: Builder, v: Value) -> Value | None:
    if v.dtype != "object":
        return None
    encoded = b.node(
        "LabelEncoder",
        v.name,
        domain="ai.onnx.ml",
        keys_strings=["a", "b c"],
        values_floats=[1.0, 2.5],
        default_float=-1.0,
    )
    return v.now(encoded, dtype="float32")


def convolve(b: Builder, v: Value) -> Value | None:
    if v.dtype != "float32" or len(v.dims) != 3 or v.row != 0 or not isinstance(v.dims[1], int):
        return None
    weights = b.noise((2, v.dims[1], 3))
    return v.now(b.node("Conv", v.name, weights, pads=[1, 1]), dims=(v.dims[0], 2, v.dims[2]), exact=False)


def recurrent(b: Builder, v: Value) -> Value | None:
    """A GRU over time, whose layout holds the rows in the second dimension."""
    if v.dtype != "float32" or len(v.dims) != 3 or v.row != 1 or not isinstance(v.dims[2], int):
        return None
    hidden = 2
    weights = b.noise((1, 3 * hidden, v.dims[2]), scale=0.5), b.noise((1, 3 * hidden, hidden), scale=0.5)
    out, last = b.node("GRU", v.name, *weights, outputs=2, hidden_size=hidden)
    if b.chance(0.5):
        return v.now(last, dims=(1, v.dims[1], hidden), exact=False)
    return v.now(out, dims=(v.dims[0], 1, v.dims[1], hidden), row=2, exact=False)


def inference_norm(b: Builder, v: Value) -> Value | None:
    if v.dtype != "float32" or len(v.dims) < 2 or v.row != 0 or not isinstance(v.dims[1], int):
        return None
    size = v.dims[1]
    parts = [b.const(np.abs(b.weights.normal(size=size)) + 0.5, v.dtype) for _ in range(4)]
    return v.now(b.node("BatchNormalization", v.name, *parts), exact=False)


def row_attention(b: Builder, v: Value) -> Value | None:
    """Attention within each row, over its length."""
    if v.dtype != "float32" or len(v.dims) != 3 or v.row != 0:
        return None
    scores = b.node("Softmax", b.node("MatMul", v.name, b.node("Transpose", v.name, perm=[0, 2, 1])), axis=-1)
    return v.now(b.node("MatMul", scores, v.name), exact=False)


def ones_beside(b: Builder, v: Value) -> Value | None:
    """A constant that is made as long as there are rows."""
    if not v.is_float or len(v.dims) != 2 or v.row != 0:
        return None
    shape = b.node("Concat", b.size(v.name, 0), b.const([1]), axis=0)
    one = numpy_helper.from_array(np.ones(1, v.dtype))
    ones = b.node("ConstantOfShape", shape, value=one)
    width = v.dims[1]
    dims = (v.dims[0], width + 1) if isinstance(width, int) else (v.dims[0], "?")
    return v.now(b.node("Concat", v.name, ones, axis=1), dims=dims)


STEPS = (
    exact_unary,
    smooth_unary,
    with_constant,
    with_parameter,
    switched,
    matmul,
    gemm,
    feature_softmax,
    layer_norm,
    feature_reduce,
    feature_cumsum,
    feature_sort,
    transpose,
    flatten,
    feature_reverse,
    feature_concat,
    choose,
    unsqueeze,
    to_integers,
    to_floats,
    look_up,
    words_to_numbers,
    convolve,
    recurrent,
    inference_norm,
    row_attention,
    ones_beside,
)
