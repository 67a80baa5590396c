"""Packages of other runtimes, from the queue through a real worker to the row."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import psycopg
from tests.runtimes.conftest import packages  # noqa: F401  (a fixture)
from tests.runtimes.small_net import CLASSES
from tests.workers.conftest import StartWorker

from headrace.contracts import ModelPackage, Settings
from headrace.contracts.package.manifest import write_manifest
from headrace.producers.client import Client
from headrace.runtimes.base import find_runtime


def test_a_worker_serves_programs_of_torch_and_models_of_openvino(
    settings: Settings,
    start_worker: StartWorker,
    packages: Callable[[str], ModelPackage],  # noqa: F811
    tmp_path: Path,
) -> None:
    images = np.random.default_rng(0).normal(size=(20, 1, 8, 8)).astype(np.float32)
    expected = find_runtime("onnxruntime", "cpu", 1).load(packages("onnxruntime")).infer({"image": images})
    for runtime in ("torch", "openvino"):
        folder = settings.models / runtime / "1"
        shutil.copytree(packages(runtime).folder, folder)
        write_manifest(folder, msgspec.structs.replace(packages(runtime).manifest, name=runtime))
    with start_worker(), Client(settings) as client:
        for runtime in ("torch", "openvino"):
            handles = client.submit_many(runtime, {"image": images})
            results = [handle.result(timeout_s=60) for handle in handles]
            scores = np.concatenate([result["scores"] for result in results])
            assert scores.shape == (20, CLASSES)
            np.testing.assert_allclose(scores, expected["scores"], atol=1e-5)
            assert [int(result["label"][0]) for result in results] == expected["label"].tolist()
    with psycopg.connect(settings.require_database_url()) as connection:
        states = connection.execute(
            "SELECT model, state, count(*) FROM predictions GROUP BY 1, 2 ORDER BY 1"
        ).fetchall()
    assert states == [("openvino", "succeeded", 20), ("torch", "succeeded", 20)]
    assert "warm-up" not in (tmp_path / "worker.log").read_text()
