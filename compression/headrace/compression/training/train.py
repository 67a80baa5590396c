"""Trains torch networks: fine-tuning after pruning, training for int8, and distillation all go through `train`."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.compression.data.dataset import Dataset
from headrace.compression.errors import CompressionError
from headrace.compression.networks.loading import need_torch
from headrace.compression.recipes.steps import Step, Workshop, step_name
from headrace.contracts import ModelPackage

if TYPE_CHECKING:
    from headrace.compression.networks.network import Network


@dataclass(frozen=True)
class Training:
    """How to train.

    epochs: at most. learning_rate: at the start; it falls to 0 along a cosine. batch_rows: rows of a step. patience:
    stop after so many epochs without a lower loss on the rows held out; 0 never stops early. validation: share of the
    train rows that is held out for this. weight_decay: of AdamW. temperature, alpha: of distillation, as Hinton et al.
    2015 have them; alpha is the weight of the soft targets, 1 − alpha that of the labels.
    """

    epochs: int = 30
    learning_rate: float = 1e-3
    batch_rows: int = 64
    patience: int = 10
    validation: float = 0.1
    weight_decay: float = 0.01
    temperature: float = 4.0
    alpha: float = 0.7

    def __post_init__(self) -> None:
        """Refuse what can't be meant."""
        if self.epochs < 1 or self.batch_rows < 1 or self.patience < 0:
            raise CompressionError("training needs epochs and batch_rows of at least 1, and patience of at least 0")
        if not (0 < self.learning_rate < math.inf and 0 < self.temperature < math.inf and self.weight_decay >= 0):
            raise CompressionError("learning_rate and temperature must be above 0, weight_decay at least 0")
        if not (0 <= self.alpha <= 1 and 0 <= self.validation < 1):
            raise CompressionError("alpha must lie in 0..1, and validation in 0..1 but below 1")


@dataclass(frozen=True)
class Epoch:
    """One pass over the train rows. number: from 1. Losses are means; without rows held out both are the same."""

    number: int
    train_loss: float
    validation_loss: float


@dataclass(frozen=True)
class Trained:
    """A network with the weights of its best epoch, in eval mode; and how every epoch went.

    labelled_rows, unlabelled_rows: it was trained with, those held out included.
    """

    network: Network
    history: tuple[Epoch, ...]
    labelled_rows: int
    unlabelled_rows: int

    @property
    def best(self) -> Epoch:
        """The epoch whose weights were kept."""
        return min(self.history, key=lambda epoch: epoch.validation_loss)

    @property
    def record(self) -> dict[str, Any]:
        """What a package's provenance says of the training."""
        return {
            "labelled_rows": self.labelled_rows,
            "unlabelled_rows": self.unlabelled_rows,
            "epochs_run": len(self.history),
            "best_epoch": asdict(self.best),
        }


def train(
    network: Network,
    workshop: Workshop,
    training: Training,
    *,
    checkpoints: Path,
    teacher: Network | ModelPackage | None = None,
    unlabelled: Dataset | None = None,
) -> Trained:
    """Train a copy of a network with the train rows; selection and test rows are never looked at.

    The loss follows from what the network gives and what the labels are. Whole numbers are classes: cross entropy over
    the output of class scores, logits or probabilities; negative ones are rows without a label. Other numbers are
    values: mean squared error; NaN is a row without. A teacher, a network or any package, adds its soft targets:

        alpha · T² · KL(teacher at T ‖ student at T) + (1 − alpha) · cross entropy        (Hinton et al. 2015)

    for each row, and the first part alone where there is no label. For values, both parts are squared errors.

    checkpoints: a folder that outlives an interruption. What is found there of the same training (options, seed,
    weights, data and teacher) is gone on with, and comes to the same weights as without the interruption; a finished
    one is given at once. unlabelled: more rows, for the teacher to label.
    Raises DataError when there is neither label nor teacher, or none that fits an output; CompressionError when the
    loss is no number any more; MissingLibrary without torch.
    """
    need_torch("training")
    from headrace.compression.training.loop import Fitting, computing
    from headrace.compression.training.training_data import prepare

    checkpoints.mkdir(parents=True, exist_ok=True)
    pupil = network.copy()
    with computing(workshop.threads):
        lessons = prepare(pupil, workshop, training, (teacher, unlabelled, checkpoints))
        history = Fitting(pupil, lessons, training, workshop, checkpoints).run()
    return Trained(pupil, history, lessons.labelled_rows, len(lessons.rows) - lessons.labelled_rows)


def checkpoint_folder(workshop: Workshop, step: Step) -> Path:
    """Name the folder for the checkpoints of a step: beside its room, which is emptied at every start."""
    return workshop.folder / f"{step_name(step)}-checkpoints"
