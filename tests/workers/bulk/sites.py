"""A place where bulk jobs run for real: servers, models, workers, inputs and outputs."""

from __future__ import annotations

import itertools
import json
import subprocess
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from onnx import helper
from tests.plugin import write_plugin
from tests.workers.bulk.gated_runtime import GatedRuntime
from tests.workers.conftest import running_worker, write_package

from headrace.contracts import Settings
from headrace.contracts.package.manifest import sha256_of
from headrace.producers import Client
from headrace.producers.jobs.job import Job

#: Rows of a batch of the gated model.
GATED_ROWS: Final = 8

#: Rows of a shard of the gated model, but for the last one. Two shards run at once, and the later one may begin first:
#: if it is held there, the other one waits as well.
SHARD_ROWS: Final = 128

#: Longer than any job here takes, unless something is lost.
END_S: Final = 60.0


class Site:
    """One set of servers, a folder of models, and a folder of data below which workers read and write."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings = settings
        self.folder = folder
        self.data = folder / "data"
        self.plugin = folder / "plugin"
        self.data.mkdir()
        self._names = (f"{number:03}" for number in itertools.count())
        write_models(settings.models)
        write_gated(settings.models, self.plugin)

    def worker(self, name: str = "", **environment: str) -> AbstractContextManager[subprocess.Popen[bytes]]:
        """A worker; its log is `worker.log`. environment: more of it."""
        ours = {
            "PYTHONPATH": str(self.plugin),
            "GATED_FOLDER": str(self.plugin),
            "HEADRACE_BULK_ROOTS": str(self.data),
            "HEADRACE_BULK_SCRATCH": str(self.folder / "scratch"),
        }
        return running_worker(self.settings, self.folder / "worker.log", name=name, **{**ours, **environment})

    def client(self) -> Client:
        return Client(self.settings)

    def new(self, suffix: str = "") -> Path:
        """A path below the data folder that nothing else has."""
        return self.data / f"{next(self._names)}{suffix}"

    def rows(self, count: int, first: int = 1000) -> Path:
        """A Parquet file for the gated model: x counts from `first`, and so does id."""
        return self.values(range(first, first + count))

    def values(self, values: Sequence[float]) -> Path:
        """A Parquet file for the gated model with these values of x, and ids from 0."""
        table = pa.table({"id": pa.array(range(len(values))), "x": pa.array([float(v) for v in values], pa.float32())})
        path = self.new(".parquet")
        pq.write_table(table, path)
        return path

    def hold(self, from_value: float = 1) -> None:
        """Let no batch of the gated model begin whose first value is at least this."""
        (self.plugin / "hold").write_text(str(from_value))

    def let_go(self) -> None:
        (self.plugin / "hold").unlink(missing_ok=True)

    def cure(self) -> None:
        (self.plugin / "cured").touch()

    def reset(self) -> None:
        """Forget what was run and told."""
        for name in ("hold", "cured", "runs"):
            (self.plugin / name).unlink(missing_ok=True)

    def runs(self) -> list[list[float]]:
        """The rows of each run of the gated model, warm-ups left out."""
        path = self.plugin / "runs"
        lines = path.read_text().split() if path.exists() else []
        found = [[float(value) for value in line.split(",")] for line in lines]
        return [values for values in found if any(values)]

    def log(self) -> str:
        return (self.folder / "worker.log").read_text()


def write_models(root: Path) -> None:
    """`affine`: y = 3·x + 1 of four numbers; `picky`: y = 2·x, fails for negative x, and with it its batch."""
    write_package(
        root,
        "affine",
        [helper.make_node("Mul", ["x", "three"], ["m"]), helper.make_node("Add", ["m", "one"], ["y"])],
        {"x": ("FP32", (4,))},
        {"y": ("FP32", (4,))},
        [("three", np.float32(3)), ("one", np.float32(1))],
        extra="[batching]\nmax_rows = 64\n",
    )
    write_package(
        root,
        "picky",
        [
            helper.make_node("Min", ["x", "zero"], ["below"]),
            helper.make_node("Mul", ["below", "far"], ["index"]),
            helper.make_node("Gather", ["table", "index"], ["checked"]),
            helper.make_node("Add", ["x", "checked"], ["same"]),
            helper.make_node("Mul", ["same", "two"], ["y"]),
        ],
        {"x": ("INT64", (1,))},
        {"y": ("INT64", (1,))},
        [("zero", np.array([0])), ("far", np.array([1000])), ("table", np.array([0])), ("two", np.array([2]))],
        extra="[batching]\nmax_rows = 64\n",
    )


def write_gated(root: Path, plugin: Path) -> None:
    """The model `gated`, whose runtime is `gated_runtime.py`, as an entry point below `plugin`."""
    package = root / "gated" / "1"
    package.mkdir(parents=True)
    (package / "model.bin").write_bytes(b"anything")
    specs = "\n".join(
        f'[[{kind}]]\nname = "{name}"\ndatatype = "FP32"\nshape = [1]\nallow_nan = false'
        for kind, name in (("inputs", "x"), ("outputs", "y"))
    )
    (package / "model.toml").write_text(
        f'name = "gated"\nversion = "1"\nruntime = "gated"\nfile = "model.bin"\n'
        f'sha256 = "{sha256_of(package / "model.bin")}"\n{specs}\n[batching]\nmax_rows = {GATED_ROWS}\n'
    )
    write_plugin(plugin, GatedRuntime)


def output_of(job: Job) -> pa.Table:
    """The output folder of a job, as pyarrow reads it."""
    return pq.read_table(job.output)


def errors_of(job: Job) -> list[dict[str, Any]]:
    """The bad rows in the output folder."""
    folder = Path(job.output) / "_errors"
    return pq.read_table(folder).to_pylist() if folder.exists() else []


def manifest_of(job: Job) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((Path(job.output) / "_manifest.json").read_text())
    return found


def is_finished(job: Job) -> bool:
    return (Path(job.output) / "_SUCCESS").exists()


def parts_of(job: Job) -> list[str]:
    return sorted(path.name for path in Path(job.output).glob("part-*"))


def check_doubled(job: Job, values: Sequence[float], bad: Sequence[int] = ()) -> None:
    """Check that the output of the gated model holds each row once, but for the bad ones."""
    table = output_of(job)
    wanted = [(at, 2.0 * value) for at, value in enumerate(values) if at not in set(bad)]
    found = zip(table["id"].to_pylist(), table["y"].to_pylist(), strict=True)
    assert [(at, y[0] if isinstance(y, list) else y) for at, y in found] == wanted
    assert [each["row"] for each in errors_of(job)] == sorted(bad)
    counts = manifest_of(job)["rows"]
    assert counts == {"in": len(values), "ok": len(wanted), "bad": len(set(bad)), "skipped": 0}
    assert is_finished(job)
