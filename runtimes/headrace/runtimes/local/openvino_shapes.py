"""A check for inconsistent input sizes, which OpenVINO itself overlooks on one thread."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from headrace.runtimes.local.failures import openvino_cause

#: Shapes of this many requests are known to run; when there are more, they are asked for anew.
_MOST_KNOWN: Final = 4096

Shapes = tuple[tuple[int, ...], ...]


class ShapeCheck:
    """Asks the graph whether the shapes of a request fit each other, once for each.

    OpenVINO (2025.4 to 2026.4) on one thread loses the error that shapes don't fit: it gives the answer of the request
    before, or crashes.
    """

    def __init__(self, model: Any, places: Sequence[int]) -> None:
        """model: `ov.Model`, which belongs to the check alone; its sizes are changed. places: its inputs to check."""
        self._model = model
        self._places = places
        self._known: set[Shapes] = set()

    def __call__(self, shapes: Shapes) -> None:
        """Raise ValueError for shapes that the graph can't run."""
        if shapes in self._known:
            return
        try:
            self._model.reshape({place: list(shape) for place, shape in zip(self._places, shapes, strict=True)})
        except RuntimeError as exc:  # The one class that OpenVINO raises.
            raise ValueError(f"shapes don't fit the model: {openvino_cause(exc)}") from exc
        if len(self._known) >= _MOST_KNOWN:
            self._known.clear()
        self._known.add(shapes)


def needs_check(model: Any, compiled: Any) -> bool:
    """Return whether requests can bring shapes that don't fit, and OpenVINO would overlook it."""
    return bool(model.is_dynamic()) and _threads(compiled) == 1


def _threads(compiled: Any) -> int:
    try:
        return int(compiled.get_property("INFERENCE_NUM_THREADS"))
    except RuntimeError:  # Devices without a setting of threads.
        return 0
