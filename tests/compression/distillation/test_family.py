"""A student of a family takes the network's place: same outputs, learnt answers."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from tests.compression.digit_net import trained_logits
from torch import nn

from headrace.compression.data.dataset import Dataset
from headrace.compression.distillation.classifier_head import WithHead, classifier_spec
from headrace.compression.distillation.family import DistillFamily
from headrace.compression.errors import CompressionError, DataError, NotApplicable
from headrace.compression.networks.network import Network
from headrace.compression.steps import StepContext


def of(module: nn.Module, digits: Dataset, *outputs: str, labels: str = "") -> Network:
    return Network("digits", module.eval(), digits.take(slice(0, 8)).inputs, outputs, tuple(labels))


def test_a_student_learns_what_the_network_says(digits_network: Network, context: StepContext) -> None:
    student = DistillFamily("squeezenet", epochs=4, copies=0).change(digits_network, context)
    test = context.data.test
    found = student.infer(test.inputs)
    assert float((found["label"] == test.labels).mean()) > 0.5
    assert found["label"].dtype == np.int64
    np.testing.assert_allclose(found["scores"].sum(axis=1), 1, rtol=1e-5)
    record = student.provenance["steps"][-1]
    assert record["family"] == "squeezenet"
    assert record["parameters"][0] == 39_130


@pytest.mark.parametrize(
    ("head", "kind"),
    [(nn.Identity(), "logits"), (nn.Softmax(1), "probabilities"), (nn.LogSoftmax(1), "log-probabilities")],
)
def test_what_a_classifier_gives_is_recognised_and_rebuilt(digits: Dataset, head: nn.Module, kind: str) -> None:
    logits = trained_logits()
    network = of(nn.Sequential(logits, head), digits, "scores", labels="0123456789")
    classifier = classifier_spec(network)
    assert classifier.kinds == (kind,)
    again = WithHead(logits, classifier)
    image = torch.from_numpy(digits.inputs["image"][:4])
    torch.testing.assert_close(again(image)[0], network.module(image))


def test_numbers_that_may_be_anything_are_scores_if_there_are_labels(digits: Dataset) -> None:
    network = of(trained_logits(), digits, "given")
    with pytest.raises(NotApplicable, match="it is unknown whether"):
        classifier_spec(network)
    assert classifier_spec(network, digits.labels).task.classes == 10


def test_what_is_no_image_classifier_has_no_student(digits: Dataset, context: StepContext) -> None:
    flat = Network("flat", nn.Linear(4, 3), {"x": np.zeros((2, 4), np.float32)}, ("scores",))
    pixels = of(nn.Conv2d(1, 3, 3), digits, "pixels")
    for network in (flat, pixels):
        with pytest.raises(NotApplicable, match="can't take its place"):
            DistillFamily("squeezenet").change(network, context)


def test_without_rows_or_with_an_unknown_family_it_says_so(digits_network: Network, context: StepContext) -> None:
    none = context.data.train.take(slice(0, 0))
    empty = dataclasses.replace(context, data=dataclasses.replace(context.data, train=none))
    with pytest.raises(DataError, match="rows to learn from"):
        DistillFamily("squeezenet").change(digits_network, empty)
    with pytest.raises(CompressionError, match="no family 'resnet'"):
        DistillFamily("resnet")
