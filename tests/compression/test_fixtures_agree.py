"""What the other tests stand on: the network in torch is the model of the package."""

from __future__ import annotations

import numpy as np
import torch

from headrace.compression.data.dataset import Splits
from headrace.compression.networks.network import Network
from headrace.contracts import ModelPackage
from headrace.runtimes.base import find_runtime


def test_the_network_and_the_package_are_the_same_model(
    digits_network: Network, digits_package: ModelPackage, splits: Splits
) -> None:
    model = find_runtime("onnxruntime", "cpu", 1).load(digits_package)
    found = model.infer(splits.test.inputs)
    model.close()
    with torch.inference_mode():
        label, scores = digits_network.module(torch.from_numpy(splits.test.inputs["image"]))
    np.testing.assert_allclose(found["scores"], scores.numpy(), atol=1e-5)
    np.testing.assert_array_equal(found["label"], label.numpy())
