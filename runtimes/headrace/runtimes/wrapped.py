"""Models around other models, which keep what those can do besides a run."""

from __future__ import annotations

from typing import Any

from headrace.contracts import Tensors
from headrace.runtimes.base import Computed, LoadedModel, compute_of


class WrappedModel:
    """A model around another one; its kinds override `compute`."""

    def __init__(self, model: LoadedModel) -> None:
        """model: closed with this one."""
        self.model = model
        self._compute = compute_of(model)

    def __getattr__(self, name: str) -> Any:
        """Return what only the inner model has, such as `max_in_flight`."""
        if name in {"model", "_compute"}:
            raise AttributeError(name)
        return getattr(self.model, name)

    def infer(self, inputs: Tensors) -> Tensors:
        """Run one batch."""
        return self.compute(inputs, None).outputs

    def compute(self, inputs: Tensors, deadline: float | None) -> Computed:
        """Run one batch under a deadline."""
        return self._compute(inputs, deadline)

    def close(self) -> None:
        """Free the model."""
        self.model.close()
