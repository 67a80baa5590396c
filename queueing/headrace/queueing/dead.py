"""Dead letters: messages that no worker could ever serve, kept for a person to look at."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from headrace.queueing import keys

if TYPE_CHECKING:
    from redis import Redis


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """What happened to a buried message.

    step: the priority step of the list it came from. history: what happened before, oldest first. buried_at: seconds
    since 1970.
    """

    id: str
    queue: str
    step: int
    reason: str
    history: list[str]
    buried_at: float


def dead_letters(client: Redis, limit: int = 100) -> list[DeadLetter]:
    """Give the youngest dead letters, youngest first."""
    ids: list[bytes] = client.zrange(keys.DEAD_INDEX, 0, limit - 1, desc=True)  # type: ignore[assignment]
    if not ids:
        return []
    found: list[bytes | None] = client.hmget(keys.DEAD_LETTERS, ids)  # type: ignore[assignment]
    return [msgspec.json.decode(raw, type=DeadLetter) for raw in found if raw is not None]


def dead_message(client: Redis, letter_id: str) -> bytes | None:
    """Give a buried message as it was in its queue, or None when there is none of that id."""
    return client.hget(keys.DEAD_MESSAGES, letter_id)  # type: ignore[return-value]
