"""(m) The most memory of a worker, which plans and runs, over inputs of which each has 10 times the rows or files."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

from benchmarks.bulk_parts import digits
from benchmarks.bulk_parts.contest import say
from benchmarks.bulk_parts.memory_peak import PeakOf
from benchmarks.bulk_parts.slope import write_model
from benchmarks.bulk_parts.stage import Stage

TIMES = (1, 10, 100)

#: Files of a folder of the input; most file systems are slow with more.
FOLDER_FILES = 1_000


def tiny_files(data: Path, count: int) -> Path:
    """Write CSV files of one row."""
    folder = data / f"tiny-{count}"
    if folder.exists():
        return folder
    making = folder.with_suffix(".making")
    shutil.rmtree(making, ignore_errors=True)
    for number in range(count):
        within = making / f"{number // FOLDER_FILES:04}"
        if number % FOLDER_FILES == 0:
            within.mkdir(parents=True)
        (within / f"{number:06}.csv").write_text(f"x\n{number}\n")
    making.rename(folder)
    return folder


def run(stage: Stage, options: argparse.Namespace) -> dict[str, Any]:
    """Measure the peaks of jobs of one worker, each ten times as large as the one before."""
    digits.package(stage.models, options.digits_batch_rows)
    write_model(stage.models, "tiny", stage.data / "counts", fixed_s=0.0, row_s=0.0, max_rows=64)
    cases = {
        "rows": ("digits", [digits.rows(stage.data, options.growth_copies * times) for times in TIMES]),
        "files": ("tiny", [tiny_files(stage.data, max(options.tiny_files * times // TIMES[-1], 1)) for times in TIMES]),
    }
    return {name: _peaks(stage, options, name, model, sources) for name, (model, sources) in cases.items()}


def _peaks(stage: Stage, options: argparse.Namespace, name: str, model: str, sources: list[Path]) -> dict[str, Any]:
    peaks, seconds = {}, {}
    with stage.worker(**options.worker_env) as worker, stage.client() as client:
        # The first job loads libraries and fills the pools of allocators.
        stage.score(client, model, sources[0], f"growth-{name}-first")
        for times, source in zip(TIMES, sources, strict=True):
            with PeakOf(worker) as peak:
                ran = stage.score(client, model, source, f"growth-{name}-{times}")
            peaks[times], seconds[times] = peak.mib, ran.all_s
            say(f"{times} times the {name}: {peak.mib:.0f} MiB")
    return {"peaks_mib": peaks, "grown_mib": peaks[TIMES[-1]] - peaks[TIMES[0]], "seconds": seconds}
