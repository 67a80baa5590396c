"""A review measures a model beside lighter families at its own task's shape."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
import torch

from headrace.compression.data.dataset import Splits
from headrace.compression.errors import NotApplicable
from headrace.compression.export.trace import trace
from headrace.compression.networks.architectures import ImageTask, build
from headrace.compression.networks.flops import count_onnx, multiply_adds, parameters_of
from headrace.compression.networks.network import Network
from headrace.compression.search.review import review, task_of
from headrace.contracts import ModelPackage


def test_a_review_compares_with_the_families_asked_for(digits_package: ModelPackage, splits: Splits) -> None:
    found = review(digits_package, inputs=splits.test.inputs, row_sizes=(1, 8), families=("squeezenet",), seconds=0.1)
    assert (found.image, found.classes) == ((1, 8, 8), 10)
    itself, family = found.models
    assert (itself.name, itself.parameters, family.name) == ("digits", 39_130, "squeezenet")
    assert family.multiply_adds is not None
    assert itself.multiply_adds is not None
    assert family.multiply_adds > itself.multiply_adds
    assert set(itself.seconds) == set(family.times_faster) == {1, 8}
    assert not found.problems
    heads, rows = found.table()
    assert all(len(row) == len(heads) for row in rows)
    assert rows[0][:3] == ("digits", "39.1 k", "1.02 M")
    assert msgspec.json.decode(msgspec.json.encode(found))["models"][1]["seconds"]


def test_torch_and_the_file_tell_of_the_same_arithmetic(digits_package: ModelPackage, digits_network: Network) -> None:
    in_torch = parameters_of(digits_network.module), multiply_adds(digits_network.module, digits_network.example)
    assert count_onnx(digits_package.file) == in_torch


def test_only_image_classifiers_are_reviewed(digits_package: ModelPackage) -> None:
    assert task_of(digits_package) == ImageTask(1, 8, 8, 10)
    manifest = msgspec.structs.replace(digits_package.manifest, outputs=digits_package.manifest.outputs[:1], labels=())
    with pytest.raises(NotApplicable, match="gives no scores"):
        task_of(msgspec.structs.replace(digits_package, manifest=manifest))
    flat = msgspec.structs.replace(manifest.inputs[0], shape=(64,))
    manifest = msgspec.structs.replace(digits_package.manifest, inputs=(flat,))
    with pytest.raises(NotApplicable, match="one FP32 image"):
        task_of(msgspec.structs.replace(digits_package, manifest=manifest))


def test_a_family_with_a_class_token_is_traced_with_any_number_of_rows() -> None:
    example = {"image": np.random.default_rng(0).random((8, 1, 8, 8), dtype=np.float32)}
    program = trace(Network("vit-tiny", build("vit-tiny", ImageTask(1, 8, 8, 10)), example, ("scores",)))
    with torch.no_grad():
        assert program.module()(torch.zeros(3, 1, 8, 8))[0].shape == (3, 10)
