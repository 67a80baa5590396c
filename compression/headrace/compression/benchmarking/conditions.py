"""The conditions of a measurement: processor, threads and versions."""

from __future__ import annotations

import datetime as dt
import os
import platform
from importlib.metadata import PackageNotFoundError, entry_points, version
from typing import Final

import msgspec

from headrace.contracts.package.processor import processor_name
from headrace.runtimes.base import ENTRY_POINT_GROUP

#: Runtime → the distributions that may bring its library. Of others, the version is that of the plug-in.
_LIBRARIES: Final = {
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
    "torch": ("torch",),
    "openvino": ("openvino",),
    "litert": ("ai-edge-litert",),
    "tvm": ("apache-tvm",),
}


class Conditions(msgspec.Struct, frozen=True):
    """Where, when and with what something was measured.

    cores: those this process may use. measured_at: in UTC. load: processes that wanted to run in the minute before, of
    this machine's load average; with more than there are cores, seconds are too long, while ratios hold.
    """

    processor: str
    cores: int
    device: str
    threads: tuple[int, ...]
    measured_at: str
    python: str
    load: float


def conditions_now(device: str, threads: tuple[int, ...]) -> Conditions:
    """Describe this machine, now. threads: each number of them that is measured with."""
    return Conditions(
        processor=processor_name(),
        cores=usable_cores(),
        device=device,
        threads=threads,
        measured_at=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        python=platform.python_version(),
        load=os.getloadavg()[0],
    )


def usable_cores() -> int:
    """Count the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def runtime_version(runtime: str) -> str:
    """Return the version of a runtime's library without loading it; empty when it isn't known."""
    for distribution in _LIBRARIES.get(runtime, ()):
        try:
            return version(distribution)
        except PackageNotFoundError:
            continue
    plugin = next(iter(entry_points(group=ENTRY_POINT_GROUP, name=runtime)), None)
    return plugin.dist.version if plugin is not None and plugin.dist is not None else ""
