"""Parameters: what they mean here, and which are refused."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.gateway.oip.errors import MalformedBody, NotSupported
from headrace.gateway.oip.parameters import Parameters, read_parameters


@pytest.mark.parametrize("given", [None, {}, {"timeout": 0, "priority": 0}, {"sequence_id": 0, "unknown": "any"}])
def test_nothing_and_zeros_are_the_defaults(given: dict[str, Any] | None) -> None:
    assert read_parameters(given) == Parameters(timeout_s=None, priority=0, binary=False, nonfinite="refuse")


def test_the_time_limit_is_in_microseconds() -> None:
    assert read_parameters({"timeout": 1_500_000}).timeout_s == 1.5


@pytest.mark.parametrize(("theirs", "ours"), [(0, 0), (1, 9), (2, 8), (9, 1), (10, 0), (2**63, 0)])
def test_priority_1_is_the_most_urgent_and_0_the_default(theirs: int, ours: int) -> None:
    assert read_parameters({"priority": theirs}).priority == ours


@pytest.mark.parametrize(
    "given",
    [{"timeout": True}, {"timeout": 10**18}, {"priority": -1}, {"binary_data_output": 0}, {"nonfinite": None}],
)
def test_a_value_that_makes_no_sense_is_refused_by_name(given: dict[str, Any]) -> None:
    with pytest.raises(MalformedBody) as caught:
        read_parameters(given)
    assert caught.value.field == f"parameters.{next(iter(given))}"


@pytest.mark.parametrize("name", ["sequence_id", "sequence_start", "sequence_end", "shared_memory_region"])
def test_what_would_change_the_meaning_is_refused(name: str) -> None:
    with pytest.raises(NotSupported, match=name):
        read_parameters({name: "on"})
