"""Background work: what the executor runs while no online request waits for it."""

from __future__ import annotations

from typing import Protocol


class BackgroundBatch(Protocol):
    """A batch that runs between online ones. seconds: how long it takes, as predicted; infinity if unknown."""

    @property
    def seconds(self) -> float:
        """The predicted seconds of the run."""
        ...

    def run(self) -> None:
        """Run it, on the executor's thread; never raises."""
        ...


class Background(Protocol):
    """A source of background work."""

    @property
    def ready(self) -> bool:
        """Whether `take` would return something; any thread."""
        ...

    def take(self, now: float) -> BackgroundBatch | None:
        """Return the next batch; called on the executor's thread."""
        ...

    def online(self, now: float, seconds: float) -> None:
        """Take note of an online batch that has ended; called on the executor's thread."""
        ...


class NoBackground:
    """A worker without bulk jobs."""

    ready = False

    def take(self, now: float) -> None:
        """Return nothing."""

    def online(self, now: float, seconds: float) -> None:
        """Pass over it."""
