"""Distillation of the digits: 100 labels and a teacher's answers for the other train rows, against 100 labels alone.

    python benchmarks/compression_parts/distillation.py

The student is a network of 3,818 weights, the teacher the demo's (39 thousand); held out are the 899 digits that other
people wrote. Student, first weights, labelled rows, learning rate, batches and the share held out for the early stop
are the same on both sides, and neither has augmentation. An epoch of 100 rows is nine times shorter than one of 898, so
the labels alone are tried twice: for as many epochs as the distillation, and for as many steps. The better of both on
the held-out rows, which favours this side, is what the distillation is compared with. The teacher was trained with
the labels of all 898 rows.
"""

from __future__ import annotations

import dataclasses
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from headrace.compression.data.dataset import Dataset, Splits
from headrace.compression.distillation.distill import distill
from headrace.compression.networks.network import Network
from headrace.compression.steps import StepContext
from headrace.compression.training.options import Training
from headrace.compression.training.train import train
from headrace.contracts import ModelPackage, read_package

DEMO_DATA = Path(__file__).parents[2] / "cli/headrace/cli/demo/data"
TRAIN_ROWS = 898
LABELS = 100
SEEDS = (0, 1, 2)
TRAINING = Training(epochs=100, learning_rate=3e-3, batch_rows=32, patience=20)


class Student(nn.Module):
    """Two convolutions and one linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(8, 16, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(256, 10),
        )

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.layers(image)
        return logits.argmax(1), logits.softmax(1)


@dataclass(frozen=True)
class Outcome:
    """Accuracies on the held-out rows, of one seed."""

    seed: int
    labels_same_epochs: float
    labels_same_steps: float
    distilled: float

    @property
    def gain(self) -> float:
        """Points over the better of the trainings with labels alone."""
        return 100 * (self.distilled - max(self.labels_same_epochs, self.labels_same_steps))


def measure(seeds: tuple[int, ...] = SEEDS, progress: Callable[[str], None] = lambda _line: None) -> list[Outcome]:
    """Train the three students of every seed."""
    with np.load(DEMO_DATA / "digits.npz") as file:
        images = (file["images"].astype(np.float32) / np.float32(16))[:, None]
        labels = file["labels"].astype(np.int64)
    teacher = read_package(DEMO_DATA / "models/digits/1")
    outcomes = []
    for seed in seeds:
        known = np.full(TRAIN_ROWS, -1)
        chosen = np.random.default_rng(seed).permutation(TRAIN_ROWS)[:LABELS]
        known[chosen] = labels[chosen]
        train_rows = Dataset({"image": images[:TRAIN_ROWS]}, known)
        held_out = Dataset({"image": images[TRAIN_ROWS:]}, labels[TRAIN_ROWS:])
        outcomes.append(_of_seed(seed, teacher, train_rows, held_out))
        progress(describe(outcomes[-1]))
    return outcomes


def _of_seed(seed: int, teacher: ModelPackage, train_rows: Dataset, held_out: Dataset) -> Outcome:
    torch.manual_seed(seed)
    student = Network("student", Student().eval(), train_rows.take(slice(0, 8)).inputs, ("label", "scores"))
    steps = TRAIN_ROWS // LABELS + 1
    longer = dataclasses.replace(TRAINING, epochs=TRAINING.epochs * steps, patience=TRAINING.patience * steps)
    with tempfile.TemporaryDirectory() as folder:
        # Calibration, selection and test are not looked at by training; the train rows stand in for them.
        context = StepContext(Path(folder), Splits(train_rows, train_rows, train_rows, train_rows), seed=seed)
        same_epochs = train(student, context, TRAINING, checkpoints=context.folder / "epochs")
        same_steps = train(student, context, longer, checkpoints=context.folder / "steps")
        distilled = distill(student, teacher, context, TRAINING)
    return Outcome(seed, *(_accuracy(each.network, held_out) for each in (same_epochs, same_steps, distilled)))


def _accuracy(network: Network, rows: Dataset) -> float:
    return float((network.infer(rows.inputs)["label"] == rows.labels).mean())


def describe(outcome: Outcome) -> str:
    """Write one line for a person."""
    return (
        f"seed {outcome.seed}: {LABELS} labels {outcome.labels_same_epochs:.2%} (same epochs), "
        f"{outcome.labels_same_steps:.2%} (same steps); with the teacher's answers {outcome.distilled:.2%}: "
        f"{outcome.gain:+.1f} points"
    )


def main() -> None:
    """Print every seed, then the mean; fail below 8 points."""
    outcomes = measure(progress=print)
    gain = float(np.mean([outcome.gain for outcome in outcomes]))
    print(f"mean gain: {gain:+.1f} points")
    sys.exit(gain < 8)


if __name__ == "__main__":
    main()
