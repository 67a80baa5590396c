"""Models whose rows are independent, with values, lengths and names that need care."""

from __future__ import annotations

import ml_dtypes
import numpy as np
from numpy.random import Generator
from tests.anymodel.kind import Kind, floats, ids, length, sequences, table, words


def pairs(rng: Generator, n: int) -> dict[str, np.ndarray]:
    size = length(rng)
    return {"a": floats(rng, n, size), "b": floats(rng, n, size)}


def masked(rng: Generator, n: int) -> dict[str, np.ndarray]:
    size = length(rng)
    return {"ids": ids(rng, 8, n, size), "mask": np.ones((n, size), np.int64)}


def continued(rng: Generator, n: int) -> dict[str, np.ndarray]:
    past, size = int(rng.integers(0, 3)), length(rng)
    mask = np.ones((n, past + size), np.int64)
    return {"ids": ids(rng, 8, n, size), "mask": mask, "kv": floats(rng, n, 1, past, 2)}


VALUES = [
    Kind(
        "lengths_that_agree",
        "g (float[n,len] a, float[n,len] b) => (float[n,len] y) { y = Add(a, b) }",
        pairs,
        True,
    ),
    Kind(
        "masked_mean",
        """
        g (int64[batch,len] ids, int64[batch,len] mask) => (float[batch,2] y)
            <float[8,2] w = {1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16}, int64[1] a1 = {1}, int64[1] a2 = {2}> {
            e = Gather(w, ids) m = Cast <to = 1> (mask) u = Unsqueeze(m, a2) p = Mul(e, u)
            s = ReduceSum <keepdims = 0> (p, a1) c = ReduceSum(m, a1) y = Div(s, c) }""",
        masked,
        True,
    ),
    Kind(
        "decoder_with_past",
        """
        g (int64[batch,seq] ids, int64[batch,total] mask, float[batch,1,past,2] kv)
            => (float[batch,seq,2] logits, float[batch,1,total,2] present)
            <float[8,2] w = {1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16}, int64[1] a1 = {1}, int64[2] a12 = {1,2},
             int64[2] am = {1,3}> {
            e = Gather(w, ids) k = Unsqueeze(e, a1) present = Concat <axis = 2> (kv, k) m = Cast <to = 1> (mask)
            mm = Unsqueeze(m, am) p = Mul(present, mm) s = ReduceSum <keepdims = 0> (p, a12) u = Unsqueeze(s, a1)
            logits = Add(e, u) }""",
        continued,
        True,
    ),
    Kind(
        "decoder_without_past_yet",
        """
        g (float[batch,seq,2] x, float[batch,past,2] kv) => (float[batch,both,2] present) {
            present = Concat <axis = 1> (kv, x) }""",
        lambda rng, n: {"x": floats(rng, n, length(rng), 2), "kv": floats(rng, n, 0, 2)},
        True,
    ),
    Kind(
        "nan_and_infinity",
        "g (float[n,2] x) => (float[n,2] y) { y = Log(x) }",
        lambda rng, n: {"x": rng.choice([-1, 0, 1, np.inf, np.nan], (n, 2)).astype(np.float32)},
        True,
    ),
    Kind(
        "half",
        "g (float16[n,3] x) => (float16[n,3] y) { y = Add(x, x) }",
        lambda rng, n: {"x": floats(rng, n, 3).astype(np.float16)},
        True,
    ),
    Kind(
        "double",
        "g (double[n,3] x) => (double[n,3] y) { y = Tanh(x) }",
        lambda rng, n: {"x": rng.normal(size=(n, 3))},
        True,
    ),
    Kind(
        "pixels",
        "g (uint8[n,2,2,3] x) => (float[n,3,2,2] y) { f = Cast <to = 1> (x) y = Transpose <perm = [0,3,1,2]> (f) }",
        lambda rng, n: {"x": ids(rng, 256, n, 2, 2, 3).astype(np.uint8)},
        True,
    ),
    Kind(
        "truth_values",
        "g (bool[n,3] x) => (bool[n,3] y) { y = Not(x) }",
        lambda rng, n: {"x": rng.random((n, 3)) < 0.5},
        True,
    ),
    Kind("bfloat_out", "g (float[n,3] x) => (bfloat16[n,3] y) { y = Cast <to = 16> (x) }", table(3), True),
    Kind(
        "bfloat_in_and_out",
        """
        g (bfloat16[n,3] x) => (bfloat16[n,3] y) { f = Cast <to = 1> (x) a = Neg(f) y = Cast <to = 16> (a) }""",
        lambda rng, n: {"x": floats(rng, n, 3).astype(ml_dtypes.bfloat16)},
        True,
    ),
    Kind(
        "words_to_numbers",
        """
        g (string[n,2] x) => (int64[n,2] y) {
            y = ai.onnx.ml.LabelEncoder <keys_strings = ["g", "b c"], values_int64s = [4, 7],
                default_int64 = -1> (x) }""",
        lambda rng, n: {"x": words(rng, n, 2)},
        True,
    ),
    Kind(
        "words_joined",
        "g (string[n] x, string[n] z) => (string[n] y) { y = StringConcat(x, z) }",
        lambda rng, n: {"x": words(rng, n), "z": words(rng, n)},
        True,
    ),
    Kind(
        "column_of_an_older_pipeline",
        """
        g (float[N,1] age, string[N,1] town) => (float[N,2] y) {
            t = ai.onnx.ml.LabelEncoder <keys_strings = ["g"], values_floats = [4.0], default_float = -1.0> (town)
            y = Concat <axis = 1> (age, t) }""",
        lambda rng, n: {"age": floats(rng, n, 1), "town": words(rng, n, 1)},
        True,
    ),
    Kind(
        "classes_as_maps",
        """
        g (float[N,2] x) => (int64[N] label, seq(map(int64, float)) probability) {
            label, p = ai.onnx.ml.LinearClassifier <coefficients = [1.0, 2.0, -1.0, 1.0, 0.5, 0.25],
                intercepts = [0.0, 1.0, 0.5],
                classlabels_ints = [3, 5, 9], post_transform = "SOFTMAX"> (x)
            probability = ai.onnx.ml.ZipMap <classlabels_int64s = [3, 5, 9]> (p) }""",
        table(2),
        None,
    ),
    Kind(
        "named_classes_as_maps",
        """
        g (float[N,2] x) => (string[N] label, seq(map(string, float)) probability) {
            label, p = ai.onnx.ml.LinearClassifier <coefficients = [1.0, 2.0, -1.0, 1.0], intercepts = [0.0, 1.0],
                classlabels_strings = ["cat", "dog"], post_transform = "SOFTMAX"> (x)
            probability = ai.onnx.ml.ZipMap <classlabels_strings = ["cat", "dog"]> (p) }""",
        table(2),
        None,
    ),
    Kind(
        "label_and_scores",
        """
        g (float[n,4] x) => (int64[n] label, float[n,4] scores) { label = ArgMax <axis = 1, keepdims = 0> (x)
            scores = Softmax(x) }""",
        table(4),
        True,
    ),
    Kind(
        "version_beside_answers",
        """
        g (float[n,4] x) => (float[n,4] y, float version) <float v = {3}> { y = Relu(x) version = Identity(v) }""",
        table(4),
        None,
    ),
    Kind(
        "class_weights_beside_answers",
        """
        g (float[n,2] x) => (float[n,2] y, float[2] w) <float[2] v = {3,4}> { y = Mul(x, v) w = Identity(v) }""",
        table(2),
        None,
    ),
    Kind(
        "long_filter",
        """
        g (float[n,1,t] x) => (float[n,1,t2] y) <float[1,1,300] w = {"""
        + ",".join(["1"] * 300)
        + """}> { y = Conv(x, w) }""",
        lambda rng, n: {"x": floats(rng, n, 1, int(rng.integers(300, 320)))},
        True,
        options={"sample": lambda: {"x": np.ones((2, 1, 310), np.float32)}},
    ),
    Kind(
        "halved_length",
        "g (float[n,1,t] x) => (float[n,1,u] y) { y = AveragePool <kernel_shape = [2], strides = [2]> (x) }",
        lambda rng, n: {"x": floats(rng, n, 1, int(rng.integers(2, 9)))},
        True,
    ),
    Kind(
        "even_lengths_only",
        """
        g (float[n,t] x) => (float[n,2,u] y) <int64[3] s = {0,2,-1}> { y = Reshape(x, s) }""",
        lambda rng, n: {"x": floats(rng, n, 2 * length(rng))},
        True,
    ),
    Kind(
        "odd_names",
        """
        g (float[n,2] "serving_default_x:0") => (float[n,2] "StatefulPartitionedCall/y.1:0") {
            "StatefulPartitionedCall/y.1:0" = Relu("serving_default_x:0") }""",
        lambda rng, n: {"serving_default_x:0": floats(rng, n, 2)},
        True,
    ),
    Kind(
        "unused_input",
        "g (float[n,2] x, float[n,1] ignored) => (float[n,2] y) { y = Relu(x) }",
        lambda rng, n: {"x": floats(rng, n, 2), "ignored": floats(rng, n, 1)},
        True,
    ),
    Kind(
        "attention_within_rows",
        """
        g (float[n,len,2] x) => (float[n,len,2] y) {
            t = Transpose <perm = [0,2,1]> (x) s = MatMul(x, t) p = Softmax(s) y = MatMul(p, x) }""",
        sequences(2),
        True,
    ),
    Kind(
        "embedding",
        """
        g (int64[n,len] x) => (float[n,len,2] y) <float[4,2] w = {1,2,3,4,5,6,7,8}> { y = Gather(w, x) }""",
        lambda rng, n: {"x": ids(rng, 4, n, length(rng))},
        True,
    ),
    Kind(
        "small_ids_only",
        """
        g (int32[n] x) => (float[n,1] y) <float[2,1] w = {1,2}> { y = Gather(w, x) }""",
        lambda rng, n: {"x": ids(rng, 2, n).astype(np.int32)},
        True,
    ),
    Kind(
        "maybe_absent",
        """
        g (float[n,2] x, optional(float[n,2]) bias) => (float[n,2] y) {
            has = OptionalHasElement(bias)
            y = If (has) <then_branch = a () => (float[n,2] p) { v = OptionalGetElement(bias) p = Add(x, v) },
                          else_branch = b () => (float[n,2] q) { q = Identity(x) }> }""",
        lambda rng, n: {"x": floats(rng, n, 2), "bias": floats(rng, n, 2)},
        None,
    ),
    Kind(
        "ids_as_floats",
        """
        g (float[n,2] x) => (float[n,2,1] y) <float[3,1] w = {5,6,7}> { i = Cast <to = 7> (x) y = Gather(w, i) }""",
        lambda rng, n: {"x": ids(rng, 3, n, 2).astype(np.float32)},
        None,
    ),
    Kind(
        "lengths_of_series",
        """
        g (float[t,n,1] x, int32[n] size) => (float[t,1,n,1] y)
            <float[1,3,1] w = {1,-1,0.5}, float[1,3,1] r = {0.4,-0.2,1}, float[1,6] b = {0,0,0,0,0,0}> {
            y, h = GRU <hidden_size = 1> (x, w, r, b, size) }""",
        lambda rng, n: {"x": floats(rng, 4, n, 1), "size": (ids(rng, 4, n) + 1).astype(np.int32)},
        None,
    ),
    Kind(
        "place_within_row",
        """
        g (float[n,len] x, int64[n,1] at) => (float[n,1] y) { y = GatherElements <axis = 1> (x, at) }""",
        lambda rng, n: {"x": floats(rng, n, 3), "at": ids(rng, 3, n, 1)},
        True,
    ),
    Kind(
        "given_back_as_it_is",
        "g (float[n,2] x, float[n,1] id) => (float[n,2] y, float[n,1] id2) { y = Relu(x) id2 = Identity(id) }",
        lambda rng, n: {"x": floats(rng, n, 2), "id": floats(rng, n, 1)},
        True,
    ),
    Kind(
        "microsofts_own_operators",
        """
        g (float[n,2] x) => (float[n,2] y) <float[2,2] w = {1,2,3,4}> {
            m = com.microsoft.FusedMatMul <alpha = 0.5> (x, w) y = com.microsoft.QuickGelu(m) }""",
        table(2),
        True,
    ),
    Kind(
        "empty_lengths",
        "g (float[n,len] x, float[n,2] z) => (float[n,len] y) { y = Neg(x) }",
        lambda rng, n: {"x": floats(rng, n, int(rng.integers(0, 3))), "z": floats(rng, n, 2)},
        True,
    ),
]
