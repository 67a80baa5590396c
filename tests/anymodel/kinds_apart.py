"""Models whose rows are independent, wherever they are and whatever is beside them."""

from __future__ import annotations

import numpy as np
from tests.anymodel.kind import Kind, floats, ids, image, length, sequences, table

ROWS = [
    Kind("rank_one", "g (float[n] x) => (float[n] y) { y = Exp(x) }", lambda rng, n: {"x": floats(rng, n)}, True),
    Kind("passed_through", "g (float[n,2] x) => (float[n,2] y) { y = Identity(x) }", table(2), True),
    Kind(
        "rows_last",
        """
        g (float[4,n] x) => (float[2,n] y) <float[2,4] w = {1,2,3,4,5,6,7,8}> { y = MatMul(w, x) }""",
        lambda rng, n: {"x": floats(rng, 4, n)},
        True,
    ),
    Kind(
        "rows_move",
        """
        g (float[batch,t,4] x) => (float[t,batch,4] y) { y = Transpose <perm = [1, 0, 2]> (x) }""",
        sequences(4),
        True,
    ),
    Kind(
        "rows_move_unnamed",
        """
        g (float[batch,t,4] x) => (float[a,b,4] y) { y = Transpose <perm = [1, 0, 2]> (x) }""",
        sequences(4),
        True,
    ),
    Kind(
        "state_in_and_out",
        """
        g (float[batch,8] x, float[2,batch,8] h) => (float[batch,8] y, float[2,batch,8] h1) <int64[1] ax = {0}> {
            u = Unsqueeze(x, ax) h1 = Add(h, u) y = ReduceSum <keepdims = 0> (h1, ax) }""",
        lambda rng, n: {"x": floats(rng, n, 8), "h": floats(rng, 2, n, 8)},
        True,
    ),
    Kind(
        "gru_with_state",
        """
        g (float[t,batch,2] x, float[1,batch,1] h) => (float[t,1,batch,1] y, float[1,batch,1] h1)
            <float[1,3,2] w = {1,-1,0.5,2,0.1,0.3}, float[1,3,1] r = {0.4,-0.2,1}> {
            y, h1 = GRU <hidden_size = 1> (x, w, r, , , h) }""",
        lambda rng, n: {"x": floats(rng, length(rng), n, 2), "h": floats(rng, 1, n, 1)},
        True,
    ),
    Kind(
        "lstm_with_states",
        """
        g (float[t,b,1] x, float[1,b,1] h, float[1,b,1] c) => (float[t,1,b,1] y, float[1,b,1] hn, float[1,b,1] cn)
            <float[1,4,1] w = {1,-1,0.5,2}, float[1,4,1] r = {0.4,-0.2,1,0.3}> {
            y, hn, cn = LSTM <hidden_size = 1> (x, w, r, , , h, c) }""",
        lambda rng, n: {"x": floats(rng, length(rng), n, 1), "h": floats(rng, 1, n, 1), "c": floats(rng, 1, n, 1)},
        True,
    ),
    Kind(
        "vad_like",
        """
        g (float[n,len] input, float[2,n,3] state, int64 sr) => (float[n,1] output, float[d,n,3] stateN)
            <int64 wide = {16000}, int64[1] ax = {1}, float[1,3] w = {1,2,3}, int64[1] a0 = {0}> {
            is = Equal(sr, wide)
            e = If (is) <then_branch = a () => (float[n,len] p) { p = Neg(input) },
                         else_branch = b () => (float[n,len] q) { q = Abs(input) }>
            output = ReduceMean(e, ax) m = MatMul(output, w) u = Unsqueeze(m, a0) stateN = Add(state, u) }""",
        lambda rng, n: {
            "input": floats(rng, n, length(rng, 2, 6)),
            "state": floats(rng, 2, n, 3),
            "sr": np.array(rng.choice([8000, 16000]), np.int64),
        },
        True,
    ),
    Kind(
        "scores_of_columns",
        """
        g (float[batch,1,2,w] x) => (float[t,batch,2] y) <int64[1] ax = {1}> {
            s = Squeeze(x, ax) p = Transpose <perm = [2, 0, 1]> (s) y = Softmax(p) }""",
        lambda rng, n: {"x": floats(rng, n, 1, 2, length(rng))},
        True,
    ),
]

PARAMETERS = [
    Kind(
        "scalar_parameter",
        "g (float[n,3] x, float k) => (float[n,3] y) { y = Mul(x, k) }",
        lambda rng, n: {"x": floats(rng, n, 3), "k": np.array(rng.choice([1, 2]), np.float32)},
        True,
    ),
    Kind(
        "parameter_of_one",
        "g (float[n,3] x, float[1] k) => (float[n,3] y) { y = Mul(x, k) }",
        lambda rng, n: {"x": floats(rng, n, 3), "k": rng.choice([1, 2], 1).astype(np.float32)},
        True,
    ),
    Kind(
        "parameter_of_features",
        "g (float[n,3] x, float[3] k) => (float[n,3] y) { y = Mul(x, k) }",
        lambda rng, n: {"x": floats(rng, n, 3), "k": rng.choice([1, 2], 3).astype(np.float32)},
        True,
    ),
    Kind(
        "default_overridden",
        "g (float[n,3] x, float[1] k = {2}) => (float[n,3] y) { y = Mul(x, k) }",
        lambda rng, n: {"x": floats(rng, n, 3)} | ({"k": np.array([5], np.float32)} if rng.random() < 0.5 else {}),
        True,
    ),
    Kind(
        "weights_among_inputs",
        """
        g (float[n,2] x, float[2,3] w = {1,2,3,4,5,6}, float[3] b = {1,2,3}) => (float[n,3] y) { y = Gemm(x, w, b) }""",
        table(2),
        True,
        ir_version=3,
    ),
    Kind(
        "k_best",
        "g (float[n,6] x, int64[1] k) => (float[n,m] y, int64[n,m] i) { y, i = TopK(x, k) }",
        lambda rng, n: {"x": floats(rng, n, 6), "k": ids(rng, 3, 1) + 1},
        True,
    ),
    Kind(
        "repeated_times",
        """
        g (float[n,2] x, int64 times) => (float[n,2] y) <bool yes = {1}> {
            y = Loop (times, yes, x) <body = b (int64 i, bool c, float[n,2] a) => (bool d, float[n,2] o)
                { d = Identity(c) o = Add(a, a) }> }""",
        lambda rng, n: {"x": floats(rng, n, 2), "times": np.array(rng.integers(1, 4))},
        True,
    ),
    Kind(
        "new_shape_as_parameter",
        "g (float[n,6] x, int64[2] shape) => (float[a,b] y) { y = Reshape(x, shape) }",
        lambda rng, n: {"x": floats(rng, n, 6), "shape": np.array([n, 6])},
        None,
    ),
    Kind(
        "new_shape_fixed",
        "g (float[n,6] x, int64[3] shape) => (float[n,a,b] y) { y = Reshape(x, shape) }",
        lambda rng, n: {"x": floats(rng, n, 6)},
        True,
        options={"constants": {"shape": [-1, 2, 3]}},
    ),
    Kind(
        "cut_by_parameters",
        """
        g (float[n,6] x, int64[1] start, int64[1] end) => (float[n,m] y) <int64[1] ax = {1}> {
            y = Slice(x, start, end, ax) }""",
        lambda rng, n: {"x": floats(rng, n, 6), "start": ids(rng, 2, 1), "end": ids(rng, 3, 1) + 3},
        True,
    ),
    Kind(
        "resized_by_parameter",
        """
        g (float[n,1,4,4] x, float[4] scales) => (float[n,1,h,w] y) {
            y = Resize <mode = "nearest"> (x, , scales) }""",
        lambda rng, n: {"x": floats(rng, n, 1, 4, 4), "scales": np.array([1, 1, 2, 2], np.float32)},
        None,
    ),
    Kind(
        "padded_by_parameter",
        "g (float[n,3] x, int64[4] pads) => (float[n,m] y) { y = Pad(x, pads) }",
        lambda rng, n: {"x": floats(rng, n, 3), "pads": np.array([0, 1, 0, int(rng.integers(0, 3))])},
        None,
    ),
    Kind(
        "mode_that_mixes",
        """
        g (float[n,3] x, int64 mode) => (float[n,3] y) <int64[1] ax = {0}, int64 two = {2}> {
            m = ReduceMean(x, ax) d = Sub(x, m) is = Equal(mode, two) y = Where(is, d, x) }""",
        lambda rng, n: {"x": floats(rng, n, 3), "mode": np.array(rng.integers(0, 4))},
        None,
    ),
]

FIXED = [
    Kind("fixed_four", "g (float[4,4] x) => (float[4,4] y) { y = Relu(x) }", table(4), True, rows=(4,)),
    Kind("fixed_four_softmax", "g (float[4,3] x) => (float[4,3] y) { y = Softmax(x) }", table(3), True, rows=(4,)),
    Kind(
        "fixed_four_with_state",
        """
        g (float[4,3] x, float[2,4,3] h) => (float[4,3] y, float[2,4,3] h1) <int64[1] ax = {0}> {
            u = Unsqueeze(x, ax) h1 = Add(h, u) y = ReduceSum <keepdims = 0> (h1, ax) }""",
        lambda rng, n: {"x": floats(rng, n, 3), "h": floats(rng, 2, n, 3)},
        None,
        rows=(4,),
    ),
    Kind(
        "fixed_one_in_the_middle",
        """
        g (float[t,1,2] x) => (float[t,1,1,1] y)
            <float[1,3,2] w = {1,-1,0.5,2,0.1,0.3}, float[1,3,1] r = {0.4,-0.2,1}> {
            y, h = GRU <hidden_size = 1> (x, w, r) }""",
        lambda rng, n: {"x": floats(rng, length(rng), 1, 2)},
        None,
        rows=(1,),
    ),
    Kind("fixed_one", "g (float[1,4] x) => (float[1,4] y) { y = Relu(x) }", table(4), None, rows=(1,)),
    Kind(
        "fixed_one_image",
        """
        g (float[1,1,4,4] x) => (float[1,2] y) <float[2,16] w = {"""
        + ",".join(map(str, range(32)))
        + """}> {
            f = Flatten(x) y = Gemm <transB = 1> (f, w) }""",
        image(1, 4, 4),
        None,
        rows=(1,),
    ),
    Kind(
        "fixed_one_with_length",
        "g (float[1,len] x) => (float[1,len] y) { y = Neg(x) }",
        lambda rng, n: {"x": floats(rng, 1, length(rng))},
        None,
        rows=(1,),
    ),
]
