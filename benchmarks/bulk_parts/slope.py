"""A runtime whose runs sleep a + b·rows seconds, as on a device of their own; it counts the rows that it ran."""

from __future__ import annotations

import json
import mmap
import os
import struct
import time
from pathlib import Path
from typing import Any

from headrace.contracts.package.manifest import sha256_of

#: Its name in `model.toml`, and the entry point that provides it.
NAME = "slope"
ENTRY_POINT = "slope = benchmarks.bulk_parts.slope:SlopeRuntime"

_COUNT = struct.Struct("<q")


class SlopeModel:
    """`y = 2x`. counts: a folder in which each process keeps how many rows it ran, so that a kill loses no count."""

    def __init__(self, fixed_s: float, row_s: float, counts: Path) -> None:
        self._fixed_s, self._row_s = fixed_s, row_s
        counts.mkdir(parents=True, exist_ok=True)
        with (counts / f"{os.getpid()}-{time.time_ns()}").open("w+b") as file:
            file.truncate(_COUNT.size)
            self._count = mmap.mmap(file.fileno(), _COUNT.size)
        self._rows = 0

    def infer(self, inputs: dict[str, Any]) -> dict[str, Any]:
        x = inputs["x"]
        time.sleep(self._fixed_s + self._row_s * len(x))
        self._rows += len(x)
        self._count[:] = _COUNT.pack(self._rows)
        return {"y": 2 * x[:, :1]}

    def close(self) -> None:
        self._count.close()


class SlopeRuntime:
    """Loads files of a, b and the folder of counts."""

    def __init__(self, device: str, threads: int) -> None:
        pass

    def load(self, package: Any) -> SlopeModel:
        wanted = json.loads(package.file.read_text())
        return SlopeModel(wanted["fixed_s"], wanted["row_s"], Path(wanted["counts"]))


def counted(counts: Path) -> int:
    """Return how many rows all processes ran."""
    return sum(_COUNT.unpack(file.read_bytes())[0] for file in counts.iterdir() if file.stat().st_size == _COUNT.size)


def write_model(
    root: Path, name: str, counts: Path, *, fixed_s: float, row_s: float, width: int = 1, max_rows: int = 64
) -> None:
    """Write a package. width: FP32 in a row of its input `x`."""
    folder = root / name / "1"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "model.json"
    file.write_text(json.dumps({"fixed_s": fixed_s, "row_s": row_s, "counts": str(counts)}))
    ports = [("inputs", "x", width), ("outputs", "y", 1)]
    (folder / "model.toml").write_text(
        f'name = "{name}"\nversion = "1"\nruntime = "{NAME}"\nfile = "{file.name}"\nsha256 = "{sha256_of(file)}"\n'
        + "".join(f'[[{kind}]]\nname = "{key}"\ndatatype = "FP32"\nshape = [{size}]\n' for kind, key, size in ports)
        + f"[batching]\nmax_rows = {max_rows}\n"
    )


def write_entry_point(folder: Path) -> Path:
    """Write what makes a process with this folder on its path find the runtime."""
    metadata = folder / "slope_runtime-0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: slope-runtime\nVersion: 0\n")
    (metadata / "entry_points.txt").write_text(f"[headrace.runtimes]\n{ENTRY_POINT}\n")
    return folder
