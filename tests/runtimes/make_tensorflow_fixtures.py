"""Writes the files beside this one that TensorFlow makes, for whose tests TensorFlow need not be installed.

Run in an environment of its own:

    python -m venv /tmp/tensorflow && /tmp/tensorflow/bin/pip install tensorflow-cpu
    /tmp/tensorflow/bin/python tests/runtimes/make_tensorflow_fixtures.py

`recurrent` takes x [rows, 4], a state h [2, rows, 4] with its rows at axis 1, and a factor k [1]; it gives y [rows, 4]
and the next state h1. `two_outputs` gives zeta and alpha of the same shape, which the file holds in another order than
its signature. `counting` keeps a sum from one run to the next.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import tensorflow as tf

HERE = Path(__file__).parent


def floats(name: str, *sizes: int | None) -> tf.TensorSpec:
    return tf.TensorSpec(sizes, tf.float32, name=name)


class Recurrent(tf.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = tf.Variable(tf.reshape(tf.range(16, dtype=tf.float32), [4, 4]) / 16)

    @tf.function(input_signature=[floats("x", None, 4), floats("h", 2, None, 4), floats("k", 1)])
    def step(self, x: tf.Tensor, h: tf.Tensor, k: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": tf.matmul(tf.reduce_sum(h, 0) + x, self.w) * k, "h1": h + x[None]}

    @tf.function(input_signature=[floats("x", 4, 4), floats("h", 2, 4, 4), floats("k", 1)])
    def step_of_four(self, x: tf.Tensor, h: tf.Tensor, k: tf.Tensor) -> dict[str, tf.Tensor]:
        return self.step(x, h, k)


class Counting(tf.Module):
    """Adds what it is given to what it was given before."""

    def __init__(self) -> None:
        super().__init__()
        self.total = tf.Variable(tf.zeros([1, 4]))

    @tf.function(input_signature=[floats("x", 1, 4)])
    def add(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": self.total.assign_add(x) + 0.0}


class TwoOutputs(tf.Module):
    @tf.function(input_signature=[floats("x", None, 4)])
    def first(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"zeta": x + 1.0, "alpha": x * 2.0}

    @tf.function(input_signature=[floats("x", None, 4)])
    def second(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"other": x - 1.0}


if __name__ == "__main__":
    recurrent, two = Recurrent(), TwoOutputs()
    folder = HERE / "recurrent_saved_model"
    shutil.rmtree(folder, ignore_errors=True)
    tf.saved_model.save(recurrent, str(folder), signatures={"serving_default": recurrent.step})
    (folder / "assets").rmdir()
    convert = tf.lite.TFLiteConverter.from_saved_model
    (HERE / "recurrent.tflite").write_bytes(convert(str(folder)).convert())
    four = Path("/tmp/recurrent_of_four")
    tf.saved_model.save(recurrent, str(four), signatures={"serving_default": recurrent.step_of_four})
    (HERE / "recurrent_of_four.tflite").write_bytes(convert(str(four)).convert())
    counting = Counting()
    tf.saved_model.save(counting, "/tmp/counting", signatures={"serving_default": counting.add})
    (HERE / "counting_saved_model").mkdir(exist_ok=True)
    shutil.copy("/tmp/counting/saved_model.pb", HERE / "counting_saved_model")
    converter = convert("/tmp/counting")
    converter.experimental_enable_resource_variables = True
    (HERE / "counting.tflite").write_bytes(converter.convert())
    both = Path("/tmp/two_signatures")
    tf.saved_model.save(two, str(both), signatures={"first": two.first, "second": two.second})
    (HERE / "two_outputs.tflite").write_bytes(convert(str(both), signature_keys=["first"]).convert())
    (HERE / "two_signatures.tflite").write_bytes(convert(str(both)).convert())
