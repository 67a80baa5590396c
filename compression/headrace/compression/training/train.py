"""Training of torch networks: `train` serves fine-tuning after pruning, training for int8, and distillation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from headrace.compression.data.dataset import Dataset
from headrace.compression.networks.loading import need_torch
from headrace.compression.steps import Step, StepContext, step_name
from headrace.compression.training.options import Trained, Training
from headrace.contracts import ModelPackage

if TYPE_CHECKING:
    from headrace.compression.networks.network import Network


def train(
    network: Network,
    context: StepContext,
    training: Training,
    *,
    checkpoints: Path,
    teacher: Network | ModelPackage | None = None,
    unlabelled: Dataset | None = None,
) -> Trained:
    """Train a copy of a network with the train rows; selection and test rows are never looked at.

    The loss follows from the network's outputs and the labels. Whole numbers are classes: cross entropy over
    the output of class scores, logits or probabilities; negative ones are rows without a label. Other numbers are
    values: mean squared error; NaN is a row without. A teacher, a network or any package, adds its soft targets:

        alpha · T² · KL(teacher at T ‖ student at T) + (1 − alpha) · cross entropy        (Hinton et al. 2015)

    for each row, and the first part alone where there is no label. For values, both parts are squared errors.

    checkpoints: a folder that outlives an interruption. A checkpoint of the same training (options, seed,
    weights, data and teacher) is resumed, and leads to the same weights as without the interruption; a finished one
    is returned at once. unlabelled: more rows, for the teacher to label.
    Raises DataError when there is neither label nor teacher, or none that fits an output; CompressionError when the
    loss is not finite; MissingLibrary without torch.
    """
    need_torch("training")
    from headrace.compression.training.loop import TrainingLoop, computing
    from headrace.compression.training.training_data import prepare

    checkpoints.mkdir(parents=True, exist_ok=True)
    pupil = network.copy()
    with computing(context.threads):
        data = prepare(pupil, context, training, (teacher, unlabelled, checkpoints))
        history = TrainingLoop(pupil, data, training, context, checkpoints).run()
    return Trained(pupil, history, data.labelled_rows, len(data.rows) - data.labelled_rows)


def checkpoint_folder(context: StepContext, step: Step) -> Path:
    """Return the folder for the checkpoints of a step: beside its own folder, which is emptied at every start."""
    return context.folder / f"{step_name(step)}-checkpoints"
