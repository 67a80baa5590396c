"""Fine-tuning after pruning: the original network is the teacher, so that rows need no labels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from headrace.compression.data.augmentation import augmented
from headrace.compression.errors import DataError
from headrace.compression.steps import StepContext
from headrace.compression.training.options import Trained, Training
from headrace.compression.training.train import train

if TYPE_CHECKING:
    from headrace.compression.networks.network import Network


@dataclass(frozen=True, kw_only=True)
class FineTuning:
    """Options of the training after a step; steps inherit them, with defaults of their own.

    copies: of each image, shifted, that the original labels as well. The others: see Training.
    """

    epochs: int
    learning_rate: float = 2e-3
    batch_rows: int = 64
    temperature: float = 4.0
    alpha: float = 0.9
    copies: int = 1


def tune(
    network: Network, teacher: Network, context: StepContext, tuning: FineTuning, *, epochs: int, checkpoints: Path
) -> Trained:
    """Train a copy of a network to answer as its teacher does, and as the labels say where there are any.

    epochs: of this part of the training, where a step has several.
    """
    training = Training(
        epochs=epochs,
        learning_rate=tuning.learning_rate,
        batch_rows=tuning.batch_rows,
        temperature=tuning.temperature,
        alpha=tuning.alpha,
        patience=0,
    )
    copies = augmented(context.data.train, tuning.copies, context.seed)
    return train(network, context, training, checkpoints=checkpoints, teacher=teacher, unlabelled=copies)


def check_rows(context: StepContext, *, needed: bool, without: str) -> None:
    """Raise DataError when rows to train with are needed and there are none. without: the options that need none."""
    if needed and not len(context.data.train):
        raise DataError(
            "a pruned network must be trained again, and there are no rows to train it with; give rows of its inputs "
            f"(labels are welcome, but not needed), or {without}"
        )
