"""The event loop of a worker, as the parts see it that call back into the main thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Hub(Protocol):
    """kombu's hub."""

    def call_soon(self, callback: Callable[[], None]) -> object:
        """Run a function in the next turn of the loop."""
        ...

    def call_later(self, delay: float, callback: Callable[[], None]) -> object:
        """Run a function after some seconds."""
        ...


class EventLoop:
    """Runs functions on the main thread, and makes the transport claim. Any thread may call.

    call_soon: runs a function in the next turn of the loop. call_later: runs one after some seconds.
    """

    def __init__(self, hub: Hub) -> None:
        """There is no consumer yet."""
        self.call_soon = hub.call_soon
        self.call_later = hub.call_later
        self._claim_soon: Callable[[], None] | None = None

    def claim_by(self, claim_soon: Callable[[], None] | None) -> None:
        """Set how the present consumer is made to claim; None while there is no consumer."""
        self._claim_soon = claim_soon

    def claim_soon(self) -> None:
        """Make the consumer claim at once, if there is one."""
        claim_soon = self._claim_soon
        if claim_soon is not None:
            claim_soon()
