"""Models whose rows depend on each other are found out; those whose rows don't are batched."""

from __future__ import annotations

from pathlib import Path
from typing import Unpack

import numpy as np
import onnxruntime as ort
import pytest
from tests.lifecycle.onnx_text import write

from headrace.contracts import ModelDirectory, ModelPackage
from headrace.lifecycle.packages.adding import PackageOptions
from headrace.lifecycle.packages.registry import add_model, notes_of


def add(folder: Path, graph: str, **options: Unpack[PackageOptions]) -> ModelPackage:
    return add_model(write(folder / "m.onnx", graph), ModelDirectory(folder / "models"), **options)


DEPENDENT = {
    "mean over rows": "g (float[n,4] x) => (float[n,4] y) <int64[1] a = {0}> { m = ReduceMean(x, a) y = Sub(x, m) }",
    "sum along time": "g (float[time,2] x) => (float[time,2] y) <int64 a = {0}> { y = CumSum(x, a) }",
    "softmax over rows": "g (float[n,4] x) => (float[n,4] y) { y = Softmax <axis = 0> (x) }",
    "batch norm in training": """
        g (float[n,3] x) => (float[n,3] y)
        <float[3] s = {1,2,3}, float[3] b = {0,1,2}, float[3] m = {0.1,0,0}, float[3] v = {1,1,2}>
        { y, m1, v1 = BatchNormalization <training_mode = 1> (x, s, b, m, v) }""",
    "one scale for all rows": """
        g (float[n,4] x) => (float[n,4] y) { q, s, z = DynamicQuantizeLinear(x) y = DequantizeLinear(q, s, z) }""",
    "the best of all rows": """
        g (float[n,1] x) => (float[n,1] y) <int64[1] k = {1}> { b, i = TopK <axis = 0> (x, k) y = Sub(x, b) }""",
    "boxes, often as many as images": """
        g (float[n,2,4] boxes, float[n,2] score) => (float[count,4] found)
        <float[1,2] t = {-5,5}, int64[1] f = {-1}, int64[2] b4 = {-1,4}>
        { k = Greater(score, t) kf = Reshape(k, f) b = Reshape(boxes, b4) found = Compress <axis = 0> (b, kf) }""",
    "boxes after suppression": """
        g (float[n,50,4] b, float[n,2,50] s) => (int64[boxes,3] sel)
        <int64[1] k = {5}, float[1] iou = {0.5}, float[1] t = {0}> { sel = NonMaxSuppression(b, s, k, iou, t) }""",
    "a width that data decide": """
        g (string[n] x) => (string[n,w] y, int64[n] k) { y, k = StringSplit <delimiter = " "> (x) }""",
    "random numbers": "g (float[n,4] x) => (float[n,4] y) { r = RandomNormalLike(x) y = Add(x, r) }",
    "one row loses its dimension": "g (float[n,4] x) => (float[m] y) { y = Squeeze(x) }",
    "NaN that spreads": """
        g (float[n,2] x) => (float[n,2] y) <float z = {0}>
        { s = ReduceSum <keepdims = 0> (x) t = Mul(s, z) y = Add(x, t) }""",
    "the place in the batch": """
        g (float[n,2] x) => (float[n,2] y) <int64 z = {0}, int64 o = {1}, int64[1] a = {1}, int64[1] i = {0}>
        { s = Shape(x) c = Gather(s, i) d = Squeeze(c) r = Range(z, d, o) f = Cast <to = 1> (r)
          u = Unsqueeze(f, a) y = Add(x, u) }""",
    "a token that changes all rows": """
        g (int64[n,len] x) => (float[n,len] y) <int64 five = {5}>
        { e = Equal(x, five) i = Cast <to = 7> (e) m = ReduceMax <keepdims = 0> (i) s = Add(x, m)
          y = Cast <to = 1> (s) }""",
    "a neighbour that is large": """
        g (float[n,2] x) => (float[n,2] y) <float t = {60}>
        { m = ReduceMax <keepdims = 0> (x) g = Greater(m, t) f = Cast <to = 1> (g) y = Add(x, f) }""",
}


@pytest.mark.parametrize("graph", DEPENDENT.values(), ids=DEPENDENT)
def test_models_whose_rows_meet_are_served_one_request_a_run(tmp_path: Path, graph: str) -> None:
    package = add(tmp_path, graph)
    assert not package.manifest.batching.independent_rows
    assert package.manifest.batching.row_sizes == ()
    assert len(notes_of(package)) == 1


INDEPENDENT = {
    "rows first": ("g (float[n,4] x) => (float[n,4] y) { y = Relu(x) }", "x [rows, 4] → y [rows, 4]"),
    "state at axis 1": (
        """g (float[batch,8] x, float[2,batch,8] h) => (float[batch,8] y, float[2,batch,8] h1) <int64[1] a = {0}>
        { u = Unsqueeze(x, a) h1 = Add(h, u) y = ReduceSum <keepdims = 0> (h1, a) }""",
        "x [rows, 8]; h [2, rows, 8] → y [rows, 8]; h1 [2, rows, 8]",
    ),
    "rows move": (
        "g (float[batch,t,4] x) => (float[t,batch,4] y) { y = Transpose <perm = [1,0,2]> (x) }",
        "x [rows, t, 4] → y [t, rows, 4]",
    ),
    "a recurrent network, time first": (
        """g (float[t,batch,2] x) => (float[t,1,batch,1] y)
        <float[1,4,2] w = {1,-1,0.5,2,0.1,0.3,-0.4,1}, float[1,4,1] r = {0.4,-0.2,1,0.3}>
        { y = LSTM <hidden_size = 1> (x, w, r) }""",
        "x [t, rows, 2] → y [t, 1, rows, 1]",
    ),
    "a scalar parameter": (
        "g (float[n,3] x, float k) => (float[n,3] y) { y = Mul(x, k) }", "x [rows, 3]; k [] → y [rows, 3]",
    ),
    "a parameter": (
        "g (float[n,3] x, float[1] k) => (float[n,3] y) { y = Mul(x, k) }", "x [rows, 3]; k [1] → y [rows, 3]",
    ),
    "a default that may be given": (
        "g (float[n,3] x, float[1] k = {2}) => (float[n,3] y) { y = Mul(x, k) }",
        "x [rows, 3]; k [1], optional → y [rows, 3]",
    ),
    "lengths that agree": (
        "g (float[n,len] a, float[n,len] b) => (float[n,len] y) { y = Add(a, b) }",
        "a [rows, len]; b [rows, len] → y [rows, len]",
    ),
    "lengths of one name that need not agree": (
        """g (float[n,len] a, float[n,len] b) => (float[n,1] y) <int64[1] x = {1}>
        { s = ReduceSum(a, x) t = ReduceMax(b, x) y = Add(s, t) }""",
        "a [rows, len]; b [rows, ?] → y [rows, 1]",
    ),
    "a constant beside": (
        "g (float[n,3] x) => (float[n,3] y, float[2] names) <float[2] c = {1,2}> { y = Neg(x) names = Identity(c) }",
        "x [rows, 3] → y [rows, 3]; names [2]",
    ),
    "a least length": (
        """g (float[n,1,t] x) => (float[n,1,t2] y) <int64[3] s = {1,1,300}>
        { w = ConstantOfShape <value = float[1] {1}> (s) y = Conv(x, w) }""",
        "x [rows, 1, t] → y [rows, 1, ?]",
    ),
    "a sum of lengths": (
        """g (float[batch,len] x, float[batch,past] p, float[batch,"past + len"] m) => (float[batch,all] y)
        { c = Concat <axis = 1> (p, x) y = Mul(c, m) }""",
        "x [rows, len]; p [rows, past]; m [rows, past + len] → y [rows, ?]",
    ),
    "maximum over time": (
        "g (float[n,5,4] x) => (float[n,4] y) <int64[1] a = {1}> { y = ReduceMax <keepdims = 0> (x, a) }",
        "x [rows, 5, 4] → y [rows, 4]",
    ),
    "bfloat16 out": ("g (float[n,3] x) => (bfloat16[n,3] y) { y = Cast <to = 16> (x) }", "x [rows, 3] → y [rows, 3]"),
    "words": (
        """g (string[n] x) => (float[n] y)
        { y = ai.onnx.ml.LabelEncoder <keys_strings = ["a","b c"], values_floats = [1.0,2.0]> (x) }""",
        "x [rows] → y [rows]",
    ),
    "attention with a mask": (
        """g (float[batch,len,4] x, int64[batch,len] mask) => (float[batch,len,4] y)
        <int64[1] a = {1}, float big = {-10000}, float one = {1}>
        { t = Transpose <perm = [0,2,1]> (x) s = MatMul(x, t) m = Cast <to = 1> (mask) i = Sub(one, m)
          p = Mul(i, big) u = Unsqueeze(p, a) q = Add(s, u) w = Softmax(q) y = MatMul(w, x) }""",
        "x [rows, len, 4]; mask [rows, len] → y [rows, len, 4]",
    ),
}  # fmt: skip


def signature_of(package: ModelPackage) -> str:
    """Return inputs and outputs without their datatypes."""
    manifest = package.manifest
    datatypes = {spec.datatype for spec in (*manifest.inputs, *manifest.outputs)}
    sides = ("; ".join(spec.describe() for spec in specs) for specs in (manifest.inputs, manifest.outputs))
    line = " → ".join(sides)
    for datatype in datatypes:
        line = line.replace(f" {datatype} [", " [")
    return line


@pytest.mark.parametrize(("graph", "signature"), INDEPENDENT.values(), ids=INDEPENDENT)
def test_models_whose_rows_are_independent_are_batched(tmp_path: Path, graph: str, signature: str) -> None:
    package = add(tmp_path, graph)
    assert package.manifest.batching.independent_rows
    assert signature_of(package) == signature
    assert notes_of(package) == []


@pytest.mark.parametrize(
    ("graph", "sizes", "signature"),
    [
        ("g (float[4,3] x) => (float[4,3] y) { y = Relu(x) }", (4,), "x [rows, 3] → y [rows, 3]"),
        ("g (float[1,3] x) => (float[1,3] y) { y = Relu(x) }", (1,), "x [rows, 3] → y [rows, 3]"),
        (
            "g (float[n,4] x) => (float[n,4] y) <int64[2] s = {1,4}> { y = Reshape(x, s) }",
            (1,),
            "x [rows, 4] → y [rows, 4]",
        ),
    ],
    ids=["four", "one", "one inside a graph that says any"],
)
def test_fixed_batches_run_in_that_many_rows(tmp_path: Path, graph: str, sizes: tuple[int], signature: str) -> None:
    package = add(tmp_path, graph)
    batching = package.manifest.batching
    assert (batching.row_sizes, batching.max_rows, batching.independent_rows) == (sizes, sizes[-1], True)
    assert signature_of(package) == signature


def test_a_fixed_batch_whose_rows_meet_is_given_whole(tmp_path: Path) -> None:
    package = add(tmp_path, "g (float[4,3] x) => (float[4,3] y) { y = Softmax <axis = 0> (x) }")
    assert not package.manifest.batching.independent_rows
    assert signature_of(package) == "x [4, 3] → y [4, 3]"


@pytest.mark.parametrize(
    ("graph", "signature"),
    [
        ("g (float[4] x) => (float[4] y) { y = Relu(x) }", "x [4] → y [4]"),
        ("g (float[n,n] x) => (float[n,n] y) { y = MatMul(x, x) }", "x [n, n] → y [n, n]"),
    ],
)
def test_a_model_without_rows_takes_whole_requests(tmp_path: Path, graph: str, signature: str) -> None:
    package = add(tmp_path, graph)
    assert not package.manifest.batching.independent_rows
    assert signature_of(package) == signature


def test_an_output_whose_rank_depends_on_the_rows_may_have_any_shape(tmp_path: Path) -> None:
    package = add(tmp_path, DEPENDENT["one row loses its dimension"])
    (output,) = package.manifest.outputs
    assert output.takes((4,))
    assert output.takes((3, 4))


def test_rows_of_a_model_that_forbids_nan_may_meet_where_only_nan_would_tell(tmp_path: Path) -> None:
    assert add(tmp_path, DEPENDENT["NaN that spreads"], allow_nan=False).manifest.batching.independent_rows


def test_inputs_whose_rows_need_not_agree_are_none(tmp_path: Path) -> None:
    graph = "g (float[?,3] x, float[?,2] unused) => (float[?,3] y) { y = Neg(x) z = Abs(unused) }"
    package = add(tmp_path, graph)
    assert signature_of(package) == "x [rows, 3]; unused [?, 2] → y [rows, 3]"


def test_the_reason_names_the_output_the_operator_and_the_cost(tmp_path: Path) -> None:
    (note,) = notes_of(add(tmp_path, DEPENDENT["one scale for all rows"]))
    assert "output 'y' of a row changes by" in note
    assert "DynamicQuantizeLinear takes one scale for all rows" in note
    assert "each request runs alone" in note
    assert "--batch overrides" in note


def test_labels_of_scores_that_are_quantized_together_are_not_trusted(tmp_path: Path) -> None:
    package = add(
        tmp_path,
        """g (float[n,4] x) => (int64[n] y) <float[4] far = {0,0,0,1000000}>
        { q, s, z = DynamicQuantizeLinear(x) d = DequantizeLinear(q, s, z) f = Add(d, far)
          y = ArgMax <axis = 1, keepdims = 0> (f) }""",
    )
    assert not package.manifest.batching.independent_rows


def test_a_model_that_refuses_every_made_up_row_is_served_alone_and_asks_for_a_sample(tmp_path: Path) -> None:
    graph = """g (float[n,t] x) => (float[n,7] y) <int64[2] s = {-1,7}> { y = Reshape(x, s) }"""
    package = add(tmp_path, graph.replace("[2] s = {-1,7}", "[3] s = {0,7,31}").replace("float[n,7]", "float[n,7,31]"))
    assert not package.manifest.batching.independent_rows
    (note,) = notes_of(package)
    assert "--sample FILE" in note
    assert "nothing could be proven" in note


def test_a_sample_proves_what_slow_model_rows_can_not(tmp_path: Path) -> None:
    graph = "g (float[n,t] x) => (float[n,7,31] y) <int64[3] s = {0,7,31}> { y = Reshape(x, s) }"
    np.savez(tmp_path / "rows.npz", x=np.arange(5 * 217, dtype=np.float32).reshape(5, 217))
    package = add(tmp_path, graph, sample=tmp_path / "rows.npz")
    assert package.manifest.batching.independent_rows
    assert package.manifest.inputs[0].sample_shape == (217,)


def test_a_sample_may_show_that_rows_meet(tmp_path: Path) -> None:
    graph = """g (float[n,t] x) => (float[n,7,31] y) <int64[3] s = {0,7,31}>
        { r = Reshape(x, s) y = Softmax <axis = 0> (r) }"""
    np.savez(tmp_path / "rows.npz", x=np.arange(5 * 217, dtype=np.float32).reshape(5, 217))
    assert not add(tmp_path, graph, sample=tmp_path / "rows.npz").manifest.batching.independent_rows


def test_deep_networks_pass_though_kernels_differ_with_the_number_of_rows(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    layers = [random.standard_normal((96, 96)).astype(np.float32) / 9.8 for _ in range(12)]
    weights = ", ".join(
        f"float[96,96] w{number} = {{{','.join(map(str, layer.reshape(-1)))}}}" for number, layer in enumerate(layers)
    )
    steps = " ".join(
        f"a{number} = MatMul(h{number}, w{number}) h{number + 1} = Tanh(a{number})" for number in range(12)
    )
    graph = f"g (float[n,96] h0) => (float[n,96] h12) <{weights}> {{ {steps} }}"
    assert add(tmp_path, graph).manifest.batching.independent_rows


def test_the_sizes_that_ran_are_remembered(tmp_path: Path) -> None:
    package = add(tmp_path, INDEPENDENT["a least length"][0])
    assert package.manifest.inputs[0].sample_shape == (1, 320)
    assert package.manifest.provenance["trial"]["sizes"] == {"t": 320}


def test_what_a_package_says_is_what_the_file_answers(tmp_path: Path) -> None:
    """The slices of a batch are the answers of rows alone, in bare ONNX Runtime."""
    package = add(tmp_path, INDEPENDENT["a recurrent network, time first"][0])
    session = ort.InferenceSession(package.file)
    (spec,), (output,) = package.manifest.inputs, package.manifest.outputs
    batch = np.random.default_rng(0).standard_normal((4, 3, 2)).astype(np.float32)
    together = session.run(None, {"x": batch})[0]
    for row in range(3):
        alone = session.run(None, {"x": np.take(batch, [row], spec.rows_at)})[0]
        np.testing.assert_allclose(np.take(together, [row], output.rows_at), alone, rtol=1e-5)


HIDDEN_IN_VALUES = {
    "a number that the graph compares with": """
        g (int64[n] x) => (float[n] y) <int64 known = {101}>
        { e = Equal(x, known) i = Cast <to = 7> (e) m = ReduceMax <keepdims = 0> (i) s = Add(x, m)
          y = Cast <to = 1> (s) }""",
    "a crowd": """
        g (float[n,2] x) => (float[n,2] y) <int64 most = {60}>
        { s = Shape <start = 0, end = 1> (x) c = Squeeze(s) g = Greater(c, most) f = Cast <to = 1> (g)
          y = Add(x, f) }""",
    "long rows": """
        g (float[n,len] x) => (float[n,len] y) <int64 most = {24}>
        { s = Shape <start = 1, end = 2> (x) c = Squeeze(s) g = Greater(c, most) f = Cast <to = 1> (g)
          m = ReduceMax <keepdims = 0> (x) p = Mul(m, f) y = Add(x, p) }""",
    "short rows": """
        g (float[n,len] x) => (float[n,len] y) <int64 least = {3}>
        { s = Shape <start = 1, end = 2> (x) c = Squeeze(s) g = Less(c, least) f = Cast <to = 1> (g)
          m = ReduceMax <keepdims = 0> (x) p = Mul(m, f) y = Add(x, p) }""",
    "a parameter of zero": """
        g (float[n,3] x, float k) => (float[n,3] y) <float zero = {0}>
        { e = Equal(k, zero) f = Cast <to = 1> (e) m = ReduceMax <keepdims = 0> (x) p = Mul(m, f) y = Add(x, p) }""",
}  # fmt: skip


@pytest.mark.parametrize("graph", HIDDEN_IN_VALUES.values(), ids=HIDDEN_IN_VALUES)
def test_rows_that_meet_in_certain_cases_only_are_found_out(tmp_path: Path, graph: str) -> None:
    assert not add(tmp_path, graph).manifest.batching.independent_rows


def test_the_largest_batch_that_a_worker_makes_is_tried(tmp_path: Path) -> None:
    graph = HIDDEN_IN_VALUES["a crowd"]
    assert add(tmp_path, graph, max_rows=32).manifest.batching.independent_rows
    assert not add(tmp_path, graph.replace("{60}", "{200}"), max_rows=256).manifest.batching.independent_rows


def test_an_input_that_says_how_an_operator_works_holds_no_rows(tmp_path: Path) -> None:
    graph = "g (float[3,1] data, int64[3] shape) => (float[a,b,c] y) { y = Expand(data, shape) }"
    package = add(tmp_path, graph)
    assert signature_of(package) == "data [3, 1]; shape [3] → y [any shape]"
    assert not package.manifest.batching.independent_rows


def test_a_single_number_beside_a_fixed_batch_of_one_is_no_row(tmp_path: Path) -> None:
    graph = "g (float[1,3] x, float[1] k) => (float[1,3] y) { y = Mul(x, k) }"
    assert signature_of(add(tmp_path, graph)) == "x [rows, 3]; k [1] → y [rows, 3]"


SQUARES = {
    "a power": "g (float[?,?] x) => (float[?,?] y) { y = MatMul(x, x) }",
    "beside its transpose": "g (float[?,?] x) => (float[?,?] y) { t = Transpose(x) y = Add(x, t) }",
    "of two inputs": "g (float[?,?] x, float[?,?] z) => (float[?,?] y) { y = MatMul(x, z) p = MatMul(z, x) }",
}


@pytest.mark.parametrize("graph", SQUARES.values(), ids=SQUARES)
def test_a_model_that_runs_only_equal_sizes_is_served_whole_and_alone(tmp_path: Path, graph: str) -> None:
    batching = add(tmp_path, graph).manifest.batching
    assert (batching.independent_rows, batching.row_sizes) == (False, ())
    assert signature_of(ModelDirectory(tmp_path / "models").get("m")).startswith("x [?, ?]")


def test_a_number_for_each_series_lies_beside_the_second_axis(tmp_path: Path) -> None:
    graph = """g (float[?,?,1] x, int32[?] size) => (float[?,1,?,1] y)
        <float[1,3,1] w = {1,-1,0.5}, float[1,3,1] r = {0.4,-0.2,1}, float[1,6] b = {0,0,0,0,0,0}>
        { y, h = GRU <hidden_size = 1> (x, w, r, b, size) }"""
    package = add(tmp_path, graph)
    assert signature_of(package) == "x [?, rows, 1]; size [rows] → y [?, 1, rows, 1]"
    assert package.manifest.batching.independent_rows


def test_an_output_as_long_as_there_are_different_rows_has_none(tmp_path: Path) -> None:
    graph = "g (float[?,1] x) => (float[?,1] y) { y, i, r, c = Unique <axis = 0> (x) }"
    package = add(tmp_path, graph)
    assert not package.manifest.batching.independent_rows
    assert [spec.row_axis for spec in package.manifest.outputs] == [None]


def test_requests_of_unequal_rows_are_taken_where_the_file_takes_them(tmp_path: Path) -> None:
    graph = "g (float[?,3] x, float[?,3] z) => (float[?,3] y, float[?,3] w) { y = Relu(x) w = Neg(z) }"
    package = add(tmp_path, graph)
    assert signature_of(package) == "x [?, 3]; z [?, 3] → y [?, 3]; w [?, 3]"
    assert "inputs may have different numbers of rows" in notes_of(package)[0]
    named = add(tmp_path, graph.replace("?", "batch"))
    assert named.manifest.batching.independent_rows
    for said in ({"rows_at": {"x": 0, "z": 0}}, {"independent_rows": True}):
        given = add(tmp_path, graph, **said)
        assert signature_of(given) == "x [rows, 3]; z [rows, 3] → y [rows, 3]; w [rows, 3]"
        assert given.manifest.batching.independent_rows
