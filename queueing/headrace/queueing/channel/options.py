"""Transport options that make no sense, refused in one line each when a channel opens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from kombu.utils.scheduling import cycle_by_name

from headrace.contracts.errors import ConfigurationError

#: kombu's name of the default order among queues: each comes first in turn.
ROUND_ROBIN: Final = "round_robin"

#: With a longer lease, what a dead worker held is as good as lost.
LONGEST_LEASE_S: Final = 86_400


def check_options(options: Mapping[str, Any]) -> None:
    """Look at a channel's transport options. Raises ConfigurationError."""
    if "lease_s" in options:
        _check_lease(options["lease_s"])
    if "queue_order_strategy" in options:
        _check_order(options["queue_order_strategy"])


def _check_lease(lease_s: Any) -> None:
    if isinstance(lease_s, bool) or not isinstance(lease_s, int | float) or not 0 < lease_s <= LONGEST_LEASE_S:
        raise ConfigurationError(
            f"the transport option lease_s is {lease_s!r}; it must be a number of seconds above 0, at most "
            f"{LONGEST_LEASE_S:,}, such as 60"
        )


def _check_order(strategy: Any) -> None:
    try:
        cycle = cycle_by_name(strategy)
    except (ImportError, AttributeError, ValueError):
        cycle = None
    if not all(callable(getattr(cycle, method, None)) for method in ("update", "consume", "rotate")):
        raise ConfigurationError(
            f"the transport option queue_order_strategy is {strategy!r}; it must be {ROUND_ROBIN!r}, 'sorted', "
            "'priority', or a class like those of kombu.utils.scheduling"
        )
