"""The training loop, with early stop, checkpoints and resume. Imports torch."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headrace.compression.errors import CompressionError, NotApplicable
from headrace.compression.networks.network import Network
from headrace.compression.steps import StepContext
from headrace.compression.training.options import Epoch, Training
from headrace.compression.training.training_data import TrainingData, weights_digest
from headrace.contracts.files import atomic_file

CHECKPOINT: Final = "training.pt"

#: Keeps the random numbers of different epochs and seeds apart.
_EPOCH_STRIDE: Final = 1_000_003


class _State(TypedDict):
    """The contents of a checkpoint: only tensors and plain values, which load without pickle's dangers."""

    fingerprint: str
    weights: dict[str, Any]
    best: dict[str, Any]
    optimizer: dict[str, Any]
    history: list[tuple[int, float, float]]


@contextmanager
def computing(threads: int) -> Iterator[None]:
    """Make torch use this number of threads (0: as before) and deterministic algorithms within the block."""
    before = torch.get_num_threads()
    deterministic, warn_only = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    torch.set_num_threads(threads or before)
    # A few operators have no such algorithm; a result that may vary in its last digits is better than none.
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*deterministic")
            yield
    finally:
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        torch.set_num_threads(before)


class TrainingLoop:
    """The training loop of one network, which it changes."""

    def __init__(
        self, network: Network, data: TrainingData, training: Training, context: StepContext, folder: Path
    ) -> None:
        """folder: of the checkpoint. Raises NotApplicable when the network has nothing to train."""
        self._network = network
        self._data = data
        self._training = training
        self._context = context
        self._file = folder / CHECKPOINT
        weights = [each for each in network.module.parameters() if each.requires_grad]
        if not weights:
            raise NotApplicable(f"network {network.name!r} has no parameter that can be trained")
        self._optimizer = torch.optim.AdamW(weights, lr=training.learning_rate, weight_decay=training.weight_decay)
        self._train_rows, self._held_rows = self._split()
        self._batches = len(self._cut(self._train_rows))

    def run(self) -> tuple[Epoch, ...]:
        """Train to the end, from the checkpoint if there is one of this very training."""
        module = self._network.module
        fingerprint = self._fingerprint()
        state = self._resume(fingerprint)
        history = [Epoch(*epoch) for epoch in state["history"]] if state else []
        best = state["best"] if state else {}
        while len(history) < self._training.epochs and not self._stale(history):
            epoch = self._epoch(len(history) + 1)
            history.append(epoch)
            if min(history, key=lambda each: each.validation_loss) is epoch:
                best = copy.deepcopy(module.state_dict())
            self._save(fingerprint, best, history)
        module.load_state_dict(best)
        module.eval()
        return tuple(history)

    def _split(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        rows = np.random.default_rng(self._context.seed).permutation(len(self._data.rows))
        held = min(round(len(rows) * self._training.validation), len(rows) - 1)
        return np.sort(rows[held:]), np.sort(rows[:held])

    def _stale(self, history: list[Epoch]) -> bool:
        if not self._training.patience or not history:
            return False
        best = min(history, key=lambda epoch: epoch.validation_loss)
        return history[-1].number - best.number >= self._training.patience

    def _epoch(self, number: int) -> Epoch:
        # Seeded anew, so that an epoch is the same whether or not it was this process that ran the one before.
        torch.manual_seed((self._context.seed * _EPOCH_STRIDE + number) % 2**63)
        self._network.module.train()
        order = self._train_rows[torch.randperm(len(self._train_rows)).numpy()]
        total = 0.0
        for index, rows in enumerate(self._cut(order)):
            step = (number - 1) * self._batches + index
            loss = self._step(rows, step, number)
            total += loss * len(rows)
            self._context.progress(
                step + 1, self._training.epochs * self._batches, f"training: epoch {number}, loss {loss:.3g}"
            )
        train_loss = total / len(order)
        self._network.module.eval()
        return Epoch(number, train_loss, self._validate(number) if len(self._held_rows) else train_loss)

    def _cut(self, order: NDArray[np.intp]) -> list[NDArray[np.intp]]:
        size = self._training.batch_rows
        batches = [order[start : start + size] for start in range(0, len(order), size)]
        # Batch normalisation can't learn from a single row.
        if len(batches) > 1 and len(batches[-1]) == 1:
            last = batches.pop()
            batches[-1] = np.concatenate([batches[-1], last])
        return batches

    def _step(self, rows: NDArray[np.intp], step: int, epoch: int) -> float:
        rate = 0.5 * (1 + math.cos(math.pi * step / (self._training.epochs * self._batches)))
        for group in self._optimizer.param_groups:
            group["lr"] = self._training.learning_rate * rate
        loss = self._loss(rows)
        found = self._finite(loss, epoch)
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        return found

    def _loss(self, rows: NDArray[np.intp]) -> Tensor:
        inputs, labels, targets = self._data.batch(rows)
        given = self._network.named(self._network.module(*self._network.arguments(inputs)))
        objective = self._data.objective
        return objective.loss(given[objective.output], labels, targets)

    def _validate(self, epoch: int) -> float:
        with torch.no_grad():
            total = sum(self._finite(self._loss(rows), epoch) * len(rows) for rows in self._cut(self._held_rows))
        return total / len(self._held_rows)

    def _finite(self, loss: Tensor, epoch: int) -> float:
        found = loss.item()
        if not math.isfinite(found):
            raise CompressionError(
                f"the loss of {self._network.name!r} became {found} in epoch {epoch}; lower the learning rate "
                f"({self._training.learning_rate:g}), and look for NaN or huge values in the rows"
            )
        return found

    def _fingerprint(self) -> str:
        """Return a checksum of the training: its options, seed, rows and initial weights."""
        parts = (dataclasses.asdict(self._training), self._context.seed, torch.__version__)
        text = f"{parts}{weights_digest(self._network.module)}{self._data.fingerprint()}"
        return hashlib.sha256(text.encode()).hexdigest()

    def _resume(self, fingerprint: str) -> _State | None:
        if not self._file.exists():
            return None
        try:
            state: _State = torch.load(self._file, weights_only=True)
        except Exception as exc:  # torch raises what zipfile, pickle and its own reader raise
            raise CompressionError(f"the checkpoint {self._file} can't be read; delete it to start anew") from exc
        if state["fingerprint"] != fingerprint:
            return None
        self._network.module.load_state_dict(state["weights"])
        self._optimizer.load_state_dict(state["optimizer"])
        return state

    def _save(self, fingerprint: str, best: dict[str, Any], history: list[Epoch]) -> None:
        """Write the checkpoint."""
        state: _State = {
            "fingerprint": fingerprint,
            "weights": self._network.module.state_dict(),
            "best": best,
            "optimizer": self._optimizer.state_dict(),
            "history": [(epoch.number, epoch.train_loss, epoch.validation_loss) for epoch in history],
        }
        with atomic_file(self._file) as file:
            torch.save(state, file)
