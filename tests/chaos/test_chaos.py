"""Nothing is lost, doubled or wrong, whatever dies: a short run of the harness, and its own parts."""

from __future__ import annotations

import random
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.chaos.check import StoredRow, judge, set_right
from tests.chaos.cluster import ROOT
from tests.chaos.kill_points import POINTS
from tests.chaos.ledger import Accepted, Expect
from tests.chaos.logs import most_warnings
from tests.chaos.refused import refused_id
from tests.chaos.report import Report
from tests.chaos.schedule import LONG, Kind, counts_for, make_schedule
from tests.chaos.worker_slot import Death

from headrace.contracts.ids import row_id

ACCEPTED = [
    Accepted("a", Expect.VALUE, 1),
    Accepted("b", Expect.FAILURE, 2),
    Accepted("c", Expect.MAYBE_CANCELLED, 3),
    Accepted("d", Expect.MAYBE_EXPIRED, 4),
]


def stored(request_id: str, *rest: Any) -> StoredRow:
    return StoredRow(str(row_id(request_id)), *rest)


ROWS = [
    stored("a", "succeeded", 3, "", 1, 0.0),
    stored("b", "failed", None, "InputRefused", 2, 0.0),
    stored("c", "cancelled", None, "Cancelled", 1, 0.0),
    stored("d", "succeeded", 9, "", 1, 0.0),
]
REFUSED = Accepted("r", Expect.REFUSED, 5)
ANSWERS = [("a", "3"), ("b", "InputRefused"), ("c", "Cancelled"), ("d", "9")]


@pytest.mark.timeout(600)
def test_no_accepted_request_is_lost_doubled_or_wrong_whatever_is_broken() -> None:
    """Every kind of fault and every point between two steps, at a fixed seed and a rate that leaves them time."""
    command = [sys.executable, "-m", "tests.chaos.run", "--requests", "4000", "--rate", "140", "--seed", "3"]
    done = subprocess.run(
        [*command, "--lease", "2", "--timeout", "2"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "PASSED" in done.stdout


def test_what_the_harness_started_ends_with_it_even_when_it_is_killed() -> None:
    command = [sys.executable, "-m", "tests.chaos.run", "--requests", "100000", "--rate", "100"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as harness:
        assert harness.stderr is not None
        assert "faults in" in harness.stderr.readline()
        children = psutil.Process(harness.pid).children(recursive=True)
        harness.kill()
    _, alive = psutil.wait_procs(children, timeout=60)
    assert len(children) >= 5
    assert alive == []


@given(st.integers(), st.integers(1, 3_000_000), st.integers(1, 8))
def test_a_schedule_is_a_function_of_its_seed_and_holds_every_fault_and_every_point(
    seed: int, requests: int, workers: int
) -> None:
    schedule = make_schedule(seed, requests, workers)
    assert schedule == make_schedule(seed, requests, workers)
    assert Counter(fault.kind for fault in schedule) == Counter(counts_for(requests))
    assert {fault.point for fault in schedule if fault.kind is Kind.KILL_AT} == set(POINTS)
    assert [fault.at for fault in schedule] == sorted(fault.at for fault in schedule)
    assert all(0 <= fault.at < requests and 0 <= fault.worker < workers for fault in schedule)


def test_a_million_requests_meet_what_was_promised() -> None:
    counts = counts_for(1_000_000)
    assert counts[Kind.KILL] + counts[Kind.KILL_AT] >= 200
    assert counts[Kind.VALKEY_TERM] + counts[Kind.VALKEY_KILL] >= 5
    assert counts[Kind.POSTGRES_FAST] + counts[Kind.POSTGRES_IMMEDIATE] >= 5
    assert [counts[kind] for kind in LONG] == [1] * len(LONG)


def test_a_recovery_does_not_count_the_time_in_which_a_server_was_away() -> None:
    report = Report(1, seed=1, workers=3, lease_s=3.0, outages=[(100.0, 160.0), (150.0, 161.0), (80.0, 90.0)])
    report.verdict.finished_at = {"before": 99.0, "across": 165.0, "after": 172.0, "within": 130.0}
    report.add_deaths([Death(95.0, 0, "", [], {"before", "across", "within"}), Death(170.0, 1, "", [], {"after"})])
    assert sorted(report.recoveries_s) == [2.0, 4.0, 5.0, 9.0]


def test_what_ends_as_it_should_is_clean() -> None:
    verdict = judge(ACCEPTED, ANSWERS, ROWS)
    assert verdict.is_clean
    assert (verdict.accepted, verdict.rows, verdict.redelivered, verdict.without_value) == (4, 4, 1, 2)


def test_a_request_without_a_row_is_lost() -> None:
    assert len(judge(ACCEPTED, ANSWERS, ROWS[1:]).lost) == 1


def test_a_request_without_an_answer_is_noticed() -> None:
    assert len(judge(ACCEPTED, ANSWERS[1:], ROWS).unanswered) == 1


@pytest.mark.parametrize(
    "row",
    [
        stored("a", "succeeded", 5, "", 1, 0.0),
        stored("a", "failed", None, "InputRefused", 1, 0.0),
        stored("a", "cancelled", None, "Cancelled", 1, 0.0),
    ],
)
def test_a_row_that_is_not_the_models_answer_is_wrong(row: StoredRow) -> None:
    assert len(judge(ACCEPTED, ANSWERS, [row, *ROWS[1:]]).wrong) == 1


@pytest.mark.parametrize("answer", ["5", "Cancelled", "InputRefused"])
def test_an_answer_that_is_not_the_rows_is_wrong(answer: str) -> None:
    assert len(judge(ACCEPTED, [("a", answer), *ANSWERS[1:]], ROWS).wrong) == 1


def test_swapped_answers_are_wrong_both() -> None:
    swapped = [ROWS[0]._replace(y=9), *ROWS[1:3], ROWS[3]._replace(y=3)]
    assert len(judge(ACCEPTED, [("a", "9"), *ANSWERS[1:3], ("d", "3")], swapped).wrong) == 2


def test_a_second_row_a_second_answer_and_a_value_of_two_requests_are_doubled() -> None:
    assert len(judge(ACCEPTED, ANSWERS, [*ROWS, ROWS[0]]).doubled) == 1
    assert len(judge(ACCEPTED, [*ANSWERS, ("a", "5")], ROWS).doubled) == 1
    assert len(judge(ACCEPTED, ANSWERS, [*ROWS, stored("stranger", "succeeded", 3, "", 1, 0.0)]).doubled) == 1


def test_a_request_whose_row_is_refused_ends_as_a_failure_or_a_dead_letter_and_is_answered() -> None:
    failed = stored("r", "failed", None, "InferenceFailed", 1, 0.0)
    assert judge([REFUSED], [("r", "InferenceFailed")], [failed]).is_clean
    assert judge([REFUSED], [("r", "InferenceFailed")], [], {"r"}).is_clean
    assert len(judge([REFUSED], [("r", "InferenceFailed")], []).lost) == 1
    assert len(judge([REFUSED], [], [], {"r"}).unanswered) == 1
    assert len(judge([REFUSED], [("r", "Cancelled")], [failed]).wrong) == 1
    assert len(judge([REFUSED], [("r", "11")], [], {"r"}).wrong) == 1


def test_a_request_that_nobody_reads_needs_its_row_but_no_answer() -> None:
    unread = Accepted("u", Expect.UNREAD, 2)
    assert judge([unread], [], [stored("u", "succeeded", 5, "", 1, 0.0)]).is_clean
    assert len(judge([unread], [], [stored("u", "succeeded", 7, "", 1, 0.0)]).wrong) == 1
    assert len(judge([unread], [], []).lost) == 1


@pytest.mark.parametrize("off_s", [-3600.0, 0.0, 3600.0])
def test_the_times_of_a_worker_with_a_wrong_clock_are_set_right(off_s: float) -> None:
    for finished_at in (1000.0, 1001.0, 3000.0, 4500.0):
        assert set_right(finished_at + off_s, 1000.0) == finished_at


@given(st.randoms(use_true_random=False), st.text("abc/1", min_size=1))
def test_an_id_whose_row_is_refused_fits_a_request(rng: random.Random, name: str) -> None:
    assert len(refused_id(rng, name)) <= 255
    assert row_id(refused_id(rng, name)).version in {5, 7}


def test_ordinary_tasks_that_never_ran_are_told() -> None:
    report = Report(0, seed=1, workers=1, lease_s=1.0, tasks_sent={1, 2}, tasks_ran={2, 3})
    assert [line for line in report.faults_found() if "ordinary" in line] == [
        "1 ordinary tasks were lost, number 1 for one"
    ]


def test_a_flood_of_warnings_is_seen_but_not_that_each_failing_request_has_its_line(tmp_path: Path) -> None:
    lines = [f"[2026-01-01 10:00:{second:02},500: WARNING/MainProcess] store away" for second in (0, 8, 10, 12, 30)]
    wanted = ["[2026-01-01 10:00:30,500: ERROR/MainProcess] inference failed: request=a model=b 1"] * 5
    (tmp_path / "worker.log").write_text("\n".join([*lines, *wanted, "headrace: Postgres can't be reached"]))
    assert most_warnings([tmp_path / "worker.log"]) == 3
