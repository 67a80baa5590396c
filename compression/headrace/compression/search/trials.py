"""Trials of recipes: their outcomes, kept on disk so that a search can continue, and the verdicts on them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal, TypeAlias

import msgspec

from headrace.compression.benchmarking.compare import SAME, Measurement, faster
from headrace.compression.evaluation.disagreements import Disagreement
from headrace.compression.evaluation.evaluate import Evaluation
from headrace.compression.evaluation.max_drop import MaxDrop, surely_within, within
from headrace.compression.search.pareto import Point, front
from headrace.contracts.files import atomic_write

#: measured: there are figures. not applicable: the recipe has nothing to do here. not installed: it lacks a library.
#: failed: it went wrong.
Status: TypeAlias = Literal["measured", "not applicable", "not installed", "failed"]

#: What the model that is compressed is called among the recipes.
ORIGINAL: Final = "original"

#: A product that is faster by less is not worth another version to look after; nor is one smaller by less than this.
MIN_SPEEDUP: Final = 1.1
SMALLER: Final = 1.1

_FILE: Final = "attempt.json"
_TRACEBACK: Final = "traceback.txt"


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of one recipe.

    reason: why there are no figures. package: folder of the product, relative to the search's. selection: on the
    selection rows. measurement: against the original, in turn. test: on the test rows, for those that were considered
    for promotion; disagreements: of those rows. seconds: that making and measuring it took. notes: on the
    product, beside its figures.
    """

    recipe: str
    summary: str = ""
    status: Status
    reason: str = ""
    package: str = ""
    selection: Evaluation | None = None
    measurement: Measurement | None = None
    test: Evaluation | None = None
    disagreements: tuple[Disagreement, ...] = ()
    seconds: float = 0.0
    notes: tuple[str, ...] = ()

    @property
    def figures(self) -> tuple[Evaluation, Measurement] | None:
        """Return metric and measurement if it was measured."""
        if self.selection is None or self.measurement is None:
            return None
        return self.selection, self.measurement

    def point(self, at_rows: int) -> Point | None:
        """Place it among the others, by the selection rows, on which all were measured; None without figures."""
        if self.figures is None:
            return None
        selection, measurement = self.figures
        found = measurement.at(at_rows)
        # Each trial was timed against the original in its own minutes: the ratio compares across them, seconds don't.
        relative = 1 / found.ratio.median if found.ratio else 1.0
        return Point(selection.drop or 0.0, relative, measurement.candidate.file_bytes)


class Verdict(msgspec.Struct, frozen=True):
    """Whether a trial may be promoted, and the reason in words."""

    pays: bool
    reason: str


def judge(trial: Trial, bound: MaxDrop, at_rows: int, min_speedup: float = MIN_SPEEDUP) -> Verdict:
    """Return the verdict: within the bound, on the test rows too if it was tested, and worth it."""
    if trial.figures is None:
        return Verdict(False, f"{trial.status}: {trial.reason}")
    selection, measurement = trial.figures
    for evaluation, rows in ((selection, "selection"), (trial.test, "test")):
        if evaluation is not None and evaluation.not_finite_rows:
            return Verdict(False, f"NaN or infinity in {evaluation.not_finite_rows} of the {rows} rows")
        if evaluation is not None and not within(evaluation, bound):
            drop = 100 * (evaluation.drop or 0.0)
            return Verdict(
                False, f"loses {drop:.2f} {_unit(evaluation)} on the {rows} rows; at most {bound} is allowed"
            )
    if not worth_it(measurement, at_rows, min_speedup):
        return Verdict(False, _not_worth_it(measurement, at_rows, min_speedup))
    pays = f"pays{_beyond_speed(measurement, at_rows, min_speedup)}"
    if trial.test is not None and not surely_within(trial.test, bound):
        return Verdict(True, f"{pays}; with {trial.test.rows} test rows the drop may yet be {_high(trial.test)}")
    return Verdict(True, pays)


def worth_it(measurement: Measurement, at_rows: int, min_speedup: float) -> bool:
    """Whether a product is worth its place: at least `min_speedup` times as fast, or smaller and no slower.

    Faster beyond doubt, and by `min_speedup` in the median; or SMALLER times as small, and in the median no slower than
    two processes that run the same model differ by.
    """
    return _fast_enough(measurement, at_rows, min_speedup) or (
        _times_smaller(measurement) >= SMALLER and not _slower(measurement, at_rows)
    )


def _fast_enough(measurement: Measurement, at_rows: int, min_speedup: float) -> bool:
    ratio = measurement.at(at_rows).ratio
    return ratio is not None and faster(measurement, at_rows) and ratio.median >= min_speedup


def _slower(measurement: Measurement, at_rows: int) -> bool:
    ratio = measurement.at(at_rows).ratio
    return ratio is None or ratio.median * SAME < 1


def _times_smaller(measurement: Measurement) -> float:
    before, after = measurement.baseline, measurement.candidate
    return before.file_bytes / after.file_bytes if before is not None and after.file_bytes else 1.0


def _not_worth_it(measurement: Measurement, at_rows: int, min_speedup: float) -> str:
    ratio = measurement.at(at_rows).ratio
    if ratio is None:
        return f"not faster: unmeasured at {at_rows} rows"
    between = f"({ratio.low:.2f} to {ratio.high:.2f})"
    if _slower(measurement, at_rows):
        return f"not faster: {ratio.median:.2f} times as fast {between} at {at_rows} rows"
    if ratio.median >= min_speedup:
        return (
            f"not surely faster: {ratio.median:.2f} times as fast {between} at {at_rows} rows; --seconds 5 measures "
            "for longer"
        )
    return (
        f"not worth it: {ratio.median:.2f} times as fast, {_times_smaller(measurement):.2f} times as small; "
        f"--min-speedup {min_speedup:g} asks for more"
    )


def _beyond_speed(measurement: Measurement, at_rows: int, min_speedup: float) -> str:
    """Add to a verdict that it pays what its speed doesn't tell: that it is for its size, or in spite of it."""
    smaller = _times_smaller(measurement)
    if not _fast_enough(measurement, at_rows, min_speedup):
        return f" by its size: {smaller:.1f} times as small, no slower"
    return f", though {1 / smaller:.1f} times as large" if smaller * SMALLER <= 1 else ""


def rank_paying(trials: Sequence[Trial], bound: MaxDrop, at_rows: int, min_speedup: float = MIN_SPEEDUP) -> list[Trial]:
    """List the trials that pay, the fastest first."""
    paying = [trial for trial in trials if judge(trial, bound, at_rows, min_speedup).pays]
    return sorted(paying, key=lambda trial: _point(trial, at_rows).seconds)


def pareto(trials: Sequence[Trial], at_rows: int, original_bytes: int) -> list[str]:
    """Name the recipes, and ORIGINAL, that no other beats in metric, time and size at once.

    Those whose outputs were not finite are left out. original_bytes: of the original's files.
    """
    sound = [trial for trial in trials if trial.selection and not trial.selection.not_finite_rows]
    points = {trial.recipe: point for trial in sound if (point := trial.point(at_rows))}
    points[ORIGINAL] = Point(0.0, 1.0, original_bytes)
    names = list(points)
    return [names[index] for index in front(list(points.values()))]


def _point(trial: Trial, at_rows: int) -> Point:
    point = trial.point(at_rows)
    assert point is not None
    return point


def _unit(evaluation: Evaluation) -> str:
    return "pt" if evaluation.unit == "points" else "%"


def _high(evaluation: Evaluation) -> str:
    return f"{100 * (evaluation.drop_high or 0.0):.2f} {_unit(evaluation)}"


class TrialLog:
    """The trials of one search, a folder each."""

    def __init__(self, folder: Path) -> None:
        """folder: of the search; made when the first trial is kept."""
        self._folder = folder

    def find(self, recipe: str) -> Trial | None:
        """Return the trial of a recipe; None when it wasn't tried, or its file can't be read."""
        try:
            return msgspec.json.decode(self._file(recipe).read_bytes(), type=Trial)
        except (FileNotFoundError, msgspec.DecodeError):
            return None

    def keep(self, trial: Trial) -> Trial:
        """Write a trial to disk, and return it."""
        file = self._file(trial.recipe)
        file.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(file, msgspec.json.format(msgspec.json.encode(trial)))
        return trial

    def explain(self, recipe: str, traceback: str) -> Path:
        """Write the traceback of an unexpected failure; return the file."""
        file = self._file(recipe).with_name(_TRACEBACK)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(traceback, "utf-8")
        return file

    def _file(self, recipe: str) -> Path:
        return self._folder / re.sub(r"[^A-Za-z0-9_.+-]", "-", recipe) / _FILE
