"""Models whose outputs have sizes that the values of a request decide, not its shapes."""

from __future__ import annotations

import numpy as np
from tests.anymodel.kind import Kind, floats, ids, words

SIZES = [
    Kind(
        "window_of_some_size",
        "g (int64 size) => (float[size_out] y) { y = HannWindow(size) }",
        lambda rng, n: {"size": np.array(rng.integers(4, 20))},
        None,
    ),
    Kind(
        "window_said_to_have_ten",
        "g (int32 size) => (float[10] y) { y = HannWindow(size) }",
        lambda rng, n: {"size": np.array(10, np.int32)},
        None,
    ),
    Kind(
        "image_said_to_have_eight",
        "g (float[1,1,4,4] x, int64[4] sizes) => (float[1,1,8,8] y) { y = Resize(x, , , sizes) }",
        lambda rng, n: {"x": floats(rng, 1, 1, 4, 4), "sizes": np.array([1, 1, 8, 8])},
        None,
    ),
    Kind(
        "tensor_of_some_shape",
        "g (int64[2] shape) => (float[a,b] y) { y = ConstantOfShape(shape) }",
        lambda rng, n: {"shape": ids(rng, 5, 2) + 1},
        None,
    ),
    Kind(
        "numbers_up_to",
        "g (int64 last) => (int64[count] y) <int64 zero = {0}, int64 one = {1}> { y = Range(zero, last, one) }",
        lambda rng, n: {"last": np.array(rng.integers(1, 30))},
        None,
    ),
    Kind(
        "one_hot_of_some_depth",
        "g (int64[n] x, int64 depth) => (float[n,d] y) <float[2] values = {0,1}> { y = OneHot(x, depth, values) }",
        lambda rng, n: {"x": ids(rng, 4, n), "depth": np.array(rng.choice([4, 9]))},
        True,
    ),
    Kind(
        "boxes_with_parameters",
        """
        g (float[1,6,4] b, float[1,1,6] s, int64[1] k, float[1] iou, float[1] least) => (int64[count,3] sel) {
            sel = NonMaxSuppression(b, s, k, iou, least) }""",
        lambda rng, n: {
            "b": floats(rng, 1, 6, 4),
            "s": floats(rng, 1, 1, 6),
            "k": ids(rng, 4, 1) + 1,
            "iou": np.array([0.5], np.float32),
            "least": np.array([0.1], np.float32),
        },
        None,
    ),
    Kind(
        "tiled_by_parameter",
        "g (float[n,2] x, int64[2] times) => (float[a,b] y) { y = Tile(x, times) }",
        lambda rng, n: {"x": floats(rng, n, 2), "times": ids(rng, 3, 2) + 1},
        None,
    ),
    Kind(
        "expanded_by_parameter",
        "g (float[3,1] x, int64[2] shape) => (float[a,b] y) { y = Expand(x, shape) }",
        lambda rng, n: {"x": floats(rng, 3, 1), "shape": np.array([3, rng.integers(1, 6)])},
        None,
    ),
    Kind(
        "squeezed_by_parameter",
        "g (float[1,3,1,2] x, int64[1] axes) => (float[a,b,c] y) { y = Squeeze(x, axes) }",
        lambda rng, n: {"x": floats(rng, 1, 3, 1, 2), "axes": rng.choice([0, 2], 1)},
        None,
    ),
    Kind(
        "summed_over_chosen_axes",
        "g (float[n,2,3] x, int64[1] axes) => (float[a,b] y) { y = ReduceSum <keepdims = 0> (x, axes) }",
        lambda rng, n: {"x": floats(rng, n, 2, 3), "axes": rng.choice([1, 2], 1)},
        None,
    ),
    Kind(
        "image_of_chosen_size",
        "g (float[1,1,4,4] x, int64[4] sizes) => (float[a,b,c,d] y) { y = Resize(x, , , sizes) }",
        lambda rng, n: {"x": floats(rng, 1, 1, 4, 4), "sizes": np.array([1, 1, *rng.integers(2, 9, 2)])},
        None,
    ),
    Kind(
        "frames_of_a_signal",
        "g (float[1,64,1] x, int64 step, float[8] window) => (float[a,b,c,2] y) { y = STFT(x, step, window) }",
        lambda rng, n: {
            "x": floats(rng, 1, 64, 1),
            "step": np.array(rng.choice([4, 8])),
            "window": np.ones(8, np.float32),
        },
        None,
    ),
    Kind(
        "kept_by_flags",
        "g (float[5,2] x, bool[5] keep) => (float[count,2] y) { y = Compress <axis = 0> (x, keep) }",
        lambda rng, n: {"x": floats(rng, 5, 2), "keep": rng.random(5) < 0.5},
        None,
    ),
    Kind(
        "without_stop_words",
        """
        g (string[n] x) => (string[m] y) { y = StringNormalizer <stopwords = ["g"], is_case_sensitive = 1> (x) }""",
        lambda rng, n: {"x": words(rng, n + 1)},
        None,
    ),
    Kind(
        "distinct_values",
        "g (float[6] x) => (float[count] y) { y = Unique(x) }",
        lambda rng, n: {"x": ids(rng, 4, 6).astype(np.float32)},
        None,
    ),
]
