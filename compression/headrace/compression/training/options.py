"""The options of a training, and its results: the history of epochs and the trained network."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from headrace.compression.errors import CompressionError

if TYPE_CHECKING:
    from headrace.compression.networks.network import Network


@dataclass(frozen=True)
class Training:
    """Options of a training.

    epochs: at most. learning_rate: at the start; it falls to 0 along a cosine. batch_rows: rows of a step. patience:
    epochs without a lower loss on the rows held out, after which training stops; 0 never stops early. validation: share
    of the train rows that is held out for this. weight_decay: of AdamW. temperature, alpha: of distillation, as Hinton
    et al. 2015 have them; alpha is the weight of the soft targets, 1 − alpha that of the labels.
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
        """Raise CompressionError for values that can't be meant."""
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
        """The entry of the training in a package's provenance."""
        return {
            "labelled_rows": self.labelled_rows,
            "unlabelled_rows": self.unlabelled_rows,
            "epochs_run": len(self.history),
            "best_epoch": asdict(self.best),
        }
