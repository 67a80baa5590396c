"""MLServer 1.7 with models of a runtime of these tests."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tests.servers.environments import ensure
from tests.servers.process import ModelServer, all_answer, free_port

MODELS = ("affine", "whole", "text", "slow", "dense", "heavy", "deep")


def mlserver(folder: Path) -> ModelServer:
    """Return an MLServer that serves the models in one process; it batches all but `slow` of numbers itself, too."""
    environment = ensure("mlserver")
    http, grpc, metrics = free_port(), free_port(), free_port()
    settings = {
        "debug": False,
        "host": "127.0.0.1",
        "http_port": http,
        "grpc_port": grpc,
        "metrics_port": metrics,
        "parallel_workers": 0,
        "metrics_dir": str(folder),
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    shutil.copy(Path(__file__).with_name("served.py"), folder)
    for name in MODELS:
        (folder / name).mkdir()
        model: dict[str, object] = {"name": name, "implementation": "served.Served", "parameters": {"version": "v1"}}
        if name in ("affine", "dense", "heavy", "deep"):
            model |= {"max_batch_size": 64, "max_batch_time": 0.001}
        (folder / name / "model-settings.json").write_text(json.dumps(model))
    return ModelServer(
        "mlserver",
        folder,
        [str(environment / "bin/mlserver"), "start", str(folder)],
        {"http": f"http://127.0.0.1:{http}", "grpc": f"grpc://127.0.0.1:{grpc}"},
        all_answer(f"http://127.0.0.1:{http}/v2/health/ready"),
        {"PYTHONPATH": str(folder), "PATH": f"{environment / 'bin'}:/usr/bin:/bin"},
    )
