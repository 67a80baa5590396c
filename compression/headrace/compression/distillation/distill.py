"""Distillation: a small network learns from a large one (Hinton, Vinyals, Dean 2015, arXiv:1503.02531)."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from headrace.compression.data.dataset import Dataset
from headrace.compression.errors import CompressionError, NotApplicable
from headrace.compression.networks.loading import load_network, need_torch
from headrace.compression.steps import StepContext, step_record
from headrace.compression.training.options import Trained, Training
from headrace.compression.training.train import checkpoint_folder, train
from headrace.contracts import ModelPackage

if TYPE_CHECKING:
    from headrace.compression.networks.network import Network


@dataclass(frozen=True)
class Distill:
    """Trains another, smaller network to answer as the given one does.

    student: a reference `module:factory` (see `load_network`, which runs its code) to a network of the same inputs and
    outputs; random weights will do. The others: see Training.
    """

    student: str = ""
    temperature: float = 4.0
    alpha: float = 0.7
    epochs: int = 60
    learning_rate: float = 2e-3
    batch_rows: int = 64
    patience: int = 15

    def change(self, network: Network, context: StepContext) -> Network:
        """Return the student, trained with the train rows; those without a label (-1, or no label at all) as well.

        Raises NotApplicable without a student, CompressionError when its outputs aren't those of the network.
        """
        if not self.student:
            raise NotApplicable("distillation needs a student to teach; name one: Distill(student='module:factory')")
        need_torch("distillation")
        import dataclasses

        student = self._student(network, context)
        options = {spec.name: getattr(self, spec.name) for spec in fields(self) if spec.name != "student"}
        trained = distill(student, network, context, Training(**options), checkpoints=checkpoint_folder(context, self))
        record = {**step_record(self), **trained.record}
        return dataclasses.replace(network.with_step(trained.network.module, record), example=student.example)

    def _student(self, network: Network, context: StepContext) -> Network:
        import torch

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(context.seed)
            student = load_network(self.student, example=network.example, outputs=network.outputs, name=network.name)
        check_same_outputs(student, network)
        return student


def distill(
    student: Network,
    teacher: Network | ModelPackage,
    context: StepContext,
    training: Training | None = None,
    *,
    unlabelled: Dataset | None = None,
    checkpoints: Path | None = None,
) -> Trained:
    """Train a copy of a student to answer as a teacher does, and as the labels say where there are any.

    teacher: a network, or a package of any runtime; it answers every row once, and the answers are kept with the
    checkpoints. training: its temperature and alpha weigh teacher and labels; see `train`, also for errors.
    unlabelled: rows beside the train rows that only the teacher labels. checkpoints: a folder that outlives an
    interruption; `distill-checkpoints` in the context's by default.
    """
    return train(
        student,
        context,
        training or Training(epochs=60, learning_rate=2e-3, patience=15),
        checkpoints=checkpoints or context.folder / "distill-checkpoints",
        teacher=teacher,
        unlabelled=unlabelled,
    )


def check_same_outputs(student: Network, teacher: Network) -> None:
    """Refuse a student that could not take its teacher's place. Raises CompressionError."""
    want, have = teacher.infer(teacher.example), student.infer(student.example)
    for name, array in want.items():
        found = have[name]
        if found.dtype != array.dtype or found.shape != array.shape:
            raise CompressionError(
                f"the student gives output {name!r} as {found.dtype} {list(found.shape)}, its teacher as {array.dtype} "
                f"{list(array.shape)}; a student must give what its teacher gives, in the same order"
            )
