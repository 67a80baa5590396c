"""The verdict: every accepted request against its row, its answer and the model. Pure; `read_rows` reads the table."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import psycopg
from tests.chaos.faults.disk import FILLER
from tests.chaos.faults.spans import CLOCK_OFF_S
from tests.chaos.ledger import Accepted, Expect
from tests.chaos.models import answer_to

from headrace.contracts import decode_tensors
from headrace.contracts.ids import row_id

#: Problems of one sort that are shown; the counts are of all.
SHOWN: Final = 5

_ROWS: Final = """
    SELECT id::text, state, (outputs->'y'->0->>0)::bigint, coalesce(error->>'type', ''), attempts,
           extract(epoch FROM finished_at)::float8, blob
    FROM predictions WHERE model <> %s
"""

#: How a request that has no value must end: state of the row, and error of row and handle.
_WITHOUT_VALUE: Final = {
    Expect.FAILURE: ("failed", "InputRefused"),
    Expect.MAYBE_CANCELLED: ("cancelled", "Cancelled"),
    Expect.MAYBE_EXPIRED: ("expired", "DeadlineExceeded"),
}


class StoredRow(NamedTuple):
    """What the check needs of a row. id: of the row. y: None without outputs. finished_at: seconds since 1970."""

    id: str
    state: str
    y: int | None
    error: str
    attempts: int
    finished_at: float


@dataclass
class Verdict:
    """What was found. Every list must be empty."""

    accepted: int = 0
    rows: int = 0
    redelivered: int = 0
    without_value: int = 0
    refused: int = 0
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    unanswered: list[str] = field(default_factory=list)
    finished_at: dict[str, float] = field(default_factory=dict)

    @property
    def is_clean(self) -> bool:
        """Whether nothing is wrong."""
        return not (self.lost or self.doubled or self.wrong or self.unanswered)

    def problems(self) -> Iterator[str]:
        """Say what is wrong, some of each sort."""
        for sort in ("lost", "doubled", "wrong", "unanswered"):
            found: list[str] = getattr(self, sort)
            yield from (f"{sort}: {line}" for line in found[:SHOWN])
            if len(found) > SHOWN:
                yield f"{sort}: … and {len(found) - SHOWN} more"


def read_rows(database_url: str, began_at: float) -> Iterator[StoredRow]:
    """Read every row of the table. began_at: of the run, in seconds since 1970; set right by it are wrong clocks."""
    with psycopg.connect(database_url) as connection, connection.cursor("chaos_rows") as cursor:
        cursor.itersize = 500  # some rows take 600 kB
        for row in cursor.execute(_ROWS, [FILLER]):
            *fields, blob = row
            if blob is not None:
                fields[2] = int(decode_tensors(blob)["y"].flat[0])
            row = StoredRow(*fields)
            yield row._replace(finished_at=set_right(row.finished_at, began_at))


def set_right(finished_at: float, began_at: float) -> float:
    """Return when a row was finished by the right clock; its worker's may have been off by CLOCK_OFF_S.

    A run is shorter than that, so only one of the three times lies within it.
    """
    return finished_at - math.floor((finished_at - began_at) / CLOCK_OFF_S) * CLOCK_OFF_S


def judge(
    accepted: Iterable[Accepted],
    answered: Iterable[tuple[str, str]],
    rows: Iterable[StoredRow],
    dead: Collection[str] = (),
) -> Verdict:
    """Compare what was accepted with what was stored and answered. dead: the ids that ended as dead letters."""
    verdict = Verdict()
    stored = _by_id(rows, verdict)
    answers = _answers_by_id(answered, verdict)
    for request in accepted:
        verdict.accepted += 1
        row, answer = stored.get(str(row_id(request.id))), answers.get(request.id)
        if request.expect is Expect.REFUSED:
            _judge_refused(request, row, answer, dead, verdict)
            continue
        if row is None:
            verdict.lost.append(f"{request.id} has no row; its handle gave {answer}")
            continue
        verdict.finished_at[request.id] = row.finished_at
        if request.expect is Expect.UNREAD:
            answer = str(row.y)
        if answer is None:
            verdict.unanswered.append(f"{request.id} is {row.state}, but its handle gave nothing")
        elif (fault := _mistake(request, row, answer)) is not None:
            verdict.wrong.append(f"{request.id}: {fault}")
        verdict.redelivered += row.attempts > 1
        verdict.without_value += row.y is None
    return verdict


def _judge_refused(
    request: Accepted, row: StoredRow | None, answer: str | None, dead: Collection[str], verdict: Verdict
) -> None:
    """See whether a request whose row is refused ended as a failure, or as a dead letter, and its client heard it."""
    verdict.refused += 1
    if row is None and request.id not in dead:
        verdict.lost.append(f"{request.id}, whose row is refused, is no dead letter; its handle gave {answer}")
    elif answer is None:
        verdict.unanswered.append(f"{request.id}, whose row is refused, has ended, but its handle gave nothing")
    elif row is not None and (row.state != "failed" or row.error != answer):
        verdict.wrong.append(f"{request.id}: its row is {row.state} {row.error}; its handle gave {answer}")
    elif answer == str(answer_to(request.x)):
        verdict.wrong.append(f"{request.id}: its handle gave a value that is stored nowhere")


def _by_id(rows: Iterable[StoredRow], verdict: Verdict) -> dict[str, StoredRow]:
    """Index the rows. Inputs are unique, so a value that is there twice belongs to a request that ran as two."""
    stored: dict[str, StoredRow] = {}
    values: dict[int, str] = {}
    for row in rows:
        verdict.rows += 1
        if row.id in stored:
            verdict.doubled.append(f"{row.id} has two rows")
        stored[row.id] = row
        if row.y is not None and values.setdefault(row.y, row.id) != row.id:
            verdict.doubled.append(f"{row.id} and {values[row.y]} have the same value {row.y}")
    return stored


def _answers_by_id(answered: Iterable[tuple[str, str]], verdict: Verdict) -> dict[str, str]:
    answers: dict[str, str] = {}
    for request_id, answer in answered:
        if answers.setdefault(request_id, answer) != answer:
            verdict.doubled.append(f"{request_id} was answered {answers[request_id]} and {answer}")
    return answers


def _mistake(request: Accepted, row: StoredRow, answer: str) -> str | None:
    """Say what is wrong with the end of a request, if anything is."""
    value = answer_to(request.x)
    if request.expect is not Expect.FAILURE and row.state == "succeeded":
        if row.y != value:
            return f"the row has {row.y} for {request.x}"
        return None if answer == str(value) else f"the handle gave {answer}, the row has {row.y}"
    wanted = _WITHOUT_VALUE.get(request.expect)
    if wanted is None or (row.state, row.error) != wanted:
        return f"{request.expect} was expected, but the row is {row.state} {row.error}".rstrip()
    return None if answer == row.error else f"the handle gave {answer}, the row is {row.state}"
