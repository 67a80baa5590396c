"""What is broken, and when: a pure function of the seed.

Faults are placed by progress (requests answered so far), not by the clock, so that a slow machine meets the same
faults at the same places as a fast one.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from tests.chaos.kill_points import OF_REDELIVERED, POINTS


class Kind(StrEnum):
    """The faults, as the report names them."""

    KILL = "worker: kill -9 at a random moment"
    KILL_AT = "worker: kill -9 between two steps"
    PAUSE = "worker: SIGSTOP longer than its lease"
    ROLL = "worker: SIGTERM, rolling restart of all"
    VALKEY_TERM = "Valkey: restart (SIGTERM)"
    VALKEY_KILL = "Valkey: restart (SIGKILL)"
    VALKEY_CUT = "Valkey: every connection cut"
    VALKEY_CUT_REPLY = "Valkey: replies cut in the middle"
    VALKEY_STALL = "Valkey: silent for a while"
    VALKEY_REFUSE = "Valkey: connections refused for a while"
    VALKEY_FULL = "Valkey: maxmemory reached for a while"
    VALKEY_FULL_LONG = "Valkey: maxmemory reached for a minute"
    VALKEY_AWAY_LONG = "Valkey: away for a minute"
    POSTGRES_FAST = "Postgres: restart (fast)"
    POSTGRES_IMMEDIATE = "Postgres: restart (immediate)"
    POSTGRES_AWAY = "Postgres: away for some seconds"
    POSTGRES_AWAY_LONG = "Postgres: away for a minute"
    POSTGRES_CUT = "Postgres: every connection cut"
    POSTGRES_CUT_REPLY = "Postgres: replies cut in the middle"
    POSTGRES_STALL = "Postgres: silent for a while"
    POSTGRES_FULL = "Postgres: disk full, no table can grow"
    POSTGRES_WAL_FULL = "Postgres: disk full, no WAL can be written"
    VALKEY_FREEZE_REQUESTS = "Valkey: connections frozen for ever, requests"
    VALKEY_FREEZE_REPLIES = "Valkey: connections frozen for ever, replies"
    VALKEY_FREEZE = "Valkey: connections frozen for ever, both ways"
    VALKEY_VANISH = "Valkey: the host vanishes, old and new connections go unanswered"
    VALKEY_READONLY = "Valkey: answers READONLY for a while"
    VALKEY_NOREPLICAS = "Valkey: answers NOREPLICAS for a while"
    VALKEY_MISCONF = "Valkey: answers MISCONF for a while"
    VALKEY_BUSY = "Valkey: answers BUSY for a while"
    VALKEY_NOPERM = "Valkey: answers NOPERM for a while"
    VALKEY_LOADING = "Valkey: restart (SIGKILL), answers LOADING for a while"
    POSTGRES_FREEZE_REQUESTS = "Postgres: connections frozen for ever, requests"
    POSTGRES_FREEZE_REPLIES = "Postgres: connections frozen for ever, replies"
    POSTGRES_FREEZE = "Postgres: connections frozen for ever, both ways"
    POSTGRES_VANISH = "Postgres: the host vanishes, old and new connections go unanswered"
    POSTGRES_CONNECTIONS = "Postgres: all connections taken for a while"
    POSTGRES_READ_ONLY = "Postgres: read-only for a while"
    POSTGRES_LOCKED = "Postgres: the table is locked for longer than anybody waits"
    CLOCK_STEP = "worker: its clock is an hour off for a while"
    PLAIN_KILL = "plain worker: kill -9 at a random moment"
    PLAIN_PAUSE = "plain worker: SIGSTOP longer than its lease"
    PLAIN_TERM = "plain worker: SIGTERM"
    CLIENT_DIES = "client: asks for large outputs, reads nothing and is killed"


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault. at: requests answered when it is due. worker: slot it hits. point, nth: for KILL_AT.

    fraction: where in its range a duration lies, 0 to 1; `faults.py` knows the ranges.
    """

    at: int
    kind: Kind
    worker: int = 0
    point: str = ""
    nth: int = 0
    fraction: float = 0.0


#: One kill of a worker for so many requests; three of four are at an exact point.
REQUESTS_PER_KILL: Final = 4_500

#: Other faults: one of each kind for so many requests, and at least one.
REQUESTS_PER_OTHER: Final = 250_000

#: These last up to a minute, so they happen once, and only in a run of at least LONG_RUN requests.
LONG: Final = (Kind.VALKEY_FULL_LONG, Kind.VALKEY_AWAY_LONG, Kind.POSTGRES_AWAY_LONG, Kind.CLIENT_DIES)
LONG_RUN: Final = 50_000

#: Connections are frozen here, while new ones work: nothing is away, so what they hold up counts as a recovery.
FREEZES: Final = frozenset(kind for kind in Kind if "frozen for ever" in kind)

#: No fault before and behind these parts of the run: it begins whole, and what is done last is still seen to end.
FIRST, LAST = 0.02, 0.97

#: An armed point is passed at most so often before the worker dies there.
MAX_NTH: Final = 4


def counts_for(requests: int) -> dict[Kind, int]:
    """Give how often each fault happens in so many requests: every point, and every kind, LONG in a long run only."""
    kills = max(requests // REQUESTS_PER_KILL, len(POINTS) + 2)
    at_points = max(len(POINTS), kills * 3 // 4)
    counts = dict.fromkeys(Kind, max(1, requests // REQUESTS_PER_OTHER))
    counts.update(dict.fromkeys(LONG, int(requests >= LONG_RUN)))
    counts[Kind.KILL_AT] = at_points
    counts[Kind.KILL] = kills - at_points
    return counts


def make_schedule(seed: int, requests: int, workers: int, counts: Mapping[Kind, int] | None = None) -> list[Fault]:
    """Spread faults over a run, in the order in which they are due. The same arguments give the same schedule."""
    rng = random.Random(seed)
    faults: list[Fault] = []
    for kind, count in (counts or counts_for(requests)).items():
        points = _shuffled_points(rng, count) if kind is Kind.KILL_AT else [""] * count
        for index, point in enumerate(points):
            part = FIRST + (LAST - FIRST) * (index + rng.random()) / count
            faults.append(
                Fault(
                    at=int(part * requests),
                    kind=kind,
                    worker=rng.randrange(workers),
                    point=point,
                    nth=rng.randint(1, 1 if point in OF_REDELIVERED else MAX_NTH) if point else 0,
                    fraction=rng.random(),
                )
            )
    return sorted(faults, key=lambda fault: fault.at)


def _shuffled_points(rng: random.Random, count: int) -> list[str]:
    """Every point equally often, in random order."""
    points = [POINTS[index % len(POINTS)] for index in range(count)]
    rng.shuffle(points)
    return points
