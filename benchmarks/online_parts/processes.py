"""Processes the benchmark starts, and what their whole trees have used: CPU seconds and resident memory."""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import psutil

#: Where `online_parts` is importable from.
BENCHMARKS = Path(__file__).resolve().parents[1]


def environment(extra: Mapping[str, str]) -> dict[str, str]:
    """Give the environment of a child: ours, without settings that would change a side, and `extra`."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HEADRACE_", "CELERY_"))}
    single = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    path = os.pathsep.join([str(BENCHMARKS), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**kept, **single, "PYTHONPATH": path, **extra}


def code_of(checkout: Path) -> dict[str, str]:
    """Return what makes a child import headrace from a checkout rather than from where it is installed."""
    rooms = sorted(str(portion.parent) for portion in checkout.glob("*/headrace"))
    return {"PYTHONPATH": os.pathsep.join([str(BENCHMARKS), str(entry_points_of(checkout)), *rooms])}


@functools.cache
def entry_points_of(checkout: Path) -> Path:
    """Return a folder that, first on the path, makes a checkout's own entry points those of headrace.

    Python reads the entry points of an installed package from its metadata, and takes the first that it finds.
    """
    folder = Path(tempfile.mkdtemp(prefix="headrace-entry-points-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    pyproject = checkout / "pyproject.toml"
    if pyproject.is_file():
        groups = tomllib.loads(pyproject.read_text("utf-8"))["project"]["entry-points"]
        lines = [
            line
            for group, points in groups.items()
            for line in (f"[{group}]", *(f"{name} = {value}" for name, value in points.items()))
        ]
        metadata = folder / "headrace-0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: headrace\nVersion: 0\n", "utf-8")
        (metadata / "entry_points.txt").write_text("\n".join(lines) + "\n", "utf-8")
    return folder


@contextlib.contextmanager
def running(command: Sequence[str], env: Mapping[str, str], log: Path) -> Iterator[psutil.Process]:
    """Run `python COMMAND...` with its output in `log`; kill it and its children at the end."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, *command], env=environment(env), stdout=output, stderr=output, stdin=subprocess.DEVNULL
        )
    try:
        yield psutil.Process(process.pid)
    finally:
        end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill a child and all its descendants, the root first so that nothing is started anew.

    A measured run ends with every result stored; waiting for graceful ends would double the time of a benchmark.
    """
    tree = tree_of(process.pid)
    process.kill()
    for descendant in tree[1:]:
        with contextlib.suppress(psutil.NoSuchProcess):
            descendant.kill()
    process.wait()
    psutil.wait_procs(tree[1:], timeout=10)


def tree_of(pid: int) -> list[psutil.Process]:
    """List a process and all that descend from it; empty when it has ended."""
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def cpu_seconds(pid: int) -> float:
    """Sum the user and system time of a tree, with that of children that have ended."""
    total = 0.0
    for process in tree_of(pid):
        with contextlib.suppress(psutil.NoSuchProcess):
            total += sum(process.cpu_times()[:4])
    return total


def machine_cpu_seconds() -> float:
    """Sum the busy time of all CPUs, whoever used it; what a hypervisor took counts as busy."""
    times = psutil.cpu_times()
    return sum(getattr(times, kind, 0.0) for kind in ("user", "nice", "system", "irq", "softirq", "steal"))


def resident_mb(pid: int) -> float:
    """Sum the resident memory of a tree, in MB (10^6 bytes)."""
    total = 0
    for process in tree_of(pid):
        with contextlib.suppress(psutil.NoSuchProcess):
            total += process.memory_info().rss
    return total / 1e6
