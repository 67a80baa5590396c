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
    "heavy": ("FP32", 256, 256),
    "deep": ("FP32", 256, 256),
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


REPOSITORY: Final = "repository"


def write_model(folder: Path, name: str, size: int = 0) -> None:
    """Write a model into the repository of a server's folder, in place of its last form. size: of rows."""
    kind, usual, rows = MODELS[name]
    batching = "" if name == "slow" else "dynamic_batching { max_queue_delay_microseconds: 500 }"
    config = _CONFIG.format(name=name, kind=kind, size=size or usual, rows=rows, batching=batching)
    version = folder / REPOSITORY / name / "1"
    version.mkdir(parents=True, exist_ok=True)
    shutil.copy(Path(__file__).with_name("model.py"), version)
    (version.parent / "config.pbtxt").write_text(config)


def triton(folder: Path, models: tuple[str, ...] = tuple(MODELS), options: tuple[str, ...] = ()) -> ModelServer:
    """Return a Triton that serves `models`, which batches all but `slow` itself, too. options: more of its own."""
    environment = ensure("triton")
    (packages,) = environment.glob("lib/python3*/site-packages")
    home = packages / "pytriton" / "tritonserver"
    python = packages.parent.name.removeprefix("python")
    shutil.copytree(home / "backends", folder / "backends")
    shutil.copy(home / "python_backend_stubs" / python / "triton_python_backend_stub", folder / "backends" / "python")
    for name in models:
        write_model(folder, name)
    http, grpc = free_port(), free_port()
    command = [
        str(home / "bin/tritonserver"),
        f"--model-repository={folder / REPOSITORY}",
        f"--backend-directory={folder / 'backends'}",
        "--backend-config=python,shm-default-byte-size=4194304",
        f"--backend-config=python,shm-region-prefix-name=headrace-{http}",
        "--model-control-mode=explicit",
        "--load-model=*",
        "--allow-metrics=false",
        "--http-address=127.0.0.1",
        f"--http-port={http}",
        "--grpc-address=127.0.0.1",
        f"--grpc-port={grpc}",
        *options,
    ]
    return ModelServer(
        "triton",
        folder,
        command,
        {"http": f"http://127.0.0.1:{http}", "grpc": f"grpc://127.0.0.1:{grpc}"},
        all_answer(f"http://127.0.0.1:{http}/v2/health/ready"),
        {"LD_LIBRARY_PATH": str(packages / "nvidia_pytriton.libs"), "PATH": f"{environment / 'bin'}:/usr/bin:/bin"},
    )
