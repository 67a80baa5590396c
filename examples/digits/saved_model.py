"""Write the demo's digit classifier as a SavedModel, which TensorFlow Serving serves.

    pip install tensorflow-cpu onnx
    python examples/digits/saved_model.py            # into saved-models/digits/1

The weights are those of the ONNX file that is shipped; inputs and outputs are the same, too. TensorFlow is needed here
and in the server, not in headrace.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import onnx
import tensorflow as tf
from onnx import numpy_helper

MODEL = Path(__file__).parents[2] / "cli/headrace/cli/demo/data/models/digits/1/model.onnx"


class DigitNet(tf.Module):
    """Three convolutions and one linear layer, as in `network.py`: [rows, 1, 8, 8] in 0..1 → label and scores."""

    def __init__(self, model: Path) -> None:
        """model: the ONNX file."""
        super().__init__()
        weights = {tensor.name.removeprefix("network."): tensor for tensor in onnx.load(model).graph.initializer}
        arrays = {name: numpy_helper.to_array(tensor) for name, tensor in weights.items()}
        # TensorFlow's convolutions on a CPU want channels last, here and in the images.
        self.convolutions = [
            (
                tf.Variable(arrays[f"features.{number}.weight"].transpose(2, 3, 1, 0), trainable=False),
                tf.Variable(arrays[f"features.{number}.weight_bias"], trainable=False),
            )
            for number in (0, 3, 7)
        ]
        self.weight = tf.Variable(arrays["classify.2.weight"].T, trainable=False)
        self.bias = tf.Variable(arrays["classify.2.bias"], trainable=False)

    @tf.function(input_signature=[tf.TensorSpec([None, 1, 8, 8], tf.float32, name="image")])
    def serve(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
        """Return label INT64 [rows] and scores FP32 [rows, 10]."""
        first, second, third = self.convolutions
        features = convolved(convolved(tf.transpose(image, [0, 2, 3, 1]), *first), *second)
        features = convolved(tf.nn.max_pool2d(features, 2, 2, "VALID"), *third)
        flat = tf.reshape(tf.transpose(features, [0, 3, 1, 2]), [-1, 48 * 4 * 4])
        logits = flat @ self.weight + self.bias
        return {"label": tf.argmax(logits, axis=1), "scores": tf.nn.softmax(logits)}


def convolved(image: tf.Tensor, weight: tf.Variable, bias: tf.Variable) -> tf.Tensor:
    """Return a convolution of 3 by 3 pixels with its ReLU."""
    return tf.nn.relu(tf.nn.conv2d(image, weight, 1, "SAME") + bias)


def main() -> None:
    """Write the folder that `--output` names, and classify a blank image with it."""
    parser = argparse.ArgumentParser(description="Write the demo's digit classifier as a SavedModel.")
    default = Path("saved-models/digits/1")
    parser.add_argument("--output", type=Path, default=default, help="where to write (default: %(default)s)")
    output: Path = parser.parse_args().output
    network = DigitNet(MODEL)
    tf.saved_model.save(network, str(output), signatures=network.serve)
    found = tf.saved_model.load(str(output)).signatures["serving_default"](
        image=tf.constant(np.zeros((1, 1, 8, 8), np.float32))
    )
    print(f"{output}: {', '.join(f'{name} {value.shape}' for name, value in sorted(found.items()))}")


if __name__ == "__main__":
    main()
