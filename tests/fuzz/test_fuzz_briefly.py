"""A few thousand fuzzed inputs with every test run, always the same ones; `make fuzz` runs a million others."""

from __future__ import annotations

import pytest
from tests.fuzz.blind import fuzz
from tests.fuzz.targets import TARGETS

INPUTS = 8_000


@pytest.mark.parametrize("name", TARGETS)
def test_malformed_input_breaks_no_promise(name: str) -> None:
    target = TARGETS[name]
    parts = sum(each.share for each in TARGETS.values())
    fuzz(target, INPUTS * target.share // parts, seed=1)
