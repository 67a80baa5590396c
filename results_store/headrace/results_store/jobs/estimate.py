"""The time that a job will still take, as a range."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import msgspec

#: A range is this many standard errors wide on either side.
_ERRORS_WIDE: Final = 2.0


class Ended(msgspec.Struct, frozen=True, array_like=True):
    """A shard that has ended. work: its size in any unit. seconds: how long a worker was busy with it."""

    work: float
    seconds: float


def remaining_s(work: float, ended: Sequence[Ended], workers: int) -> tuple[float, float] | None:
    """Return the least and most seconds that some work will take; None if nothing tells.

    work: in the unit of `ended`. workers: that share it evenly. The pace is that of the shards that ended, with twice
    its standard error on either side, more when these are few; the most also has one whole shard, since the last to
    begin may begin just before the end.
    """
    known = [shard for shard in ended if shard.work > 0 and shard.seconds > 0]
    total, seconds = math.fsum(shard.work for shard in known), math.fsum(shard.seconds for shard in known)
    if not known or workers < 1:
        return None
    if work <= 0:
        return 0.0, 0.0
    pace = seconds / total
    squares = math.fsum((shard.seconds - pace * shard.work) ** 2 for shard in known)
    count = len(known)
    error = math.sqrt(squares * count / max(1, count - 1)) / seconds
    margin = min(1.0, _ERRORS_WIDE * error + 1 / (2 * count))
    likely = work * pace / workers
    return likely * (1 - margin), likely * (1 + margin) + seconds / count
