"""Searches as `headrace compress` runs them, and their figures."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headrace.compression.evaluation.evaluate import Evaluation
from headrace.compression.evaluation.max_drop import MaxDrop
from headrace.compression.evaluation.metric_choice import metric_for
from headrace.compression.search.inputs import Request, open_source
from headrace.compression.search.search import Search, SearchConfig, SearchResult
from headrace.compression.search.trials import Trial, Verdict, worth_it
from headrace.contracts import ModelDirectory

#: As in the table of what must be reached: both models have one thread.
THREADS = 1


def say(text: str) -> None:
    """Print progress to standard error."""
    print(text, file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Case:
    """A model to compress, and the loss that is allowed. at_rows: of the batch to optimize for."""

    request: Request
    metric: str
    max_drop: str
    at_rows: int
    recipes: Sequence[str]


class PrintedCallbacks:
    """Prints the verdict on each recipe to standard error."""

    def started(self, recipe: str, done: int, known: int) -> None:
        """Print its start."""
        say(f"  {recipe} ({done + 1} of {known})")

    def ended(self, attempt: Trial, verdict: Verdict) -> None:
        """Print the verdict."""
        say(f"    {attempt.recipe}: {verdict.reason}")

    def progress(self, done: int, of: int, what: str) -> None:
        """Ignore it."""


def run(case: Case, folder: Path, models: Path, seconds: float) -> tuple[SearchResult, dict[str, Any]]:
    """Try the recipes, promote the best into `models`, and check that nothing else was; return result and report entry.

    folder: an empty one; figures of an earlier run would be reused.
    """
    started = time.monotonic()
    directory = ModelDirectory(models)
    source, splits = open_source(case.request, directory, folder, seed=0, threads=THREADS)
    manifest = source.package.manifest
    goal = SearchConfig(
        metric_for(case.metric, manifest.signature, splits.test.labels, names=manifest.labels),
        MaxDrop.parse(case.max_drop),
        at_rows=case.at_rows,
        row_sizes=(case.at_rows,),
        threads=THREADS,
        seconds=seconds,
    )
    search = Search(source, splits, goal, folder, PrintedCallbacks())
    found = search.try_recipes(case.recipes)
    promoted = search.promote(found, directory)
    result = as_result(found)
    result["promoted"] = promoted.version if promoted else None
    result["wrongly_promoted"] = wrongly_promoted(found, directory.versions(source.package.name))
    result["seconds"] = time.monotonic() - started
    return found, result


def wrongly_promoted(found: SearchResult, versions: Sequence[str]) -> list[str]:
    """Return the recipes that were promoted though not worth it, or outside the bound, by the figures alone.

    versions: of the model in a directory that had none before.
    """
    if not found.chosen:
        return [f"version {version}" for version in versions]
    winner = found.winner
    measurement = winner.measurement if winner else None
    bad = winner is None or measurement is None or not worth_it(measurement, found.at_rows, found.min_speedup)
    for evaluation in (winner.selection, winner.test) if winner else ():
        bad = bad or evaluation is None or (evaluation.drop or 0.0) > found.bound + 1e-9
    return [found.chosen] if bad or len(versions) != 1 else []


def as_result(found: SearchResult) -> dict[str, Any]:
    """Return the result of a search as plain values."""
    return {
        "original": {"bytes": found.original_bytes, "test": _evaluated(found.baseline_test)},
        "at_rows": found.at_rows,
        "max_drop": found.bound,
        "chosen": found.chosen,
        "front": list(found.front),
        "recipes": [
            {"recipe": attempt.recipe, "verdict": verdict.reason, "pays": verdict.pays, **_figures(attempt, found)}
            for attempt, verdict in zip(found.attempts, found.verdicts, strict=True)
        ],
    }


def _figures(attempt: Trial, found: SearchResult) -> dict[str, Any]:
    if attempt.figures is None:
        return {"status": attempt.status}
    selection, measurement = attempt.figures
    figures = measurement.at(found.at_rows)
    return {
        "status": attempt.status,
        "time_ratio": None
        if figures.ratio is None
        else {"median": figures.ratio.median, "low": figures.ratio.low, "high": figures.ratio.high},
        "ms": 1000 * figures.candidate.seconds,
        "original_ms": 1000 * figures.baseline.seconds if figures.baseline else None,
        "size_ratio": found.original_bytes / measurement.candidate.file_bytes,
        "bytes": measurement.candidate.file_bytes,
        "selection": _evaluated(selection),
        "test": _evaluated(attempt.test) if attempt.test else None,
    }


def _evaluated(evaluation: Evaluation) -> dict[str, Any]:
    return {
        "metric": evaluation.metric,
        "value": evaluation.value,
        "low": evaluation.low,
        "high": evaluation.high,
        "rows": evaluation.rows,
        "drop": evaluation.drop,
        "drop_low": evaluation.drop_low,
        "drop_high": evaluation.drop_high,
    }
