"""Clients of Triton, KServe and MLServer work with the gateway as they are."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from tests.gateway.conftest import Running
from tests.servers.environments import ensure

pytestmark = [pytest.mark.modelservers, pytest.mark.timeout(600)]


@pytest.mark.parametrize(
    ("environment", "program"),
    [
        ("tritonclient", "tritonclient_http.py"),
        ("tritonclient", "tritonclient_grpc.py"),
        ("kserve", "kserve_rest.py"),
        ("kserve", "kserve_grpc.py"),
        ("mlserver", "mlserver_types.py"),
    ],
)
def test_a_foreign_client_gets_its_answers(gateway: Running, environment: str, program: str) -> None:
    address = gateway.grpc if "grpc" in program else gateway.url.removeprefix("http://")
    python = ensure(environment) / "bin" / "python"
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [python, Path(__file__).with_name(program), address],
        env=inherited,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
