"""The training loop: what it learns from, when it stops, and that an interruption changes nothing."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from headrace.compression.data.dataset import Dataset, Splits
from headrace.compression.errors import CompressionError, DataError, NotApplicable
from headrace.compression.networks.network import Network
from headrace.compression.steps import StepContext
from headrace.compression.training.loss import Objective
from headrace.compression.training.options import Epoch, Training
from headrace.compression.training.train import train
from headrace.compression.training.training_data import read_labels

QUICK = Training(epochs=4, learning_rate=3e-3, batch_rows=32, patience=0)


class Small(nn.Module):
    """With all that a loop gets wrong: batch normalisation, dropout, and an output that is not trained."""

    def __init__(self, give: str = "probabilities") -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(64, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Dropout(0.2), nn.Linear(24, 10)
        )
        self.give = give

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.layers(image)
        return logits.argmax(1), logits.softmax(1) if self.give == "probabilities" else logits


def small(splits: Splits, give: str = "probabilities") -> Network:
    torch.manual_seed(0)
    return Network("small", Small(give).eval(), splits.train.take(slice(0, 4)).inputs, ("label", "scores"))


def with_train(context: StepContext, train_rows: Dataset) -> StepContext:
    return dataclasses.replace(context, data=dataclasses.replace(context.data, train=train_rows))


def weights(network: Network) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.module.state_dict().items()}


def assert_same(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def accuracy(network: Network, rows: Dataset) -> float:
    return float((network.infer(rows.inputs)["label"] == rows.labels).mean())


@pytest.mark.parametrize("give", ["probabilities", "logits"])
def test_labels_are_learnt_and_what_was_given_stays_as_it_was(
    context: StepContext, splits: Splits, tmp_path: Path, give: str
) -> None:
    network = small(splits, give)
    before, threads, random = weights(network), torch.get_num_threads(), torch.get_rng_state()
    trained = train(network, context, dataclasses.replace(QUICK, epochs=8), checkpoints=tmp_path)
    assert_same(before, weights(network))
    assert torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.equal(torch.get_rng_state(), random)
    assert not trained.network.module.training
    assert accuracy(trained.network, splits.test) > 0.85
    assert (trained.labelled_rows, trained.unlabelled_rows) == (len(splits.train), 0)


def test_an_interrupted_training_comes_to_the_same_weights(
    context: StepContext, splits: Splits, tmp_path: Path
) -> None:
    whole = train(small(splits), context, QUICK, checkpoints=tmp_path / "whole")

    def interrupt(done: int, of: int, what: str) -> None:
        if done == of * 5 // 8:  # in the middle of the third of four epochs
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(small(splits), dataclasses.replace(context, progress=interrupt), QUICK, checkpoints=tmp_path / "cut")
    seen: list[str] = []
    goes_on = dataclasses.replace(context, progress=lambda done, of, what: seen.append(what))
    resumed = train(small(splits), goes_on, QUICK, checkpoints=tmp_path / "cut")
    assert "epoch 3" in seen[0]
    assert resumed.history == whole.history
    assert_same(weights(resumed.network), weights(whole.network))

    seen.clear()
    again = train(small(splits), goes_on, QUICK, checkpoints=tmp_path / "cut")
    assert not seen  # it was finished
    assert_same(weights(again.network), weights(whole.network))
    assert [path.name for path in (tmp_path / "cut").iterdir()] == ["training.pt"]


def test_a_seed_decides_everything_and_a_checkpoint_of_another_training_is_not_taken(
    context: StepContext, splits: Splits, tmp_path: Path
) -> None:
    once = dataclasses.replace(QUICK, epochs=1)
    first = train(small(splits), context, once, checkpoints=tmp_path / "a")
    same = train(small(splits), context, once, checkpoints=tmp_path / "b")
    other = train(small(splits), dataclasses.replace(context, seed=1), once, checkpoints=tmp_path / "a")
    assert_same(weights(first.network), weights(same.network))
    assert other.history != first.history


def test_a_damaged_checkpoint_is_told(context: StepContext, splits: Splits, tmp_path: Path) -> None:
    (tmp_path / "training.pt").write_bytes(b"half a file")
    with pytest.raises(CompressionError, match=r"training.pt can't be read; delete it to start anew"):
        train(small(splits), context, QUICK, checkpoints=tmp_path)


def test_it_stops_early_and_keeps_the_best_weights(context: StepContext, splits: Splits, tmp_path: Path) -> None:
    few = with_train(context, splits.train.take(slice(0, 60)))
    training = Training(epochs=60, learning_rate=0.03, batch_rows=16, patience=3, validation=0.3, weight_decay=0)
    trained = train(small(splits), few, training, checkpoints=tmp_path)
    assert len(trained.history) < 60
    assert len(trained.history) == trained.best.number + 3
    held = np.sort(np.random.default_rng(0).permutation(60)[:18])
    scores = trained.network.infer(few.data.train.take(held).inputs)["scores"]
    labels = few.data.train.labels
    assert labels is not None
    loss = -np.log(scores[np.arange(18), labels[held]]).mean()
    assert loss == pytest.approx(trained.best.validation_loss, rel=1e-4)


def test_a_loss_that_is_no_number_names_the_learning_rate(context: StepContext, splits: Splits, tmp_path: Path) -> None:
    rows = splits.train.inputs["image"].copy()
    rows[7] = np.nan
    with pytest.raises(CompressionError, match=r"became nan in epoch 1; lower the learning rate \(0.003\)"):
        train(
            small(splits),
            with_train(context, Dataset({"image": rows}, splits.train.labels)),
            QUICK,
            checkpoints=tmp_path,
        )


def test_without_labels_and_teacher_there_is_nothing_to_learn(
    context: StepContext, splits: Splits, tmp_path: Path
) -> None:
    bare = Dataset(splits.train.inputs)
    for rows in (bare, Dataset(bare.inputs, np.full(len(bare), -1))):
        with pytest.raises(DataError, match="neither labels nor a teacher"):
            train(small(splits), with_train(context, rows), QUICK, checkpoints=tmp_path)
    with pytest.raises(DataError, match="teach nothing without a teacher"):
        train(small(splits), context, QUICK, checkpoints=tmp_path, unlabelled=bare)


def test_labels_that_fit_no_output_are_refused(context: StepContext, splits: Splits, tmp_path: Path) -> None:
    for labels, message in (
        (np.arange(len(splits.train)), r"classes up to 897 fit no output .* scores \[10\]"),
        (np.ones((len(splits.train), 3)), r"labels of shape \[3\] with values fit no output"),
    ):
        with pytest.raises(DataError, match=message):
            train(small(splits), with_train(context, Dataset(splits.train.inputs, labels)), QUICK, checkpoints=tmp_path)


def test_labels_of_text_are_looked_up() -> None:
    given = np.array(["cat", "", "dog"])
    found = read_labels(given, ("dog", "cat"))
    assert found is not None
    assert found.tolist() == [1, -1, 0]
    with pytest.raises(DataError, match="label 'cat' is none of the model's labels: dog"):
        read_labels(given, ("dog",))


class Line(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(2, 1)

    def forward(self, x: Tensor) -> Tensor:
        value: Tensor = self.line(x)
        return value


def test_values_are_learnt_by_their_squared_error_and_nan_is_no_label(context: StepContext, tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((257, 2)).astype(np.float32)
    y = x[:, 0] * 2 - x[:, 1] + 1
    y[::3] = np.nan
    network = Network("line", Line().eval(), {"x": x[:4]}, ("value",))
    training = Training(epochs=40, learning_rate=0.1, batch_rows=32, weight_decay=0)
    trained = train(network, with_train(context, Dataset({"x": x}, y)), training, checkpoints=tmp_path)
    found = trained.network.module.state_dict()
    assert found["line.weight"].flatten().tolist() == pytest.approx([2, -1], abs=0.02)
    assert trained.labelled_rows == 257 - 86


def test_a_single_score_is_that_of_the_second_of_two_classes(context: StepContext, tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((256, 2)).astype(np.float32)
    network = Network("line", nn.Sequential(Line(), nn.Sigmoid()).eval(), {"x": x[:4]}, ("chance",))
    rows = Dataset({"x": x}, x[:, 0] > 0)
    training = Training(epochs=20, learning_rate=0.1, batch_rows=32)
    trained = train(network, with_train(context, rows), training, checkpoints=tmp_path).network
    assert ((trained.infer({"x": x})["chance"][:, 0] > 0.5) == (x[:, 0] > 0)).mean() > 0.97


def test_the_soft_part_is_the_divergence_times_the_squared_temperature() -> None:
    objective = Objective("scores", "classes", probabilities=False, temperature=2.0, alpha=0.75)
    given, targets = torch.tensor([[1.0, 0.0], [0.0, 0.0]]), torch.tensor([[0.0, 2.0], [0.0, 0.0]])
    teacher, student = np.array([1, math.e]) / (1 + math.e), np.array([math.e**0.5, 1]) / (1 + math.e**0.5)
    soft = 4 * (teacher * np.log(teacher / student)).sum() / 2  # the second row agrees
    assert objective.loss(given, None, targets).item() == pytest.approx(soft, rel=1e-5)
    hard = math.log(2) / 2  # of the second row alone; the first has no label
    both = objective.loss(given, torch.tensor([-1, 0]), targets).item()
    assert both == pytest.approx(0.75 * soft + 0.25 * hard, rel=1e-5)
    assert objective.loss(given, torch.tensor([-1, 0]), None).item() == pytest.approx(math.log(2), rel=1e-5)


def test_a_last_batch_of_one_row_joins_the_one_before(context: StepContext, splits: Splits, tmp_path: Path) -> None:
    rows = splits.train.take(slice(0, 65))
    training = Training(epochs=1, batch_rows=32, validation=0)
    trained = train(small(splits), with_train(context, rows), training, checkpoints=tmp_path)
    assert trained.history == (Epoch(1, trained.best.train_loss, trained.best.train_loss),)


def test_a_network_without_weights_is_not_applicable(context: StepContext, splits: Splits, tmp_path: Path) -> None:
    network = small(splits)
    network.module.requires_grad_(requires_grad=False)
    with pytest.raises(NotApplicable, match="no parameter that can be trained"):
        train(network, context, QUICK, checkpoints=tmp_path)


def test_impossible_options_are_refused() -> None:
    wrong: list[dict[str, Any]] = [{"epochs": 0}, {"learning_rate": 0.0}, {"alpha": 2.0}, {"validation": 1.0}]
    for options in wrong:
        with pytest.raises(CompressionError):
            Training(**options)
