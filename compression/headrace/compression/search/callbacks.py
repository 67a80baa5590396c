"""Who looks on while a search goes on."""

from __future__ import annotations

from typing import Protocol

from headrace.compression.search.trials import Attempt, Verdict


class Watcher(Protocol):
    """Sees a search go on."""

    def started(self, recipe: str, done: int, known: int) -> None:
        """Tell that a recipe is being made, or something else is looked into; `done` of the `known` ones are over."""
        ...

    def ended(self, attempt: Attempt, verdict: Verdict) -> None:
        """Tell what became of a recipe."""
        ...

    def progress(self, done: int, of: int, what: str) -> None:
        """Tell how far a step is."""
        ...


class Unwatched:
    """Shows nothing."""

    def started(self, recipe: str, done: int, known: int) -> None:
        """Do nothing."""

    def ended(self, attempt: Attempt, verdict: Verdict) -> None:
        """Do nothing."""

    def progress(self, done: int, of: int, what: str) -> None:
        """Do nothing."""
