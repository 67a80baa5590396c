"""Renews clients after a fork: the child gets an inbox and connections of its own before it runs anything else."""

from __future__ import annotations

import functools
import os
from typing import Final, Protocol
from weakref import WeakSet


class Renewable(Protocol):
    """An object that can start afresh in a forked child."""

    def renew(self) -> None:
        """Leave everything of the parent alone, and make it anew; must not block or raise."""


_alive: Final[WeakSet[Renewable]] = WeakSet()


def renew_after_fork(client: Renewable) -> None:
    """Call `client.renew()` in every forked child, for as long as the client lives."""
    _register()
    _alive.add(client)


@functools.cache
def _register() -> None:
    # A process can't take such a registration back, so there is one for all clients.
    os.register_at_fork(after_in_child=_renew_all)


def _renew_all() -> None:
    for client in list(_alive):
        client.renew()
