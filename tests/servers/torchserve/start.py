"""TorchServe 0.12 on this machine's Java, with models of a handler of these tests."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Final

from tests.servers.environments import ensure
from tests.servers.process import ModelServer, free_port, get

MODELS: Final = ("affine", "whole", "text", "slow")

#: How each is loaded: calls are gathered into batches by the server.
_LOADED: Final = {
    "defaultVersion": True,
    "minWorkers": 1,
    "maxWorkers": 1,
    "batchSize": 32,
    "maxBatchDelay": 2,
    "responseTimeout": 120,
}


def torchserve(folder: Path, protocol: str = "") -> ModelServer:
    """Return a TorchServe. protocol: "oip" makes its gRPC port speak the Open Inference Protocol, not its own."""
    environment = ensure("torchserve")
    store = folder / "store"
    store.mkdir()
    for name in MODELS:
        _write_archive(store / f"{name}.mar", name)
    http, grpc, *others = (free_port() for _ in range(5))
    settings = {
        "inference_address": f"http://127.0.0.1:{http}",
        "management_address": f"http://127.0.0.1:{others[0]}",
        "metrics_address": f"http://127.0.0.1:{others[1]}",
        "grpc_inference_address": "127.0.0.1",
        "grpc_inference_port": str(grpc),
        "grpc_management_address": "127.0.0.1",
        "grpc_management_port": str(others[2]),
        "models": json.dumps({name: {"1.0": _LOADED | {"marName": f"{name}.mar"}} for name in MODELS}),
        "disable_system_metrics": "true",
        "vmargs": "-Xmx512m",
    }
    (folder / "config.properties").write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
    command = [str(environment / "bin/torchserve"), "--start", "--foreground", "--disable-token-auth", "--ncs"]
    command += ["--ts-config", str(folder / "config.properties"), "--model-store", str(store), "--models", "all"]
    return ModelServer(
        "torchserve",
        folder,
        command,
        {"http": f"http://127.0.0.1:{http}", "grpc": f"grpc://127.0.0.1:{grpc}"},
        lambda: all(_has_worker(others[0], name) for name in MODELS),
        {
            "PATH": f"{environment / 'bin'}:/usr/bin:/bin",
            # The program keeps the id of its one process here, and logs and metrics in the working folder.
            "TMPDIR": str(folder),
            "OMP_NUM_THREADS": "1",
            **({"TS_OPEN_INFERENCE_PROTOCOL": protocol} if protocol else {}),
        },
    )


def _write_archive(path: Path, name: str) -> None:
    model = {"modelName": name, "handler": "served.py", "modelVersion": "1.0"}
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(Path(__file__).with_name("served.py"), "served.py")
        archive.writestr("MAR-INF/MANIFEST.json", json.dumps({"runtime": "python", "model": model}))


def _has_worker(management: int, name: str) -> bool:
    """Return whether a model can be called; `/ping` says that all is well while models load."""
    described = get(f"http://127.0.0.1:{management}/models/{name}")
    return described is not None and [each["status"] for each in json.loads(described)[0]["workers"]] == ["READY"]
