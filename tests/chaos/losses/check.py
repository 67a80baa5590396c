"""The verdict on a run with losses. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from tests.chaos.check import SHOWN, StoredRow
from tests.chaos.ledger import Accepted, Expect
from tests.chaos.models import answer_to

from headrace.contracts.ids import row_id

LOST: Final = "RequestLost"


class Told(NamedTuple):
    """What a handle gave: a value or the name of an error, and when, in seconds since 1970."""

    answer: str
    at: float


@dataclass
class LossVerdict:
    """What was found. problems must be empty. slowest_s: from a loss until whoever waited was told."""

    durable: int = 0
    plain: int = 0
    told_lost: int = 0
    slowest_s: float = 0.0
    problems: list[str] = field(default_factory=list)

    def text(self) -> Iterator[str]:
        """Write it in lines."""
        yield f"durable          {self.durable:,} accepted"
        yield f"plain            {self.plain:,} accepted, {self.told_lost:,} told that they were lost"
        yield f"slowest told     {self.slowest_s:.2f} s after the loss"
        yield "PASSED" if not self.problems else "FAILED"
        yield from (f"  {line}" for line in self.problems[: 4 * SHOWN])
        if len(self.problems) > 4 * SHOWN:
            yield f"  … and {len(self.problems) - 4 * SHOWN} more"


def judge_losses(
    accepted: Iterable[Accepted],
    told: Mapping[str, Told],
    rows: Iterable[StoredRow],
    losses: Sequence[float],
    limit_s: float,
) -> LossVerdict:
    """Compare what was accepted with what was stored and told.

    losses: when data was lost, in seconds since 1970. limit_s: from a loss until whoever waits is told.
    """
    verdict, stored = LossVerdict(), {row.id: row for row in rows}
    for request in accepted:
        row, heard = stored.get(str(row_id(request.id))), told.get(request.id)
        if request.expect is Expect.DURABLE:
            verdict.durable += 1
        else:
            verdict.plain += 1
        fault = _mistake(request, row, heard)
        if fault is not None:
            verdict.problems.append(f"{request.expect} {request.id}: {fault}")
        elif heard is not None and heard.answer == LOST:
            verdict.told_lost += 1
            after_s = heard.at - max((at for at in losses if at <= heard.at), default=0.0)
            verdict.slowest_s = max(verdict.slowest_s, after_s)
            if after_s > limit_s:
                verdict.problems.append(f"{request.id}: told only after {after_s:.1f} s that it was lost")
    if not verdict.told_lost:
        verdict.problems.append("nobody was told that anything was lost, so nothing was proven")
    return verdict


def _mistake(request: Accepted, row: StoredRow | None, heard: Told | None) -> str | None:
    value = str(answer_to(request.x))
    if heard is None:
        return f"its handle gave nothing; its row is {row.state if row else 'missing'}"
    if heard.answer == LOST and request.expect is not Expect.DURABLE:
        return None if row is None else f"told that it was lost, but its row is {row.state}"
    if row is None:
        return f"it has no row; its handle gave {heard.answer}"
    if heard.answer != value or str(row.y) != value:
        return f"{value} was expected; its row has {row.y} ({row.state}), its handle gave {heard.answer}"
    return None
