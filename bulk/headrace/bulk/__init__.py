"""Bulk scoring: reading inputs, preparing rows for a model, writing outputs, and running a shard of a job."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headrace.bulk.scoring.scorer import scorer

__all__ = ["scorer"]


def __getattr__(name: str) -> object:
    """Load what users call when they do: it brings pyarrow, which producers and workers may be without."""
    if name == "scorer":
        from headrace.bulk.scoring.scorer import scorer

        return scorer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
