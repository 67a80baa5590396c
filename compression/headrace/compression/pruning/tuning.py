"""Fine-tuning after pruning: the original network is the teacher, so that rows need no labels."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.compression.augmentation import augmented
from headrace.compression.recipe import Workshop
from headrace.compression.training import Training, train

if TYPE_CHECKING:
    from headrace.compression.network import Network


@dataclass(frozen=True)
class FineTuning:
    """How to train what was pruned. copies: of each image, shifted, that the original labels as well.

    The others: see Training.
    """

    epochs: int
    learning_rate: float
    batch_rows: int
    temperature: float
    alpha: float
    copies: int


@dataclass(frozen=True)
class Tuned:
    """A network with the weights of its best epoch, and how its training went."""

    network: Network
    record: dict[str, Any]


def tune(network: Network, teacher: Network, workshop: Workshop, tuning: FineTuning, checkpoints: Path) -> Tuned:
    """Train a copy of a network to answer as its teacher does, and as the labels say where there are any."""
    options = asdict(tuning)
    copies = options.pop("copies")
    extra = augmented(workshop.data.train, copies, workshop.seed)
    trained = train(
        network,
        workshop,
        Training(**options, patience=0),
        checkpoints=checkpoints,
        teacher=teacher,
        unlabelled=extra,
    )
    return Tuned(
        trained.network,
        {
            "labelled_rows": trained.labelled_rows,
            "unlabelled_rows": trained.unlabelled_rows,
            "epochs_run": len(trained.history),
            "best_epoch": asdict(trained.best),
        },
    )
