"""`headrace flower`: where it listens and what it tells of that."""

from __future__ import annotations

import pytest

from headrace.cli.stack.flower import MAX_TASKS, flower_environment, flower_url, is_open

BROKER = "redis://h:1/2"


def test_flower_listens_on_this_machine_unless_told_otherwise() -> None:
    assert flower_environment(BROKER, 5555, {"FLOWER_ADDRESS": "0.0.0.0"})["FLOWER_ADDRESS"] == "127.0.0.1"
    assert flower_environment(BROKER, 5555, {}, address="0.0.0.0")["FLOWER_ADDRESS"] == "0.0.0.0"


def test_flower_keeps_a_bounded_number_of_tasks_and_the_user_may_choose_it() -> None:
    assert flower_environment(BROKER, 5555, {})["FLOWER_MAX_TASKS"] == str(MAX_TASKS)
    assert flower_environment(BROKER, 5555, {"FLOWER_MAX_TASKS": "7"})["FLOWER_MAX_TASKS"] == "7"


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:5555"),
        ("0.0.0.0", "http://127.0.0.1:5555"),
        ("::", "http://[::1]:5555"),
        ("10.1.2.3", "http://10.1.2.3:5555"),
        ("localhost", "http://localhost:5555"),
    ],
)
def test_the_url_that_is_named_opens_in_a_browser_of_this_machine(address: str, url: str) -> None:
    assert flower_url(5555, address) == url


@pytest.mark.parametrize(
    ("address", "environment", "expected"),
    [
        ("127.0.0.1", {}, False),
        ("::1", {}, False),
        ("localhost", {}, False),
        ("0.0.0.0", {}, True),
        ("dashboard.example", {}, True),
        ("0.0.0.0", {"FLOWER_BASIC_AUTH": "a:b"}, False),
    ],
)
def test_others_reach_flower_only_where_it_listens_for_them_without_a_password(
    address: str, environment: dict[str, str], expected: bool
) -> None:
    assert is_open(address, environment) is expected
