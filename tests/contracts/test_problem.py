"""Problems in one line, whoever wrote them."""

from __future__ import annotations

import math

import msgspec
import pytest

from headrace.contracts.problem import Problem, in_one_line


def test_a_problem_is_a_line_with_its_time() -> None:
    assert str(Problem("no such model", 1.5)) == "no such model (since 1970-01-01 00:00:01 UTC)"


@pytest.mark.parametrize("since", [-1.0, 1e300, math.inf, math.nan])
def test_an_impossible_time_is_left_out(since: float) -> None:
    assert str(Problem("no such model", since)) == "no such model"


def test_no_server_writes_on_a_terminal_or_fills_it() -> None:
    assert str(Problem("a\nb\x1b[31m\tc\u202e", -1)) == "a b [31m c"
    assert len(in_one_line("ä" * 10_000)) == 400


def test_it_travels_as_it_is() -> None:
    problem = Problem("no such model", 1.5)
    assert msgspec.json.decode(msgspec.json.encode(problem), type=Problem) == problem
