"""From a server to an answer in Postgres by the command line, for every server that describes its models."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.servers.conftest import Running

from headrace.contracts.settings import Settings
from headrace.producers import Client
from headrace.testing import BackgroundWorker


def headrace(*words: str) -> Any:
    """Run a command; return what it prints as JSON."""
    command = [sys.executable, "-m", "headrace.cli", *words, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("protocol", ["grpc", "http"])
@pytest.mark.parametrize("name", ["triton", "tfserving", "mlserver", "kserve"])
def test_a_model_on_a_server_is_added_checked_and_served(
    running: Running, headrace_settings: Settings, headrace_models: Path, name: str, protocol: str
) -> None:
    server = running(name)
    models = ("--models", str(headrace_models))
    headrace("models", "add", "--server", server.addresses[protocol], "--remote-name", "affine", *models)
    checked = headrace("models", "check", "affine", *models)
    assert [output["name"] for output in checked["answer"]["outputs"]] == ["y"]
    shown = headrace("models", "show", "affine", *models)
    assert shown["name"] == "affine"
    with (
        BackgroundWorker(headrace_settings, headrace_settings.home / "worker.log"),
        Client(headrace_settings) as client,
    ):
        x = np.arange(40, dtype=np.float32).reshape(10, 4)
        handles = client.submit_many("affine", {"x": x})
        answers = np.concatenate([handle.result(timeout_s=90)["y"] for handle in handles])
    np.testing.assert_array_equal(answers, x * 2 + 1)
