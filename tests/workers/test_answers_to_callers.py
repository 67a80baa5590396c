"""What callers are told through a real worker: why a model failed, NaN as it is, and that nobody serves a model."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from celery import Celery
from onnx import helper
from tests.workers.conftest import StartWorker, write_package
from tests.workers.predictions import outputs_of, prediction_of

from headrace.contracts import (
    HeadraceError,
    InputRefused,
    OutputMismatch,
    ResultTimeout,
    Settings,
    SignatureMismatch,
    Tensors,
)
from headrace.producers import Client
from headrace.results_store.celery_backend import PredictionBackend

F = np.float32


@pytest.fixture
def models(models: Path) -> Path:
    write_package(
        models,
        "agree",
        [helper.make_node("Add", ["p", "q"], ["y"], name="add_lengths")],
        {"p": ("FP32", (-1,)), "q": ("FP32", (-1,))},
        {"y": ("FP32", (-1,))},
    )
    write_package(
        models,
        "flat",
        [helper.make_node("Reshape", ["x", "pairs"], ["y"], name="pair_up")],
        {"x": ("FP32", (-1,))},
        {"y": ("FP32", (-1, 2))},
        [("pairs", np.array([0, 2, 2]))],
    )
    folder = write_package(
        models, "liar", [helper.make_node("Relu", ["x"], ["y"])], {"x": ("FP32", (-1,))}, {"y": ("FP32", (-1,))}
    )
    manifest = folder / "model.toml"
    head, outputs = manifest.read_text().split("[[outputs]]")
    manifest.write_text(f"{head}[[outputs]]{outputs.replace('[-1]', '[3]')}")
    folder = write_package(
        models, "log", [helper.make_node("Log", ["x"], ["y"])], {"x": ("FP32", (3,))}, {"y": ("FP32", (3,))}
    )
    manifest = folder / "model.toml"
    manifest.write_text(manifest.read_text().replace("allow_nan = false", "allow_nan = true"))
    return models


@pytest.mark.parametrize(
    ("model", "inputs", "error", "words"),
    [
        (
            "agree",
            {"p": np.ones((1, 3), F), "q": np.ones((1, 4), F)},
            InputRefused,
            ["Add node 'add_lengths'", "3 by 4", "p FP32 [rows=1, 3]", "q FP32 [rows=1, 4]"],
        ),
        ("lookup", {"index": np.array([99])}, InputRefused, ["Gather node", "idx=99", "[-10,9]", "index INT64"]),
        ("flat", {"x": np.ones((1, 5), F)}, InputRefused, ["Reshape node 'pair_up'", "{1,5}", "{1,2,2}"]),
        ("liar", {"x": np.ones((1, 4), F)}, OutputMismatch, ["'y'", "[1, 4]", "[rows, 3]", "headrace models add"]),
    ],
    ids=["broadcast", "index", "reshape", "package"],
)
def test_a_caller_is_told_why_a_model_failed(
    settings: Settings,
    start_worker: StartWorker,
    model: str,
    inputs: Tensors,
    error: type[HeadraceError],
    words: list[str],
) -> None:
    with start_worker(), Client(settings) as client:
        handle = client.submit(model, inputs)
        with pytest.raises(error) as caught:
            handle.result(timeout_s=60)
        row = prediction_of(client, handle.id)
    assert row.error is not None
    assert type(row.error) is error
    assert row.error.message == caught.value.message
    assert caught.value.request_id == handle.id
    assert len(caught.value.message) <= 300
    for word in words:
        assert word in caught.value.message


def test_nan_and_infinity_go_in_and_out_by_every_way(settings: Settings, start_worker: StartWorker) -> None:
    lists = [[math.nan, 0.0, math.inf]]
    answer = [[math.nan, -math.inf, math.inf]]
    url, store = settings.require_broker_url(), "headrace+" + settings.require_database_url()
    with (
        start_worker(),
        Client(settings) as client,
        Celery("redis", broker=url, backend=url, set_as_current=False) as by_redis,
        Celery("store", broker=url, backend=store, set_as_current=False) as by_store,
    ):
        for app in (by_redis, by_store):
            sent = app.send_task("infer.log", queue="infer.log", kwargs={"inputs": {"x": lists}})
            assert repr(sent.get(timeout=30)) == repr({"y": answer})
            np.testing.assert_array_equal(outputs_of(client, sent.id)["y"], answer)
        for x in (lists, np.array(lists, F)):
            handle = client.submit("log", {"x": x})
            np.testing.assert_array_equal(handle.result(timeout_s=60)["y"], answer)
            assert repr(by_store.AsyncResult(handle.id).get(timeout=30)) == repr({"y": answer})
        for odd, words in ((math.nan, "'x' holds NaN or infinity, which this model forbids"), (None, "NoneType")):
            sent = by_redis.send_task("infer.double", queue="infer.double", kwargs={"inputs": {"x": [[odd, 1, 2, 3]]}})
            with pytest.raises(SignatureMismatch, match=words):
                sent.get(timeout=30)
        assert isinstance(by_store.backend, PredictionBackend)
        by_store.backend.close()


def test_a_model_is_served_while_its_worker_runs_and_a_caller_is_told_when_none_does(
    settings: Settings, start_worker: StartWorker
) -> None:
    x = {"x": np.ones((1, 4), F)}
    with Client(settings) as client:
        with start_worker():
            client.predict("double", x, timeout_s=60)
            assert client.is_served("double")
            assert client.is_served("lookup")
        assert not client.is_served("double")
        with pytest.raises(ResultTimeout, match="no worker serves model 'double' at present"):
            client.predict("double", x, timeout_s=0.1)
