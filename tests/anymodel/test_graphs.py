"""The generator: its graphs run, they differ, and they can show what they are for."""

from __future__ import annotations

import functools
import itertools
from pathlib import Path

import numpy as np
import pytest
from tests.anymodel import checking, graphs, row_wise
from tests.anymodel.callers import Case

from headrace.contracts import PackageError

#: Steps after which there are other rows, or none, so that no package can claim that they are independent.
CHANGE_THE_ROWS = {"gram", "filtered", "found", "doubled", "pooled", "flattened", "longest_of_all"}


@functools.cache
def _many() -> list[Case]:
    return [graphs.seeded(seed) for seed in range(2000)]


def test_a_seed_gives_the_same_model_every_time() -> None:
    assert [graphs.seeded(seed).model for seed in range(20)] == [graphs.seeded(seed).model for seed in range(20)]


def test_every_generated_model_runs_for_one_request_alone() -> None:
    assert all(graphs.runs(graphs.seeded(seed)) for seed in range(100, 200))


def test_every_step_occurs_in_generated_models() -> None:
    used = {step for case in _many() for step in case.steps}
    assert used >= {step.__name__ for step in (*row_wise.STEPS, *graphs.MIXING_STEPS)}


@pytest.mark.parametrize(
    "step", [step.__name__ for step in graphs.MIXING_STEPS if step.__name__ not in CHANGE_THE_ROWS]
)
def test_models_whose_rows_meet_would_be_answered_wrongly_in_batches(step: str, tmp_path: Path) -> None:
    """Served in batches against all advice, such models show faults: the property can fail."""
    mixed = (case for case in _many() if step in case.steps and isinstance(case.rows, str))
    assert any(_fails_in_batches(case, tmp_path) for case in itertools.islice(mixed, 8))


def _fails_in_batches(case: Case, folder: Path) -> bool:
    """Return whether callers of a model get wrong answers if it is said to have independent rows."""
    try:
        package = checking.added(case, folder, independent_rows=True)
    except PackageError:
        return False
    return bool(checking.faults(package, case, np.random.default_rng(0), rounds=20))
