"""A broker that loses its data loses no durable request, and nobody waits in vain for a plain one."""

from __future__ import annotations

import subprocess
import sys

import pytest
from tests.chaos.check import StoredRow
from tests.chaos.cluster import ROOT
from tests.chaos.ledger import Accepted, Expect
from tests.chaos.losses.check import Told, judge_losses

from headrace.contracts.ids import row_id

DURABLE = Accepted("d", Expect.DURABLE, 1)
PLAIN = Accepted("p", Expect.MAYBE_LOST, 2)
LOST = Accepted("l", Expect.MAYBE_LOST, 3)
ROWS = [StoredRow(str(row_id(name)), "succeeded", y, "", 1, 0.0) for name, y in (("d", 3), ("p", 5))]
TOLD = {"d": Told("3", 0.0), "p": Told("5", 0.0), "l": Told("RequestLost", 102.0)}
ALL = [DURABLE, PLAIN, LOST]


#: Clients are told within the lease on an idle machine. A client that learns nothing of the loss waits for 120 s.
LATE_S = 30


@pytest.mark.timeout(300)
def test_flushes_and_stale_replicas_lose_no_durable_request_and_nobody_waits_in_vain() -> None:
    command = [sys.executable, "-m", "tests.chaos.losses.run", "--losses", "2", "--lease", "2", "--timeout", "2"]
    command += ["--late", str(LATE_S)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_ends_as_it_should_is_clean() -> None:
    verdict = judge_losses(ALL, TOLD, ROWS, [50.0, 100.0], 2.0)
    assert verdict.problems == []
    assert (verdict.durable, verdict.plain, verdict.told_lost, verdict.slowest_s) == (1, 2, 1, 2.0)


@pytest.mark.parametrize(
    ("told", "rows"),
    [
        ({**TOLD, "d": Told("RequestLost", 102.0)}, ROWS),  # a durable request is never lost
        (TOLD, ROWS[1:]),  # nor without a row
        ({"p": TOLD["p"], "l": TOLD["l"]}, ROWS),  # and answers
        ({**TOLD, "p": Told("RequestLost", 102.0)}, ROWS),  # what has a row isn't lost
        ({**TOLD, "l": Told("RequestLost", 200.0)}, ROWS),  # told too late
        ({"d": TOLD["d"], "p": TOLD["p"]}, ROWS),  # or never
        ({**TOLD, "p": Told("7", 0.0)}, ROWS),
    ],
)
def test_whatever_else_happens_is_a_problem(told: dict[str, Told], rows: list[StoredRow]) -> None:
    assert judge_losses(ALL, told, rows, [100.0], 2.0).problems


def test_a_run_in_which_nothing_was_lost_proves_nothing() -> None:
    assert judge_losses([DURABLE, PLAIN], TOLD, ROWS, [100.0], 2.0).problems
