"""What a caller wants, checked before anything is sent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from headrace.contracts.errors import InvalidRequest
from headrace.contracts.jobs import STORE
from headrace.producers.jobs.order import order_of

HERE = Path("/data")


def order(**options: Any) -> Any:
    return order_of("m", options.pop("inputs", "a.csv"), options.pop("output", ""), options, HERE)  # type: ignore[arg-type]


def test_the_same_call_from_another_folder_or_spelled_otherwise_is_the_same_job() -> None:
    one = order_of("m", ["a.csv", "./a.csv"], "out", {"keep": ["id"], "mapping": {"b": "y", "a": "x"}}, HERE)
    other = order_of("m", [Path("/data/a.csv")], "/data/out/", {"keep": ("id",), "mapping": {"a": "x", "b": "y"}}, HERE)
    assert one.spec.key() == other.spec.key()


def test_options_of_running_are_no_part_of_the_identity() -> None:
    assert order().spec.key() == order(priority=3, workers=2, name="n", max_errors=5, restart=True).spec.key()
    assert order().spec.key() != order(limit=5).spec.key()


def test_only_what_was_given_changes_a_job_that_is_there() -> None:
    assert order(priority=0, max_errors="1%", keep=["a"]).given == {"priority", "max_errors"}


def test_rows_of_the_store_are_apart_from_any_input() -> None:
    assert order(output=STORE).spec.output == STORE


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"inputs": []}, "no input"),
        ({"limit": -1}, "limit"),
        ({"format": "xml"}, "format"),
        ({"on_null": "drop"}, "on_null"),
        ({"truncate": "yes"}, "truncate"),
        ({"priority": 10}, "priority"),
        ({"weight": 0}, "weight"),
        ({"weight": float("nan")}, "weight"),
        ({"workers": -1}, "workers"),
        ({"max_errors": "a lot"}, "max_errors"),
        ({"keep": ["a", "a"]}, "kept twice"),
        ({"mapping": {"a": "x", "b": "x"}}, "mapped to the input 'x'"),
        ({"name": "n" * 101}, "name"),
        ({"keep": ["a\0"]}, "can't be stored"),
        ({"restart": True, "add_new": True}, "restart"),
        ({"restart": True, "keep_version": True}, "restart"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidRequest, match=reason):
        order(**options)
