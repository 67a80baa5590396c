"""The models of every server of these tests, as SavedModels; `pair` has two inputs and two outputs, `scalar` no rows.

python -m tests.servers.tfserving.saved_models FOLDER
"""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import tensorflow as tf

#: Sizes of `dense`, a network of two layers whose weights are random numbers; the others run it so many times in a row.
SIZES = (256, 1024, 256)
PASSES = {"dense": 1, "heavy": 40, "deep": 400}


def dense_weights() -> list[np.ndarray]:
    """Return the weights, the same in every server. They keep the size of numbers, of which ReLU drops one half."""
    random = np.random.default_rng(0)
    first, second = (
        random.standard_normal(pair, np.float32) / np.float32(np.sqrt(pair[0])) for pair in pairwise(SIZES)
    )
    return [first * np.float32(np.sqrt(2)), second]


def affine(kind: tf.DType, size: int) -> tf.Module:
    """Return y = 2x + 1 of rows of `size` elements."""
    module = tf.Module()

    @tf.function(input_signature=[tf.TensorSpec([None, size], kind, name="x")])
    def serve(x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": x * tf.constant(2, kind) + tf.constant(1, kind)}

    module.serve = serve
    return module


def text() -> tf.Module:
    """Return strings in capitals."""
    module = tf.Module()

    @tf.function(input_signature=[tf.TensorSpec([None, 1], tf.string, name="x")])
    def serve(x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": tf.strings.upper(x)}

    module.serve = serve
    return module


def pair() -> tf.Module:
    """Return the sum FP32 [rows, 2] of `a` FP32 [rows, 2] and `b` INT64 [rows], and b doubled."""
    module = tf.Module()

    @tf.function(
        input_signature=[tf.TensorSpec([None, 2], tf.float32, name="a"), tf.TensorSpec([None], tf.int64, name="b")]
    )
    def serve(a: tf.Tensor, b: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"sum": a + tf.cast(b, tf.float32)[:, None], "twice": b * 2}

    module.serve = serve
    return module


def scalar() -> tf.Module:
    """Return a number for a number, without rows."""
    module = tf.Module()

    @tf.function(input_signature=[tf.TensorSpec([], tf.float32, name="x")])
    def serve(x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": x + 1}

    module.serve = serve
    return module


def network(passes: int) -> tf.Module:
    """Return the network of two layers, run so many times in a row."""
    module = tf.Module()
    module.weights = [tf.Variable(weight, trainable=False) for weight in dense_weights()]

    @tf.function(input_signature=[tf.TensorSpec([None, SIZES[0]], tf.float32, name="x")])
    def serve(x: tf.Tensor) -> dict[str, tf.Tensor]:
        first, second = module.weights
        for _ in range(passes):
            x = tf.nn.relu(x @ first) @ second
        return {"y": x}

    module.serve = serve
    return module


def main(folder: Path) -> None:
    """Write every model below the folder, `affine` in two versions."""
    models = {
        "affine/1": affine(tf.float32, 4),
        "affine/2": affine(tf.float32, 4),
        "limited/1": affine(tf.float32, 4),
        "slow/1": affine(tf.float32, 4),
        "whole/1": affine(tf.int64, 3),
        "half/1": affine(tf.float16, 4),
        "brain/1": affine(tf.bfloat16, 4),
        "text/1": text(),
        "dense/1": network(PASSES["dense"]),
        "heavy/1": network(PASSES["heavy"]),
        "deep/1": network(PASSES["deep"]),
        "pair/1": pair(),
        "scalar/1": scalar(),
    }
    for path, module in models.items():
        tf.saved_model.save(module, str(folder / path), signatures=module.serve)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
