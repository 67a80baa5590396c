"""Small real models, and real worker processes that serve them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
import onnx
import pytest
import redis
from numpy.typing import ArrayLike
from onnx import TensorProto, helper, numpy_helper
from pydantic import SecretStr
from tests.eventually import eventually

from headrace.contracts import Settings
from headrace.contracts.package.manifest import sha256_of
from headrace.producers import Client, Handle
from headrace.queueing import keys
from headrace.results_store import migrate

#: What `start_worker` gives: a call with the environment of a worker, which runs in the `with`.
StartWorker = Callable[..., AbstractContextManager["subprocess.Popen[bytes]"]]

#: Tensors of a package: name → (datatype, shape without rows).
Specs = Mapping[str, tuple[str, tuple[int, ...]]]

_KINDS = {"FP32": TensorProto.FLOAT, "INT64": TensorProto.INT64, "BYTES": TensorProto.STRING}


def write_package(
    root: Path,
    name: str,
    nodes: list[onnx.NodeProto],
    inputs: Specs,
    outputs: Specs,
    constants: Sequence[tuple[str, ArrayLike]] = (),
    version: str = "1",
    extra: str = "",
) -> Path:
    """Write `root/name/version` with an ONNX graph; inputs and outputs: name → (datatype, shape without rows)."""
    folder = root / name / version
    folder.mkdir(parents=True)

    def info(specs: Specs) -> list[onnx.ValueInfoProto]:
        return [
            helper.make_tensor_value_info(key, _KINDS[kind], ["rows", *(None if s == -1 else s for s in shape)])
            for key, (kind, shape) in specs.items()
        ]

    graph = helper.make_graph(
        nodes,
        name,
        info(inputs),
        info(outputs),
        [numpy_helper.from_array(np.asarray(value), key) for key, value in constants],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    onnx.save(model, folder / "model.onnx")

    def table(kind: str, specs: Specs) -> str:
        return "\n".join(
            f'[[{kind}]]\nname = "{key}"\ndatatype = "{datatype}"\nshape = {list(shape)}\nallow_nan = false'
            for key, (datatype, shape) in specs.items()
        )

    checksum = sha256_of(folder / "model.onnx")
    (folder / "model.toml").write_text(
        f'name = "{name}"\nversion = "{version}"\nruntime = "onnxruntime"\nfile = "model.onnx"\n'
        f'sha256 = "{checksum}"\n{table("inputs", inputs)}\n{table("outputs", outputs)}\n{extra}'
    )
    return folder


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """`double` (2·x), `lookup` (fails for 10 and more), `total` (any length), `echo` (strings), `slow` (row by row)."""
    root = tmp_path / "models"
    write_package(
        root,
        "double",
        [helper.make_node("Mul", ["x", "two"], ["y"])],
        {"x": ("FP32", (4,))},
        {"y": ("FP32", (4,))},
        [("two", np.float32(2))],
    )
    write_package(
        root,
        "lookup",
        [helper.make_node("Gather", ["table", "index"], ["y"])],
        {"index": ("INT64", ())},
        {"y": ("FP32", ())},
        [("table", np.arange(10, dtype=np.float32))],
    )
    write_package(
        root,
        "total",
        [helper.make_node("ReduceSum", ["x", "axes"], ["y"], keepdims=0)],
        {"x": ("FP32", (-1,))},
        {"y": ("FP32", ())},
        [("axes", np.array([1]))],
    )
    write_package(
        root,
        "echo",
        [helper.make_node("Identity", ["text"], ["same"])],
        {"text": ("BYTES", (1,))},
        {"same": ("BYTES", (1,))},
    )
    write_package(
        root,
        "slow",
        [
            helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
            helper.make_node("Add", ["matrix", "sum"], ["moved"]),
            helper.make_node("MatMul", ["moved", "matrix"], ["product"]),
            helper.make_node("ReduceMax", ["product"], ["largest"], keepdims=0),
            helper.make_node("Mul", ["largest", "zero"], ["nothing"]),
            helper.make_node("Add", ["x", "nothing"], ["y"]),
        ],
        {"x": ("FP32", (1,))},
        {"y": ("FP32", (1,))},
        [("matrix", np.ones((1200, 1200), np.float32)), ("zero", np.float32(0))],
        extra="[batching]\nmax_rows = 1\n",
    )
    return root


def worker_settings(models: Path, broker_url: str, database_url: str, home: Path) -> Settings:
    """Return settings whose lease lapses soon, for an empty database, which is migrated."""
    migrate(database_url)
    return Settings(
        broker_url=SecretStr(broker_url),
        database_url=SecretStr(database_url),
        models=models,
        home=home,
        lease_s=4.0,
        grace_s=10.0,
    )


@pytest.fixture
def settings(models: Path, broker_url: str, database_url: str, tmp_path: Path) -> Settings:
    return worker_settings(models, broker_url, database_url, tmp_path / "home")


def worker_environment(settings: Settings) -> dict[str, str]:
    return {
        **os.environ,
        "HEADRACE_BROKER_URL": settings.require_broker_url(),
        "HEADRACE_DATABASE_URL": settings.require_database_url(),
        "HEADRACE_MODELS": str(settings.models),
        "HEADRACE_HOME": str(settings.home),
        "HEADRACE_LEASE_S": str(settings.lease_s),
        "HEADRACE_GRACE_S": str(settings.grace_s),
        "HEADRACE_MAX_PAYLOAD_BYTES": str(settings.max_payload_bytes),
    }


@contextmanager
def running_worker(
    settings: Settings, log: Path, *, name: str = "", app: str = "headrace.workers.app", **environment: str
) -> Iterator[subprocess.Popen[bytes]]:
    """A worker as Celery's own command starts it. name: of its node, where there are several. app: its module."""
    command = [sys.executable, "-m", "celery", "-A", app, "worker", "--loglevel", "INFO"]
    command += ["-n", name] if name else []
    if "PYTHONPATH" in environment:  # besides the one of this process, which may hold what is tested
        environment["PYTHONPATH"] = os.pathsep.join(
            [environment["PYTHONPATH"], *filter(None, [os.getenv("PYTHONPATH")])]
        )
    with log.open("ab") as file:
        process = subprocess.Popen(
            command, env={**worker_environment(settings), **environment}, stdout=file, stderr=subprocess.STDOUT
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


@pytest.fixture
def start_worker(settings: Settings, tmp_path: Path) -> StartWorker:
    """`with start_worker() as process:` runs a worker; its log is `worker.log` in tmp_path."""
    return lambda **environment: running_worker(settings, tmp_path / "worker.log", **environment)


def command(settings: Settings, *words: str) -> subprocess.CompletedProcess[str]:
    """Run `headrace` with these settings."""
    return subprocess.run(
        [sys.executable, "-m", "headrace.cli", *words],
        env=worker_environment(settings),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def submit_and_see_it_run(client: Client, settings: Settings, rows: int) -> Handle:
    """Submit a request of many rows to `slow`, tens of milliseconds each, and return when a worker runs it."""
    handle = client.submit("slow", {"x": np.ones((rows, 1), np.float32)})
    with redis.Redis.from_url(settings.require_broker_url()) as broker:
        eventually(lambda: broker.keys(keys.PLAIN.running("*")), 60, "a batch that runs")
    return handle
