"""Models that can't be batched: their rows meet, or they have none, or not as many come out as go in."""

from __future__ import annotations

import numpy as np
from tests.anymodel.kind import Kind, floats, ids, image, length, sequences, table, words

MIXING = [
    Kind(
        "mean_over_rows",
        """
        g (float[n,4] x) => (float[n,4] y) <int64[1] ax = {0}> { m = ReduceMean(x, ax) y = Sub(x, m) }""",
        table(4),
        False,
    ),
    Kind(
        "running_total",
        """
        g (float[time,2] x) => (float[time,2] y) <int64 ax = {0}> { y = CumSum(x, ax) }""",
        table(2),
        False,
    ),
    Kind(
        "running_total_unnamed",
        """
        g (float[a,2] x) => (float[b,2] y) <int64 ax = {0}> { y = CumSum(x, ax) }""",
        table(2),
        False,
    ),
    Kind(
        "batch_norm_in_training",
        """
        g (float[n,3] x) => (float[n,3] y) <float[3] s = {1,2,3}, float[3] b = {3,2,1},
                                             float[3] m = {0,0,0}, float[3] v = {1,1,2}> {
            y, m1, v1 = BatchNormalization <training_mode = 1> (x, s, b, m, v) }""",
        table(3),
        False,
    ),
    Kind(
        "one_scale_for_all",
        """
        g (float[n,4] x) => (float[n,2] y) <uint8[4,2] w = {1,200,30,4,50,6,7,80}> {
            q, s, z = DynamicQuantizeLinear(x) p = MatMulInteger(q, w, z) f = Cast <to = 1> (p) y = Mul(f, s) }""",
        lambda rng, n: {"x": floats(rng, n, 4) * rng.choice([0.01, 1, 100]).astype(np.float32)},
        False,
    ),
    Kind(
        "unit_or_pixels",
        """
        g (float[n,4] x) => (float[n,4] y) <float one = {1}, float top = {255}> {
            m = ReduceMax <keepdims = 0> (x) big = Greater(m, one) d = Div(x, top) y = Where(big, d, x) }""",
        lambda rng, n: {"x": (rng.random((n, 4)) * rng.choice([1, 255])).astype(np.float32)},
        False,
    ),
    Kind(
        "position_in_run",
        """
        g (float[n,2] x) => (float[n,2] y) <int64 zero = {0}, int64 one = {1}, int64[1] ax = {1}> {
            s = Shape <start = 0, end = 1> (x) c = Squeeze(s) r = Range(zero, c, one) f = Cast <to = 1> (r)
            u = Unsqueeze(f, ax) y = Add(x, u) }""",
        table(2),
        False,
    ),
    Kind(
        "image_number_in_boxes",
        """
        g (float[n,2,4] x) => (float[m,5] y) <int64 zero = {0}, int64 one = {1}, int64[3] col = {-1,1,1},
                                             int64[3] wide = {1,2,1}, int64[2] flat = {-1,5}> {
            s = Shape <start = 0, end = 1> (x) c = Squeeze(s) r = Range(zero, c, one) f = Cast <to = 1> (r)
            u = Reshape(f, col) e = Expand(u, wide) b = Concat <axis = 2> (e, x) y = Reshape(b, flat) }""",
        image(2, 4),
        False,
    ),
    Kind(
        "differs_for_a_crowd",
        """
        g (float[n,2] x) => (float[n,2] y) <int64[1] most = {32}> {
            s = Shape <start = 0, end = 1> (x) many = Greater(s, most) o = Neg(x) y = Where(many, o, x) }""",
        table(2),
        False,
        rows=(8, 16, 20),
    ),
    Kind(
        "sorted_rows",
        """
        g (float[n,1] x) => (float[n,1] y) { s = Shape <start = 0, end = 1> (x) y, i = TopK <axis = 0> (x, s) }""",
        table(1),
        False,
    ),
    Kind(
        "distinct_rows",
        """
        g (float[n,1] x) => (float[m,1] y) { y = Unique <axis = 0> (x) }""",
        lambda rng, n: {"x": ids(rng, 3, n, 1).astype(np.float32)},
        False,
    ),
    Kind(
        "times_seen",
        """
        g (int64[n] x) => (int64[n] y) <int64[1] a = {0}, int64[1] b = {1}> {
            r = Unsqueeze(x, a) c = Unsqueeze(x, b) e = Equal(r, c) i = Cast <to = 7> (e)
                y = ReduceSum <keepdims = 0> (i, b) }""",
        lambda rng, n: {"x": ids(rng, 3, n)},
        False,
    ),
    Kind(
        "boxes_above_threshold",
        """
        g (float[n,2,4] boxes, float[n,2] score) => (float[count,4] found)
            <float[1,2] thr = {-5,5}, int64[1] flat = {-1}, int64[2] f4 = {-1,4}> {
            k = Greater(score, thr) keep = Reshape(k, flat) b = Reshape(boxes, f4)
                found = Compress <axis = 0> (b, keep) }""",
        lambda rng, n: {"boxes": floats(rng, n, 2, 4), "score": floats(rng, n, 2) * 5},
        False,
    ),
    Kind(
        "a_box_an_image_mostly",
        """
        g (float[n,2,4] boxes, float[n,2] score) => (float[n,4] found)
            <float zero = {0}, int64[1] flat = {-1}, int64[2] f4 = {-1,4}> {
            k = Greater(score, zero) keep = Reshape(k, flat) b = Reshape(boxes, f4)
                found = Compress <axis = 0> (b, keep) }""",
        lambda rng, n: {"boxes": floats(rng, n, 2, 4), "score": floats(rng, n, 2)},
        False,
    ),
    Kind(
        "non_max_suppression",
        """
        g (float[n,9,4] b, float[n,2,9] s) => (int64[boxes,3] sel)
            <int64[1] k = {2}, float[1] iou = {0.5}, float[1] thr = {0.2}> {
                sel = NonMaxSuppression(b, s, k, iou, thr) }""",
        lambda rng, n: {"b": floats(rng, n, 9, 4), "s": floats(rng, n, 2, 9)},
        False,
    ),
    Kind(
        "mask_of_the_longest",
        """
        g (int64[n] size) => (bool[n,longest] mask) <int64 zero = {0}, int64 one = {1}, int64[1] ax = {1}> {
            m = ReduceMax <keepdims = 0> (size) r = Range(zero, m, one) c = Unsqueeze(size, ax) mask = Less(r, c) }""",
        lambda rng, n: {"size": ids(rng, 5, n) + 1},
        None,
    ),
    Kind(
        "special_token_changes_all",
        """
        g (int64[n,len] x) => (float[n,len] y) <int64 special = {5}> {
            e = Equal(x, special) i = Cast <to = 1> (e) m = ReduceMax <keepdims = 0> (i) f = Cast <to = 1> (x)
                y = Add(f, m) }""",
        lambda rng, n: {"x": ids(rng, 7, n, length(rng))},
        False,
    ),
    Kind(
        "nodes_and_edges",
        """
        g (float[nodes,3] x, int64[2,edges] edge) => (float[nodes,3] y)
            <int64 a = {0}, int64 b = {1}, int64[1] ax = {1}> {
            f = Gather <axis = 0> (edge, a) t = Gather <axis = 0> (edge, b) m = Gather <axis = 0> (x, f)
            u = Unsqueeze(t, ax) y = ScatterND <reduction = "add"> (x, u, m) }""",
        lambda rng, n: {"x": floats(rng, n, 3), "edge": ids(rng, n, 2, length(rng))},
        False,
    ),
    Kind(
        "attention_over_the_first",
        """
        g (float[n,4] x) => (float[n,4] y) { t = Transpose <perm = [1, 0]> (x) s = MatMul(x, t) p = Softmax(s)
            y = MatMul(p, x) }""",
        table(4),
        False,
    ),
    Kind(
        "similarity_of_all",
        """
        g (float[n,4] x) => (float[n,n] y) { t = Transpose <perm = [1, 0]> (x) y = MatMul(x, t) }""",
        table(4),
        False,
    ),
    Kind(
        "square",
        """
        g (float[n,n] x) => (float[n,n] y) { y = MatMul(x, x) }""",
        lambda rng, n: {"x": floats(rng, n, n)},
        False,
    ),
    Kind(
        "total_beside_answers",
        """
        g (float[n,4] x) => (float[n,4] y, float total) { y = Relu(x) total = ReduceSum <keepdims = 0> (x) }""",
        table(4),
        False,
    ),
    Kind(
        "one_number_for_all",
        """
        g (float[n,4] x) => (float total) { total = ReduceMean <keepdims = 0> (x) }""",
        table(4),
        False,
    ),
    Kind(
        "training_flag",
        """
        g (float[n,3] x, bool training) => (float[n,3] y) <int64[1] ax = {0}> {
            m = ReduceMean(x, ax) d = Sub(x, m) y = Where(training, d, x) }""",
        lambda rng, n: {"x": floats(rng, n, 3), "training": np.array(rng.random() < 0.5)},
        False,
    ),
    Kind(
        "noise_added",
        """
        g (float[n,3] x) => (float[n,3] y) { r = RandomNormalLike(x) y = Add(x, r) }""",
        table(3),
        False,
        same_always=False,
    ),
    Kind(
        "noise_only",
        """
        g (float[n,3] x) => (float[n,3] y) { s = Shape(x) y = RandomUniformLike(x) }""",
        table(3),
        False,
        same_always=False,
    ),
    Kind(
        "only_one_row_runs",
        """
        g (float[n,4] x) => (float[4] y) <int64[1] ax = {0}> { y = Squeeze(x, ax) }""",
        table(4),
        None,
        rows=(1,),
    ),
    Kind(
        "one_row_squeezed_and_back",
        """
        g (float[n,4] x) => (float[m,4] y) <int64[1] ax = {0}> { s = Squeeze(x, ax) y = Unsqueeze(s, ax) }""",
        table(4),
        None,
        rows=(1,),
    ),
    Kind(
        "rows_repeated",
        """
        g (float[n,2] x) => (float[m,2] y) { y = Concat <axis = 0> (x, x) }""",
        table(2),
        False,
    ),
    Kind(
        "tokens_in_one_line",
        """
        g (float[n,len,2] x) => (float[tokens,2] y) <int64[2] s = {-1,2}> { y = Reshape(x, s) }""",
        sequences(2),
        None,
    ),
    Kind(
        "split_into_rows",
        """
        g (float[n,3] x) => (seq(float[1,3]) y) { y = SplitToSequence <axis = 0> (x) }""",
        table(3),
        None,
    ),
    Kind("no_rows", "g (float[4] x) => (float[4] y) { y = Relu(x) }", lambda rng, n: {"x": floats(rng, 4)}, None),
    Kind(
        "no_rows_softmax",
        "g (float[4] x) => (float[4] y) { y = Softmax(x) }",
        lambda rng, n: {"x": floats(rng, 4)},
        False,
    ),
    Kind("a_number_in_and_out", "g (float x) => (float y) { y = Exp(x) }", lambda rng, n: {"x": floats(rng)}, None),
    Kind(
        "one_dimension_of_time",
        """
        g (float[time] wave) => (float[time] y) <int64 ax = {0}> { y = CumSum(wave, ax) }""",
        lambda rng, n: {"wave": floats(rng, n + 3)},
        False,
    ),
    Kind(
        "words_of_a_line",
        """
        g (string[n] x) => (string[n,w] y, int64[n] k) { y, k = StringSplit <delimiter = " "> (x) }""",
        lambda rng, n: {"x": words(rng, n)},
        None,
    ),
    Kind(
        "fixed_batch_that_mixes",
        """
        g (float[3,4] x) => (float[3,4] y) <int64[1] ax = {0}> { m = ReduceMax(x, ax) y = Sub(x, m) }""",
        table(4),
        False,
        rows=(3,),
    ),
    Kind(
        "list_of_tensors",
        """
        g (seq(float[2]) xs) => (float[2] y) <int64 first = {0}> { a = SequenceAt(xs, first) y = Neg(a) }""",
        lambda rng, n: {"xs": floats(rng, n + 1, 2)},
        None,
    ),
    Kind(
        "ragged_bags",
        """
        g (float[total,2] values, int64[bags] bag) => (float[bags,2] y) { y = Gather <axis = 0> (values, bag) }""",
        lambda rng, n: {"values": floats(rng, n + 2, 2), "bag": ids(rng, n + 2, n)},
        None,
    ),
    Kind(
        "mixes_when_long",
        """
        g (float[n,len] x) => (float[n,len] y) <int64[1] ax = {0}, int64[1] most = {24}> {
            m = ReduceMean(x, ax) d = Sub(x, m) s = Shape <start = 1, end = 2> (x) big = Greater(s, most)
            y = Where(big, d, x) }""",
        lambda rng, n: {"x": floats(rng, n, int(rng.choice([4, 30])))},
        False,
    ),
    Kind(
        "mixes_when_short",
        """
        g (float[n,len] x) => (float[n,len] y) <int64[1] ax = {0}, int64[1] least = {4}> {
            m = ReduceMean(x, ax) d = Sub(x, m) s = Shape <start = 1, end = 2> (x) small = Less(s, least)
            y = Where(small, d, x) }""",
        lambda rng, n: {"x": floats(rng, n, int(rng.choice([2, 9])))},
        False,
    ),
    Kind(
        "crowd_of_sixty",
        """
        g (float[n,2] x) => (float[n,2] y) <int64[1] most = {60}> {
            s = Shape <start = 0, end = 1> (x) many = Greater(s, most) o = Neg(x) y = Where(many, o, x) }""",
        table(2),
        False,
        rows=(8, 16, 20),
    ),
    Kind(
        "only_if_all_are_positive",
        """
        g (float[n,2] x) => (float[n,2] y) <float zero = {0}> {
            m = ReduceMin <keepdims = 0> (x) all = Greater(m, zero) o = Neg(x) y = Where(all, o, x) }""",
        table(2),
        False,
    ),
    Kind(
        "known_word_changes_all",
        """
        g (int64[n] x) => (float[n] y) <int64 known = {101}> {
            e = Equal(x, known) i = Cast <to = 1> (e) m = ReduceMax(i) f = Cast <to = 1> (x) y = Add(f, m) }""",
        lambda rng, n: {"x": rng.choice([7, 101, 2000], n)},
        False,
    ),
    Kind(
        "bright_pixel_changes_all",
        """
        g (uint8[n,2] x) => (float[n,2] y) <float white = {254.5}> {
            f = Cast <to = 1> (x) m = ReduceMax <keepdims = 0> (f) is = Greater(m, white) o = Neg(f)
            y = Where(is, o, f) }""",
        lambda rng, n: {"x": rng.choice([3, 9, 255], (n, 2)).astype(np.uint8)},
        False,
    ),
    Kind(
        "rate_that_mixes",
        """
        g (float[n,2] x, float rate) => (float[n,2] y) <int64[1] ax = {0}, float some = {0.25}> {
            m = ReduceMean(x, ax) d = Sub(x, m) is = Equal(rate, some) y = Where(is, d, x) }""",
        lambda rng, n: {"x": floats(rng, n, 2), "rate": np.array(rng.choice([1, 0.25]), np.float32)},
        None,
    ),
]
