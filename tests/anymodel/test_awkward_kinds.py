"""Awkward kinds of models are added as they are, and callers who share a worker get what each would get alone."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.anymodel import checking
from tests.anymodel.awkward import APART, FIXED, KINDS, MIXING
from tests.anymodel.kind import Kind
from tests.anymodel.serving import serve, served_model_of
from tests.workers.conftest import StartWorker

from headrace.contracts import HeadraceError, ModelPackage, Settings
from headrace.producers import Client

#: Callers of each kind at once; with one to three rows each they share a few runs.
CALLERS = 8

#: Kinds that are also sent through a worker with its servers: one of each way of serving.
WITH_SERVERS = [
    "mean_over_rows", "running_total", "boxes_above_threshold", "state_in_and_out", "rows_move", "scalar_parameter",
    "default_overridden", "nan_and_infinity", "bfloat_in_and_out", "words_to_numbers", "fixed_four", "no_rows",
    "classes_as_maps", "list_of_tensors", "decoder_without_past_yet",
]  # fmt: skip


def _added(kind: Kind, folder: Path) -> ModelPackage:
    options = dict(kind.options)
    if "sample" in options:
        np.savez(folder / "sample.npz", **options["sample"]())
        options["sample"] = folder / "sample.npz"
    return checking.add(kind.model(), folder, name=kind.name, **options)


@pytest.fixture(scope="module")
def package_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Kind], ModelPackage]:
    """Add a kind when it is first asked for."""
    return functools.cache(lambda kind: _added(kind, tmp_path_factory.mktemp(kind.name)))


def _sent(kind: Kind, seed: int = 0) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    return [kind.send(rng, kind.rows[i % len(kind.rows)]) for i in range(CALLERS)]


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_every_kind_runs_in_bare_onnx_runtime(kind: Kind) -> None:
    alone = kind.bare()
    for request in _sent(kind):
        assert alone.answer(request)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.same_always], ids=str)
def test_callers_get_what_each_would_get_alone(kind: Kind, package_of: Callable[[Kind], ModelPackage]) -> None:
    package = package_of(kind)
    alone = kind.bare()
    with served_model_of(package) as served:
        for seed in range(4):
            sent = _sent(kind, seed)
            assert checking.compared(alone, sent, serve(served, sent, np.random.default_rng(seed))) == []


@pytest.mark.parametrize("kind", [kind for kind in KINDS if not kind.same_always], ids=str)
def test_random_models_answer_every_caller_with_its_own_rows(
    kind: Kind, package_of: Callable[[Kind], ModelPackage]
) -> None:
    package = package_of(kind)
    sent = _sent(kind)
    with served_model_of(package) as served:
        for request, answer in zip(sent, serve(served, sent, np.random.default_rng(0)), strict=True):
            assert not isinstance(answer, HeadraceError)
            assert {name: array.shape for name, array in answer.items()} == {
                name: np.shape(array) for name, array in kind.bare().answer(request).items()
            }


@pytest.mark.parametrize("kind", [kind for kind in (*APART, *FIXED) if kind.together], ids=str)
def test_kinds_with_independent_rows_are_served_in_batches(
    kind: Kind, package_of: Callable[[Kind], ModelPackage]
) -> None:
    assert package_of(kind).manifest.batching.independent_rows


@pytest.mark.parametrize("kind", [kind for kind in APART if kind.together], ids=str)
def test_callers_who_agree_on_parameters_and_lengths_share_a_bucket(
    kind: Kind, package_of: Callable[[Kind], ModelPackage]
) -> None:
    request = _sent(kind)[0]
    with served_model_of(package_of(kind)) as served:
        first = served.check_inputs(request)
        again = served.check_inputs({name: array.copy() for name, array in request.items()})
        assert served.bucket_of(first) == served.bucket_of(again)
        assert served.independent_rows


@pytest.mark.parametrize("kind", [kind for kind in MIXING if kind.together is False], ids=str)
def test_kinds_whose_rows_meet_are_served_one_request_a_run(
    kind: Kind, package_of: Callable[[Kind], ModelPackage]
) -> None:
    assert not package_of(kind).manifest.batching.independent_rows


def test_a_worker_serves_kinds_of_every_sort(settings: Settings, start_worker: StartWorker, tmp_path: Path) -> None:
    kinds = [kind for kind in KINDS if kind.name in WITH_SERVERS]
    assert len(kinds) == len(WITH_SERVERS)
    for kind in kinds:
        _added(kind, tmp_path)
    with start_worker(), Client(settings) as client:
        for kind in kinds:
            sent = _sent(kind, seed=7) * 3
            handles = [client.submit(kind.name, request) for request in sent]
            answers = [handle.result(timeout_s=60) for handle in handles]
            assert checking.compared(kind.bare(), sent, answers) == [], kind.name
