"""The lists of a queue: how they are named, and in which order they are served."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from headrace.contracts.errors import ConfigurationError
from headrace.contracts.message import TASK_PREFIX

#: What kombu's Redis transport puts between a queue's name and the priority step of a list.
SEPARATOR: Final = "\x06\x16"

#: kombu's priority steps: priorities 0-2 share the list of step 0, 3-5 that of 3, 6-8 that of 6; 9 has its own.
PRIORITY_STEPS: Final = (0, 3, 6, 9)

#: The most urgent first, for queues of models, whatever the others do: 0 is the default, so a client that
#: needs to be quicker can ask for it.
MODEL_STEPS: Final = PRIORITY_STEPS[::-1]

#: Values of the transport option `priority_order`: as kombu's Redis transport serves lists, and as AMQP does.
LOWEST_FIRST: Final = "lowest_first"
HIGHEST_FIRST: Final = "highest_first"

#: Most steps: a claim looks at each list.
_MOST_STEPS: Final = 256


def is_model(queue: str) -> bool:
    """Return whether a queue holds requests to a model."""
    return queue.startswith(TASK_PREFIX)


def queue_list(queue: str, step: int) -> str:
    """Return the list of one priority step of a queue of a model, without prefix."""
    return f"{queue}{SEPARATOR}{step}" if step else queue


def priority_step(priority: int) -> int:
    """Return the priority step of a queue of a model that a priority of 0 to 9 belongs to."""
    return PRIORITY_STEPS[min(max(priority, 0), 9) // 3]


@dataclass(frozen=True, slots=True)
class Lists:
    """The lists of all queues. The fields apply to ordinary queues; those of models always have the defaults.

    separator, steps: kombu's `sep` and `priority_steps`. highest_first: the highest step is the most urgent.
    """

    separator: str = SEPARATOR
    steps: tuple[int, ...] = PRIORITY_STEPS
    highest_first: bool = False

    @property
    def in_order(self) -> tuple[int, ...]:
        """The steps of an ordinary queue, the most urgent first."""
        return self.steps[::-1] if self.highest_first else self.steps

    def steps_of(self, queue: str) -> tuple[int, ...]:
        """Return the steps of a queue, the most urgent first."""
        return MODEL_STEPS if is_model(queue) else self.in_order

    def list_of(self, queue: str, step: int) -> str:
        """Return the list that holds a queue's messages of one priority step, without prefix."""
        if not step:
            return queue
        return f"{queue}{SEPARATOR if is_model(queue) else self.separator}{step}"

    def step_for(self, queue: str, priority: int) -> int:
        """Return the step of a queue that a priority belongs to."""
        # As in kombu, a priority below the lowest step belongs to the highest.
        return priority_step(priority) if is_model(queue) else self.steps[bisect(self.steps, priority) - 1]

    def queue_of(self, list_key: str) -> str:
        """Return the queue that a list belongs to."""
        return self.split(list_key)[0]

    def split(self, list_key: str) -> tuple[str, int]:
        """Return the queue and the step of a list."""
        queue, found, step = list_key.rpartition(SEPARATOR if is_model(list_key) else self.separator)
        return (queue, int(step)) if found and step.isascii() and step.isdigit() else (list_key, 0)


#: The lists of apps that set no options for them.
DEFAULT_LISTS: Final = Lists()


def lists_of_options(separator: Any, steps: Any, order: Any) -> Lists:
    """Return the lists that transport options ask for. Raises ConfigurationError."""
    if not isinstance(separator, str) or not separator or separator[-1].isdigit():
        raise ConfigurationError(
            f"the transport option sep is {separator!r}; it must be text that doesn't end in a digit, such as ':'"
        )
    if (
        not isinstance(steps, Sequence)
        or not 0 < len(steps) <= _MOST_STEPS
        or not all(type(step) is int and 0 <= step <= 255 for step in steps)
        or any(low >= high for low, high in pairwise(steps))
    ):
        raise ConfigurationError(
            f"the transport option priority_steps is {steps!r}; it must be a list of whole numbers from 0 to 255 that "
            "rise, such as [0, 3, 6, 9]"
        )
    if order not in (LOWEST_FIRST, HIGHEST_FIRST):
        raise ConfigurationError(
            f"the transport option priority_order is {order!r}; it must be {LOWEST_FIRST!r}, as on redis://, or "
            f"{HIGHEST_FIRST!r}, as on AMQP"
        )
    return Lists(separator, tuple(steps), order == HIGHEST_FIRST)
