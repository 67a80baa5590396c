"""Distillation: a student does better with a teacher, whoever runs it, and takes its place in the recipe."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks.compression_parts.distillation import Student
from torch import Tensor, nn

from headrace.compression.data.dataset import Dataset, Splits
from headrace.compression.distillation.distill import Distill, distill
from headrace.compression.errors import CompressionError, DataError, NotApplicable
from headrace.compression.export.onnx import OnnxExport
from headrace.compression.networks.network import Network
from headrace.compression.steps import StepContext
from headrace.compression.training.options import Training
from headrace.compression.training.train import train
from headrace.contracts import ModelPackage

STUDENT = """
from torch import nn

class Student(nn.Module):
    def __init__(self, classes=10):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(128, classes)
        )

    def forward(self, image):
        logits = self.layers(image)
        return logits.argmax(1), logits.softmax(1)

def of_nine():
    return Student(9)
"""


@pytest.fixture
def student(splits: Splits) -> Network:
    torch.manual_seed(0)
    return Network("student", Student().eval(), splits.train.take(slice(0, 4)).inputs, ("label", "scores"))


@pytest.fixture
def few_labels(context: StepContext, splits: Splits) -> StepContext:
    """A hundred labels; the other train rows have none."""
    assert splits.train.labels is not None
    labels = splits.train.labels.copy()
    labels[np.random.default_rng(0).permutation(len(labels))[100:]] = -1
    rows = Dataset(splits.train.inputs, labels)
    return dataclasses.replace(context, data=dataclasses.replace(splits, train=rows))


def accuracy(network: Network, rows: Dataset) -> float:
    return float((network.infer(rows.inputs)["label"] == rows.labels).mean())


def test_a_hundred_labels_and_a_teacher_beat_a_hundred_labels(
    student: Network, digits_network: Network, few_labels: StepContext, splits: Splits, tmp_path: Path
) -> None:
    training = Training(epochs=15, learning_rate=5e-3, batch_rows=32)
    alone = train(student, few_labels, training, checkpoints=tmp_path)
    taught = distill(student, digits_network, few_labels, training)
    assert (alone.labelled_rows, alone.unlabelled_rows) == (100, 0)
    assert (taught.labelled_rows, taught.unlabelled_rows) == (100, len(splits.train) - 100)
    assert accuracy(taught.network, splits.test) > accuracy(alone.network, splits.test) + 0.05


def test_a_package_teaches_what_the_network_in_it_would_and_is_asked_once(
    student: Network, digits_network: Network, digits_package: ModelPackage, few_labels: StepContext, tmp_path: Path
) -> None:
    once = Training(epochs=1, batch_rows=32)
    asked: list[str] = []
    listening = dataclasses.replace(few_labels, progress=lambda done, of, what: asked.append(what))
    by_network = distill(student, digits_network, few_labels, once, checkpoints=tmp_path / "network")
    by_package = distill(student, digits_package, listening, once, checkpoints=tmp_path / "package")
    assert by_package.best.train_loss == pytest.approx(by_network.best.train_loss, rel=1e-3)
    rows = len(few_labels.data.train)
    assert sum("teacher" in what for what in asked) == -(-rows // 64) + 1  # the rows, and a look at the example
    asked.clear()
    other = dataclasses.replace(once, learning_rate=1e-4)
    distill(student, digits_package, listening, other, checkpoints=tmp_path / "package")
    assert sum("teacher" in what for what in asked) == 1


def test_rows_that_only_the_teacher_labels_may_lie_elsewhere(
    student: Network, digits_network: Network, context: StepContext, splits: Splits
) -> None:
    labelled = splits.train.take(slice(0, 100))
    apart = dataclasses.replace(context, data=dataclasses.replace(splits, train=labelled))
    rest = Dataset(splits.train.take(slice(100, None)).inputs)
    taught = distill(student, digits_network, apart, Training(epochs=1), unlabelled=rest)
    assert (taught.labelled_rows, taught.unlabelled_rows) == (100, len(rest))
    with pytest.raises(DataError, match="the unlabelled rows lack image"):
        distill(student, digits_network, apart, Training(epochs=1), unlabelled=Dataset({"x": rest.inputs["image"]}))


def test_the_step_gives_a_student_in_its_teachers_place(
    digits_network: Network, context: StepContext, splits: Splits, tmp_path: Path
) -> None:
    (tmp_path / "students.py").write_text(STUDENT)
    # No label at all: the teacher's answers alone.
    bare = dataclasses.replace(context, data=dataclasses.replace(splits, train=Dataset(splits.train.inputs)))
    step = Distill(student=f"{tmp_path}/students.py:Student", epochs=8, learning_rate=5e-3, batch_rows=32)
    found = step.change(digits_network, bare)
    assert (found.name, found.labels, found.outputs) == ("digits", digits_network.labels, ("label", "scores"))
    record = found.provenance["steps"][-1]
    assert (record["step"], record["labelled_rows"], record["unlabelled_rows"]) == ("Distill", 0, len(splits.train))
    assert record["best_epoch"]["number"] <= record["epochs_run"] == 8
    assert accuracy(found, splits.test) > 0.85
    package = OnnxExport().export(found, bare)
    assert [each["step"] for each in package.manifest.provenance["steps"]] == ["Distill", "OnnxExport"]

    again = step.change(digits_network, bare)  # from its checkpoint
    torch.testing.assert_close(again.module.state_dict(), found.module.state_dict(), rtol=0, atol=0)
    with pytest.raises(CompressionError, match=r"the student gives output 'scores' as float32 \[8, 9\], its teacher"):
        Distill(student=f"{tmp_path}/students.py:of_nine").change(digits_network, bare)


def test_without_a_student_it_is_not_applicable(digits_network: Network, context: StepContext) -> None:
    with pytest.raises(NotApplicable, match="name one"):
        Distill().change(digits_network, context)


class Embedding(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.Tanh(), nn.Linear(width, 6))

    def forward(self, image: Tensor) -> Tensor:
        embedding: Tensor = self.layers(image)
        return embedding


def test_embeddings_are_taught_by_their_squared_error(context: StepContext, splits: Splits) -> None:
    torch.manual_seed(0)
    example = splits.train.take(slice(0, 4)).inputs
    teacher = Network("teacher", Embedding(32).eval(), example, ("embedding",))
    student = Network("student", Embedding(16).eval(), example, ("embedding",))
    bare = dataclasses.replace(context, data=dataclasses.replace(splits, train=Dataset(splits.train.inputs)))
    taught = distill(student, teacher, bare, Training(epochs=15, learning_rate=1e-2)).network
    want, before, after = (each.infer(splits.test.inputs)["embedding"] for each in (teacher, student, taught))
    assert np.square(want - after).mean() < 0.1 * np.square(want - before).mean()


def test_a_teacher_of_another_task_is_refused(student: Network, context: StepContext) -> None:
    example = student.example
    teacher = Network("teacher", Embedding(4).eval(), example, ("embedding",))
    with pytest.raises(
        DataError, match=r"the teacher gives nothing like the student's output 'scores' of shape \[10\]"
    ):
        distill(student, teacher, context, Training(epochs=1))
