"""The record of a dead letter: written when a message is dead-lettered, read by people and tools."""

from __future__ import annotations

import time
from collections.abc import Iterable

import msgspec

from headrace.contracts.ids import new_id
from headrace.queueing.lists import Lists, queue_list


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """The record of a dead-lettered message.

    step: the priority step of the list it came from. list_key: that list, where its app names lists in a way of its
    own. history: what happened before, oldest first. buried_at: when it was dead-lettered, in seconds since 1970.
    """

    id: str
    queue: str
    step: int
    reason: str
    history: list[str]
    buried_at: float
    list_key: str = ""


def write_letter(tag: str, lists: Lists, reason: str, history: Iterable[str]) -> DeadLetter:
    """Return the letter about a held message, with a fresh id. tag, reason, history: of `dead_letter`."""
    came_from = tag.partition(":")[2]
    queue, step = lists.split(came_from)
    return DeadLetter(
        id=new_id(),
        queue=queue,
        step=step,
        list_key="" if came_from == queue_list(queue, step) else came_from,
        reason=reason,
        history=list(history),
        buried_at=time.time(),
    )
