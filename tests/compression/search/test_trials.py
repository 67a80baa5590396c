"""Verdicts on attempts, their order, and how they are kept."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.compression.fake_search_result import BYTES, a_measurement, an_attempt, an_evaluation

from headrace.compression.evaluation.max_drop import MaxDrop
from headrace.compression.search.trials import ORIGINAL, Trial, TrialLog, Verdict, judge, pareto, rank_paying

BOUND = MaxDrop.parse("0.5%")


def test_faster_and_within_the_bound_pays() -> None:
    assert judge(an_attempt("a"), BOUND, 64) == judge(an_attempt("b", 1.2, -0.01), BOUND, 64)
    assert judge(an_attempt("a"), BOUND, 64).pays


@pytest.mark.parametrize(
    ("attempt", "reason"),
    [
        (an_attempt("slower", 0.5), "not faster: 0.50 times as fast (0.48 to 0.52) at 64 rows"),
        (
            an_attempt("as fast", measurement=a_measurement(1.03, BYTES)),
            "not worth it: 1.03 times as fast, 1.00 times as small; --min-speedup 1.1 asks for more",
        ),
        (
            an_attempt("hardly smaller", measurement=a_measurement(1.0, int(BYTES / 1.09))),
            "not worth it: 1.00 times as fast, 1.09 times as small; --min-speedup 1.1 asks for more",
        ),
        (an_attempt("small but slower", 0.97), "not faster: 0.97 times as fast (0.95 to 0.99) at 64 rows"),
        (
            an_attempt("perhaps", measurement=a_measurement(1.5, BYTES, spread=0.5)),
            "not surely faster: 1.50 times as fast (1.00 to 2.00) at 64 rows; --seconds 5 measures for longer",
        ),
        (an_attempt("worse", 9.0, 0.02), "loses 2.00 pt on the selection rows; at most 0.5% is allowed"),
        (an_attempt("worse", test=an_evaluation(0.9, 0.08)), "loses 8.00 pt on the test rows"),
        (
            an_attempt("nan", selection=an_evaluation(0.98, 0.0, not_finite_rows=3)),
            "NaN or infinity in 3 of the selection rows",
        ),
        (an_attempt("fp16", status="failed", reason="it overflows", selection=None), "failed: it overflows"),
    ],
)
def test_anything_else_does_not(attempt: Trial, reason: str) -> None:
    verdict = judge(attempt, BOUND, 64)
    assert not verdict.pays
    assert verdict.reason.startswith(reason)


def test_few_test_rows_are_pointed_out() -> None:
    unsure = an_attempt("a", test=an_evaluation(0.98, 0.0, drop_low=-0.02, drop_high=0.02, rows=40))
    verdict = judge(unsure, BOUND, 64)
    assert verdict.pays
    assert verdict.reason == "pays; with 40 test rows the drop may yet be 2.00 pt"


def test_those_that_pay_are_ranked_by_their_time() -> None:
    attempts = [an_attempt("a", 1.5), an_attempt("b", 3.0), an_attempt("c", 9.0, 0.3), an_attempt("d", 2.0)]
    assert [attempt.recipe for attempt in rank_paying(attempts, BOUND, 64)] == ["b", "d", "a"]


def test_the_front_has_what_nothing_beats_and_the_original_among_them() -> None:
    small = an_attempt("small", 0.5, 0.001, measurement=a_measurement(0.5, 1000))
    beaten = an_attempt("beaten", 0.4, 0.002, measurement=a_measurement(0.4, 2000))
    nan = an_attempt("nan", 9.0, 0.0, selection=an_evaluation(0.98, 0.0, not_finite_rows=1))
    failed = an_attempt("failed", status="failed", selection=None, measurement=None)
    assert pareto([small, beaten, nan, failed], 64, BYTES) == ["small", ORIGINAL]
    better = an_attempt("better", 2.0, -0.001)
    assert pareto([small, better], 64, BYTES) == ["small", "better"]


def test_attempts_are_kept_whole_and_found_again(tmp_path: Path) -> None:
    log = TrialLog(tmp_path / "attempts")
    assert log.find("a+b") is None
    attempt = log.keep(an_attempt("a+b", test=an_evaluation(0.9, 0.0)))
    assert TrialLog(tmp_path / "attempts").find("a+b") == attempt
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["attempt.json"]
    (tmp_path / "attempts/a+b/attempt.json").write_text('{"recipe": "a+b"')
    assert log.find("a+b") is None
    (tmp_path / "attempts/a+b/attempt.json").write_text('{"recipe": "a+b", "status": "of another release"}')
    assert log.find("a+b") is None


def test_a_traceback_lies_beside_the_attempt(tmp_path: Path) -> None:
    file = TrialLog(tmp_path).explain("a/../b", "Traceback …")
    assert file.read_text("utf-8") == "Traceback …"
    assert file.parent.parent == tmp_path


def test_smaller_at_no_loss_of_speed_pays_and_says_why() -> None:
    verdict = judge(an_attempt("weights", measurement=a_measurement(0.99, BYTES // 2)), BOUND, 64)
    assert verdict == Verdict(True, "pays by its size: 2.0 times as small, no slower")


def test_faster_in_spite_of_a_larger_file_says_so() -> None:
    verdict = judge(an_attempt("unrolled", measurement=a_measurement(1.3, 3 * BYTES)), BOUND, 64)
    assert verdict == Verdict(True, "pays, though 3.0 times as large")


def test_the_least_speedup_is_the_users_to_say() -> None:
    attempt = an_attempt("graph", measurement=a_measurement(1.2, BYTES))
    assert judge(attempt, BOUND, 64).pays
    assert not judge(attempt, BOUND, 64, 1.5).pays
    assert judge(an_attempt("graph", measurement=a_measurement(1.05, BYTES)), BOUND, 64, 1.0).pays
    assert rank_paying([attempt], BOUND, 64, 1.5) == []
