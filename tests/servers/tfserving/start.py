"""The peer that stands in for TensorFlow Serving, with SavedModels that are made once."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any, Final

from tests.servers.environments import ROOT, ensure
from tests.servers.process import ModelServer, free_port, get

#: Model → what else its configuration says.
MODELS: Final[dict[str, dict[str, Any]]] = {
    "affine": {"version_labels": {"stable": 1, "canary": 2}, "batching": {"max_batch_size": 256}},
    "limited": {"batching": {"max_batch_size": 32, "allowed_batch_sizes": [1, 8, 32]}},
    "whole": {},
    "half": {},
    "brain": {},
    "text": {},
    "dense": {"batching": {"max_batch_size": 256}},
    "heavy": {"batching": {"max_batch_size": 256}},
    "deep": {"batching": {"max_batch_size": 256}},
    "pair": {},
    "scalar": {},
    "slow": {"delay_s": 1.0, "batching": {"max_batch_size": 4, "max_enqueued_batches": 2}},
}

#: What TensorFlow says on every start, and what it would look for.
QUIET: Final = {"TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}


def tfserving(folder: Path, as_content: bool = False, **models: dict[str, Any]) -> ModelServer:
    """Return a peer. as_content: answer with tensor_content. models: name → configuration, all of them by default."""
    python = str(ensure("tfserving") / "bin/python")
    base = saved_models(Path(python))
    described = [{"name": name, "base_path": str(base / name), **more} for name, more in (models or MODELS).items()]
    config = folder / "models.json"
    config.write_text(json.dumps({"models": described, "as_content": as_content}))
    grpc, http = free_port(), free_port()
    return ModelServer(
        "tfserving",
        folder,
        [python, "-m", "tests.servers.tfserving.peer", str(config), str(grpc), str(http)],
        {"http": f"http://127.0.0.1:{http}", "grpc": f"grpc://127.0.0.1:{grpc}"},
        lambda: all(get(f"http://127.0.0.1:{http}/v1/models/{each['name']}") for each in described),
        QUIET,
    )


def saved_models(python: Path) -> Path:
    """Return the folder of the SavedModels; making them takes TensorFlow some seconds."""
    script = Path(__file__).with_name("saved_models.py")
    folder = python.parents[1] / "saved-models" / hashlib.sha256(script.read_bytes()).hexdigest()[:16]
    if not (folder / "made").exists():
        folder.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, **QUIET}
        subprocess.run([python, "-m", "tests.servers.tfserving.saved_models", folder], env=environment, check=True)
        (folder / "made").touch()
    return folder
