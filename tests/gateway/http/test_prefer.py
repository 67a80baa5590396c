"""The header Prefer is read as RFC 7240 has it: what is unknown changes nothing."""

from __future__ import annotations

import pytest

from headrace.gateway.http.prefer import Preferences, read_prefer


@pytest.mark.parametrize(
    ("headers", "preferences", "applied"),
    [
        ([], Preferences(), ""),
        (["respond-async"], Preferences(True), "respond-async"),
        (["Respond-Async, wait=10"], Preferences(True, 10), "respond-async, wait=10"),
        (["respond-async", "wait=10"], Preferences(True, 10), "respond-async, wait=10"),
        (['wait = "5" ; x=y, respond-async'], Preferences(True, 5), "respond-async, wait=5"),
        (["wait=5, wait=9, respond-async"], Preferences(True, 5), "respond-async, wait=5"),
        (["wait=soon, respond-async"], Preferences(True), "respond-async"),
        (["wait=-1, respond-async=, return=minimal"], Preferences(True), "respond-async"),
        (["wait=7"], Preferences(False, 7), ""),
        ([",,;,="], Preferences(), ""),
    ],
)
def test_preferences(headers: list[str], preferences: Preferences, applied: str) -> None:
    found = read_prefer(headers)
    assert (found, found.applied) == (preferences, applied)
