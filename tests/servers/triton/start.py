"""Triton 2.51 from the wheel of PyTriton, with a repository of models for its Python backend."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

from tests.servers.environments import ensure
from tests.servers.process import ModelServer, all_answer, free_port

#: Model → datatype, shape without rows, most rows of a batch.
MODELS: Final = {
    "affine": ("FP32", 4, 256),
    "limited": ("FP32", 4, 32),
    "whole": ("INT64", 3, 256),
    "half": ("FP16", 4, 256),
    "text": ("STRING", 1, 256),
    "slow": ("FP32", 4, 256),
    "dense": ("FP32", 256, 256),
}

_CONFIG: Final = """\
name: "{name}"
backend: "python"
max_batch_size: {rows}
input [{{ name: "x", data_type: TYPE_{kind}, dims: [{size}] }}]
output [{{ name: "y", data_type: TYPE_{kind}, dims: [{size}] }}]
instance_group [{{ count: 1, kind: KIND_CPU }}]
{batching}
"""


def triton(folder: Path, models: tuple[str, ...] = tuple(MODELS)) -> ModelServer:
    """Return a Triton that serves `models`, each batched by the server as well, except `slow`."""
    environment = ensure("triton")
    (packages,) = environment.glob("lib/python3*/site-packages")
    home = packages / "pytriton" / "tritonserver"
    python = packages.parent.name.removeprefix("python")
    shutil.copytree(home / "backends", folder / "backends")
    shutil.copy(home / "python_backend_stubs" / python / "triton_python_backend_stub", folder / "backends" / "python")
    repository = folder / "repository"
    for name in models:
        kind, size, rows = MODELS[name]
        batching = "" if name == "slow" else "dynamic_batching { max_queue_delay_microseconds: 500 }"
        (repository / name / "1").mkdir(parents=True)
        shutil.copy(Path(__file__).with_name("model.py"), repository / name / "1")
        config = _CONFIG.format(name=name, kind=kind, size=size, rows=rows, batching=batching)
        (repository / name / "config.pbtxt").write_text(config)
    http, grpc = free_port(), free_port()
    command = [
        str(home / "bin/tritonserver"),
        f"--model-repository={repository}",
        f"--backend-directory={folder / 'backends'}",
        "--backend-config=python,shm-default-byte-size=4194304",
        f"--backend-config=python,shm-region-prefix-name=headrace-{http}",
        "--allow-metrics=false",
        "--http-address=127.0.0.1",
        f"--http-port={http}",
        "--grpc-address=127.0.0.1",
        f"--grpc-port={grpc}",
    ]
    return ModelServer(
        "triton",
        folder,
        command,
        {"http": f"http://127.0.0.1:{http}", "grpc": f"grpc://127.0.0.1:{grpc}"},
        all_answer(f"http://127.0.0.1:{http}/v2/health/ready"),
        {"LD_LIBRARY_PATH": str(packages / "nvidia_pytriton.libs"), "PATH": f"{environment / 'bin'}:/usr/bin:/bin"},
    )
