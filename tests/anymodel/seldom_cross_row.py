"""Steps in which rows meet only sometimes: for certain values, numbers of rows, lengths or parameters."""

from __future__ import annotations

from onnx import helper
from tests.anymodel.building import TYPES, Builder, Value
from tests.anymodel.cross_row import everything, is_table, suits


def many_rows(b: Builder, v: Value) -> Value | None:
    """Otherwise only above some number of rows."""
    if not suits(v):
        return None
    many = b.node("Greater", b.size(v.name, int(v.row or 0)), b.const([b.random.randint(2, 12)]))
    return v.now(b.node("Where", many, b.node("Neg", v.name), v.name), mixed=True)


def large_values(b: Builder, v: Value) -> Value | None:
    """Otherwise only when a value of any row is large: the excess is added to all."""
    if not suits(v):
        return None
    excess = b.node("Sub", everything(b, v, "ReduceMax"), b.const(b.random.choice([5, 20, 50]), v.dtype))
    return v.now(b.node("Add", v.name, b.node("Relu", excess)), mixed=True, exact=False)


def infinite_values(b: Builder, v: Value) -> Value | None:
    """Otherwise only when a value of any row is NaN or infinite."""
    if not suits(v):
        return None
    nothing = b.node("Mul", b.node("ReduceSum", v.name, b.const([v.row]), keepdims=1), b.const(0, v.dtype))
    return v.now(b.node("Add", v.name, nothing), mixed=True)


def zero_rows(b: Builder, v: Value) -> Value | None:
    """Otherwise only when some row is all zeros."""
    if not is_table(v) or not v.exact:
        return None
    sizes = b.node("ReduceSum", b.node("Abs", v.name), b.const([1]), keepdims=0)
    empty = b.node("Equal", b.node("ReduceMin", sizes, keepdims=0), b.const(0, v.dtype))
    return v.now(b.node("Add", v.name, b.cast(empty, v.dtype)), mixed=True, exact=False)


def equal_rows(b: Builder, v: Value) -> Value | None:
    """Otherwise only when two rows are equal: a row gets the number of its twins."""
    if not is_table(v) or not v.exact:
        return None
    across = b.node("Sub", b.node("Unsqueeze", v.name, b.const([1])), b.node("Unsqueeze", v.name, b.const([0])))
    apart = b.node("ReduceSum", b.node("Abs", across), b.const([2]), keepdims=0)
    twins = b.cast(b.node("Equal", apart, b.const(0, v.dtype)), v.dtype)
    count = b.node("ReduceSum", twins, b.const([1]), keepdims=1)
    return v.now(b.node("Add", v.name, count), mixed=True, exact=False)


def branched(b: Builder, v: Value) -> Value | None:
    """One decision for the whole run."""
    if not suits(v) or not v.exact or v.dtype != "float32":
        return None
    flag = b.node("Greater", everything(b, v, "ReduceMax"), b.const(b.random.choice([0.5, 30]), v.dtype))
    out = b.name()
    graphs = [
        helper.make_graph(
            [helper.make_node(kind, [v.name], [f"{out}_{side}"])],
            side,
            [],
            [helper.make_tensor_value_info(f"{out}_{side}", TYPES[v.dtype], None)],
        )
        for side, kind in (("then", "Neg"), ("else", "Identity"))
    ]
    return v.now(b.node("If", flag, then_branch=graphs[0], else_branch=graphs[1]), mixed=True)


def training_flag(b: Builder, v: Value) -> Value | None:
    """Rows meet only if a parameter of the call says so."""
    if not suits(v) or any(each.parameter for each in b.inputs):
        return None
    given = b.input(f"k{len(b.inputs)}", "bool", b.random.choice([(), (1,)]), parameter=True)
    mean = b.node("ReduceMean", v.name, b.const([v.row]), keepdims=1)
    centred = b.node("Sub", v.name, mean)
    return v.now(b.node("Where", given.name, centred, v.name), mixed=True, exact=False)


def special_number(b: Builder, v: Value) -> Value | None:
    """Otherwise only when some row holds one certain number."""
    if v.dtype not in {"int64", "int32"} or v.row is None:
        return None
    special = b.node("Equal", v.name, b.const(b.random.randrange(4), v.dtype))
    held = b.node("ReduceMax", b.cast(special, "int64"), keepdims=0)
    return v.now(b.node("Add", v.name, b.cast(held, v.dtype)), mixed=True)


def long_rows(b: Builder, v: Value) -> Value | None:
    """Otherwise only above some length."""
    lengths = [axis for axis in v.features if v.dims[axis] in b.lengths]
    if not suits(v) or not lengths:
        return None
    long = b.node("Greater", b.size(v.name, lengths[0]), b.const([b.random.randint(1, 5)]))
    total = b.node("ReduceSum", v.name, b.const([v.row]), keepdims=1)
    return v.now(b.node("Where", long, b.node("Add", v.name, total), v.name), mixed=True, exact=False)


def strings_lost(b: Builder, v: Value) -> Value | None:
    """Strings of which ONNX Runtime 1.32 keeps the first of a run only, though they should be picked row by row."""
    axes = [axis for axis in v.features if isinstance(v.dims[axis], int)]
    if v.dtype != "object" or v.row is None or not axes:
        return None
    dims = (*v.dims[: axes[0]], 1, *v.dims[axes[0] + 1 :])
    return v.now(b.node("Gather", v.name, b.const([0]), axis=axes[0]), dims=dims, mixed=True)


STEPS = (
    many_rows,
    large_values,
    infinite_values,
    zero_rows,
    equal_rows,
    branched,
    training_flag,
    special_number,
    long_rows,
    strings_lost,
)
