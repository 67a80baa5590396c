"""The profile `tfserving` of docker-compose.yml: its command and health check, run here by the peer."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from examples.digits.data import DEMO_DATA, DIGITS
from tests.deploy.compose import ROOT, Service, compose, free_port, variables
from tests.servers.environments import ensure
from tests.servers.tfserving.start import QUIET

from headrace.runtimes.remote.base import Access, parse_address
from headrace.runtimes.remote.tfserving.grpc import TfServingGrpc

EXAMPLE = variables((ROOT / ".env.example").read_text())


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """The service, not started; `tensorflow_model_server` is the peer, which takes the same flags."""
    python = ensure("tfserving") / "bin" / "python"
    script = ROOT / "examples" / "digits" / "saved_model.py"
    output = tmp_path / "saved-models" / "digits" / "1"
    subprocess.run([python, script, "--output", output], env=dict(QUIET), check=True, capture_output=True)
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "tensorflow_model_server").write_text(
        f'#!/bin/sh\nexec {python} -m tests.servers.tfserving.peer "$@"\n'
    )
    (programs / "tensorflow_model_server").chmod(0o755)
    definition = compose(EXAMPLE | {"VALKEY_PASSWORD": "unused", "POSTGRES_PASSWORD": "unused"})["services"][
        "tfserving"
    ]
    ports = {"8500": str(free_port()), "8501": str(free_port()), "/saved-models": str(tmp_path / "saved-models")}
    running = Service("tfserving", definition, tmp_path, programs, ports, more_environment=dict(QUIET))
    try:
        yield running
    finally:
        running.kill()


def test_the_demos_digits_are_served_as_by_onnx_runtime(service: Service) -> None:
    assert service.check().returncode != 0, "a server that does not run must not pass its check"
    service.start()
    service.wait_until_healthy()
    with np.load(DIGITS) as file:
        images = (file["images"].astype(np.float32) / np.float32(16))[:, None]
    address = parse_address(f"grpc://127.0.0.1:{service.substitutes['8500']}")
    connection = TfServingGrpc(address, "digits", access=Access())
    found = connection.infer({"image": images}, ["label", "scores"], 60)
    connection.close()
    session = onnxruntime.InferenceSession(DEMO_DATA / "models" / "digits" / "1" / "model.onnx")
    label, scores = session.run(["label", "scores"], {"image": images})
    np.testing.assert_array_equal(found.outputs["label"], label)
    np.testing.assert_allclose(found.outputs["scores"], scores, atol=1e-5)
    assert found.version == "1"
