"""The figures of a run, for people."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from typing import Any, TypeAlias

#: Packages whose versions belong to the figures.
PACKAGES = ("pyarrow", "onnxruntime", "numpy", "pillow", "tokenizers", "headrace")

Row: TypeAlias = tuple[str, str]


def machine() -> dict[str, Any]:
    """Describe where the figures come from."""
    return {
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "packages": {name: version(name) for name in PACKAGES},
    }


def table(found: Mapping[str, Any]) -> str:
    """Return a line for each figure."""
    rows = [(name, *row) for name in found if name in ROWS for row in ROWS[name](found[name])]
    return "\n".join(f"{name}  {title:<66}{value:>14}" for name, title, value in rows)


def _contest(found: Mapping[str, Any]) -> Iterator[Row]:
    for threads, figures in found.items():
        of = f" ({threads.replace('_', ' ')})"
        yield f"rows/s{of}", f"{figures['rows_per_s']:,.0f}"
        yield f"÷ bare loop, from the first claim to the last part{of}", f"{figures['ratio']:.3f}"
        yield f"÷ bare loop, end to end{of}", f"{figures['ratio_all']:.3f}"
        yield f"÷ bare loop, rows a CPU second{of}", f"{figures['cpu_ratio']:.3f}"


def _scaling(found: Mapping[str, Any]) -> Iterator[Row]:
    for processes, figures in found["processes"].items():
        yield f"rows/s, {processes} processes", f"{figures['rows_per_s']:,.0f}"
        if "speed_up" in figures:
            yield f"speed-up, {processes} processes", f"{figures['speed_up']:.2f}"


def _beside(found: Mapping[str, Any]) -> Iterator[Row]:
    for policy, figures in found.items():
        yield f"online p99 beside a job ÷ without ({policy})", f"{figures['p99_ratio']:.2f}"
        yield f"rows/s of the job ÷ without online requests ({policy})", f"{figures['bulk_share']:.2f}"


def _engines(found: Mapping[str, Any]) -> Iterator[Row]:
    for loop, of_threads in found.items():
        for threads, figures in of_threads.items():
            for name, ratios in figures.items():
                if name == "rounds":
                    continue
                title = f"{loop}, ÷ {name} ({threads.replace('_', ' ')})"
                yield f"{title}, running", "failed" if ratios is None else f"{ratios['ratio']:.2f}"
                yield f"{title}, with its start", "failed" if ratios is None else f"{ratios['ratio_all']:.2f}"


def _resuming(found: Mapping[str, Any]) -> Iterator[Row]:
    yield "bytes read without a kill ÷ input", f"{found['undisturbed']['bytes_read'] / found['input_bytes']:.2f}"
    for killed in found["killed"]:
        yield f"passes, killed at {killed['at']:.0%}", f"{killed['passes']:.4f}"
        yield f"bytes read twice, killed at {killed['at']:.0%}", f"{killed['read_twice']:.2%}"


def _growth(found: Mapping[str, Any]) -> Iterator[Row]:
    for name, figures in found.items():
        for times, mib in figures["peaks_mib"].items():
            yield f"peak of a worker, MiB, {times} times the {name}", f"{mib:.0f}"


#: The lines of each part.
ROWS: dict[str, Callable[[Mapping[str, Any]], Iterator[Row]]] = {
    "a": _contest,
    "b": _contest,
    "c": _contest,
    "d": _scaling,
    "e": _beside,
    "f": _engines,
    "g": _resuming,
    "m": _growth,
}
