"""Callbacks of a search: progress, and the verdict on each trial."""

from __future__ import annotations

from typing import Protocol

from headrace.compression.search.trials import Trial, Verdict


class SearchCallbacks(Protocol):
    """The receiver of a search's events; called in its thread."""

    def started(self, recipe: str, done: int, known: int) -> None:
        """Handle the start of a recipe, or of another examination; `done` of the `known` ones are over."""
        ...

    def ended(self, trial: Trial, verdict: Verdict) -> None:
        """Handle the end of a recipe's trial."""
        ...

    def progress(self, done: int, of: int, what: str) -> None:
        """Handle the progress of a step."""
        ...


class NullCallbacks:
    """Callbacks that ignore all events."""

    def started(self, recipe: str, done: int, known: int) -> None:
        """Do nothing."""

    def ended(self, trial: Trial, verdict: Verdict) -> None:
        """Do nothing."""

    def progress(self, done: int, of: int, what: str) -> None:
        """Do nothing."""
