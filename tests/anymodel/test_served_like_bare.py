"""Whatever a generated model does with its rows, every caller gets what bare ONNX Runtime gives to it alone."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from tests.anymodel import callers, checking, graphs
from tests.anymodel.bare import Bare
from tests.anymodel.callers import Case
from tests.anymodel.serving import Answer
from tests.workers.conftest import StartWorker

from headrace.contracts import HeadraceError, Settings
from headrace.producers import Client, Handle


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(case=graphs.cases(), seed=st.integers(0, 2**32 - 1))
def test_generated_models_answer_several_callers_as_bare_onnx_runtime_answers_each_alone(case: Case, seed: int) -> None:
    note(graphs.describe(case))
    with tempfile.TemporaryDirectory() as folder:
        package = checking.added(case, Path(folder))
        assert checking.faults(package, case, np.random.default_rng(seed), rounds=3) == []


@pytest.mark.parametrize("seed", range(30))
def test_models_whose_rows_never_meet_are_served_in_batches(seed: int, tmp_path: Path) -> None:
    independent = (case for case in map(graphs.seeded, range(seed * 1000, seed * 1000 + 1000)) if case.independent)
    case = next(case for case in independent if isinstance(case.rows, str))
    package = checking.added(case, tmp_path)
    assert package.manifest.batching.independent_rows, graphs.describe(case)


def test_a_worker_answers_callers_of_generated_models_as_bare_onnx_runtime_answers_each_alone(
    settings: Settings, start_worker: StartWorker, tmp_path: Path
) -> None:
    cases = [graphs.seeded(seed) for seed in range(50_000, 50_012)]
    for number, case in enumerate(cases):
        checking.added(case, tmp_path, name=f"generated{number}")
    rng = np.random.default_rng(5)
    with start_worker(), Client(settings) as client:
        for number, case in enumerate(cases):
            assert _served(client, f"generated{number}", case, rng) == [], graphs.describe(case)


def _served(client: Client, name: str, case: Case, rng: np.random.Generator) -> list[str]:
    """Let twenty callers ask at once, so that they share batches where they may."""
    sent = callers.requests(case, rng, 20)
    handles = [client.submit(name, request) for request in sent]
    return checking.compared(Bare(case.model), sent, [_answer(handle) for handle in handles])


def _answer(handle: Handle) -> Answer:
    try:
        return handle.result(timeout_s=60)
    except HeadraceError as exc:
        return exc
