"""Many generated models, each served to several callers: `python tests/anymodel/bulk.py --graphs 2000 --seed 1`.

Prints how many were served wrongly (none may be), refused, alone and in batches, and how many were served alone
although their rows are independent by construction. `--show N` describes the first N of each that is wrong, refused or
alone without need.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
from tests.anymodel import checking, graphs
from tests.anymodel.callers import Case

from headrace.contracts import PackageError


def tried(case: Case, seed: int, rounds: int = 3) -> tuple[str, str]:
    """Serve one model; return what became of it and, where that is remarkable, why."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            package = checking.added(case, Path(folder))
        except PackageError as exc:
            return "refused", exc.message
        together = package.manifest.batching.independent_rows
        try:
            faults = checking.faults(package, case, np.random.default_rng(seed), rounds)
        except Exception as exc:  # noqa: BLE001 — a crash counts as a wrong answer, and the rest goes on.
            faults = [f"{type(exc).__name__}: {exc}"]
    if faults:
        return f"wrong ({'batched' if together else 'alone'})", faults[0]
    if case.independent and not together:
        return "alone without need", ""
    return ("in batches" if together else "alone"), ""


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--graphs", type=int, default=2000)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--show", type=int, default=3)
    options.add_argument("--rounds", type=int, default=3, help="groups of callers a model")
    options.add_argument("--only", type=int, help="one seed of an earlier run")
    asked = options.parse_args()
    logging.disable(logging.CRITICAL)
    counts: Counter[str] = Counter()
    known: Counter[bool | None] = Counter()
    started = time.monotonic()
    seeds = (
        [asked.only] if asked.only is not None else range(asked.seed * 1_000_000, asked.seed * 1_000_000 + asked.graphs)
    )
    for seed in seeds:
        case = graphs.seeded(seed)
        fate, why = tried(case, seed, asked.rounds)
        counts[fate] += 1
        known[case.independent] += 1
        remarkable = fate.startswith(("wrong", "refused", "alone without"))
        if asked.only is not None or (remarkable and counts[fate] <= asked.show):
            print(f"--- seed {seed}: {fate}: {why}\n{graphs.describe(case)}\n", flush=True)
    wrong = sum(count for fate, count in counts.items() if fate.startswith("wrong"))
    print(f"{counts.total()} models in {time.monotonic() - started:.0f} s: {dict(counts.most_common())}")
    print(f"by construction: {known[True]} independent, {known[False]} mixed, {known[None]} either")
    print(f"wrong: {wrong}; needlessly alone: {counts['alone without need']} of {known[True]} independent")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
