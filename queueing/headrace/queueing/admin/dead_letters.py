"""Dead letters: messages that no worker could ever serve, kept for a person to look at."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import msgspec

from headrace.queueing.consumer.letter import DeadLetter
from headrace.queueing.keys import keys_of
from headrace.queueing.lua import scripts

if TYPE_CHECKING:
    from redis import Redis

#: Letters read in one round trip.
_PAGE: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class LetterFilter:
    """A choice of dead letters; fields that are None match all.

    reason: a part of the reason, in any case. older_s, newer_s: bounds of the age in seconds.
    """

    queue: str | None = None
    reason: str | None = None
    older_s: float | None = None
    newer_s: float | None = None

    def fits(self, letter: DeadLetter) -> bool:
        """Return whether a letter's reason matches; queue and age are left to the index."""
        return self.reason is None or self.reason.lower() in letter.reason.lower()


def find_letters(client: Redis, wanted: LetterFilter = LetterFilter()) -> Iterator[DeadLetter]:
    """Find dead letters, the youngest first."""
    keys = keys_of(client)
    index = keys.dead_index if wanted.queue is None else keys.dead_queue(wanted.queue)
    now = time.time()
    youngest = "+inf" if wanted.older_s is None else now - wanted.older_s
    oldest = "-inf" if wanted.newer_s is None else now - wanted.newer_s
    # All names first: letters that are dropped between two pages would shift the others.
    ids: list[bytes] = client.zrange(index, youngest, oldest, desc=True, byscore=True)  # type: ignore[assignment]
    for at in range(0, len(ids), _PAGE):
        found: list[bytes | None] = client.hmget(keys.dead_letters, ids[at : at + _PAGE])  # type: ignore[assignment]
        for raw in found:
            if raw is not None and wanted.fits(letter := msgspec.json.decode(raw, type=DeadLetter)):
                yield letter


def dead_letters(client: Redis, limit: int = 100) -> list[DeadLetter]:
    """Return the youngest dead letters, youngest first."""
    return [letter for letter, _ in zip(find_letters(client), range(limit), strict=False)]


def dead_letter(client: Redis, letter_id: str) -> DeadLetter | None:
    """Return one dead letter, or None when there is none of that id."""
    raw: bytes | None = client.hget(keys_of(client).dead_letters, letter_id)  # type: ignore[assignment]
    return None if raw is None else msgspec.json.decode(raw, type=DeadLetter)


def dead_message(client: Redis, letter_id: str) -> bytes | None:
    """Return a dead-lettered message as it was in its queue, or None when there is none of that id."""
    return client.hget(keys_of(client).dead_messages, letter_id)  # type: ignore[return-value]


def retry_letter(client: Redis, letter_id: str) -> bool:
    """Put a dead-lettered message back on its queue, as if it had never been delivered; False when it is not there.

    Its row, if it has one, must be gone before: the first terminal row of a request wins.
    """
    return bool(scripts.script(client, scripts.TAKE_LETTER)(args=[letter_id, 1]))


def drop_letter(client: Redis, letter_id: str) -> bool:
    """Remove a dead letter and its message for good; False when it is not there."""
    return bool(scripts.script(client, scripts.TAKE_LETTER)(args=[letter_id, 0]))
