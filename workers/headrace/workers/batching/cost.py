"""The cost model: seconds of a run = a + b·rows, learned from the runs themselves."""

from __future__ import annotations

import math
from itertools import combinations
from statistics import median
from typing import Final

#: Weight of the past against one new run; the last 50 runs or so count.
DECAY: Final = 0.98

#: Runs seen before the model trusts itself. Their first fit is by medians, which bear two bad runs in eight,
#: such as a slow first one.
WARM_UP_RUNS: Final = 8

#: A run counts as no further from the prediction than this many usual deviations.
CLIP_DEVIATIONS: Final = 4.0

#: The usual relative deviation is never believed to be below this, or a quiet device could not change its pace.
MIN_DEVIATION: Final = 0.02

#: Row counts must vary by this share of their mean (one standard deviation) to tell a from b.
MIN_SPREAD: Final = 0.1

#: Figures that were measured in advance count as this many runs: about two warm-ups.
_MEASURED_RUNS: Final = 4 * (1, 4, 16, 64)

#: A worker's runs differ from those of a quiet measurement by this much, to begin with.
_MEASURED_DEVIATION: Final = 0.1

#: Seconds of a run of one row, and of a thousand, that can be believed of figures from a file.
_SHORTEST_RUN_S: Final = 1e-9
_LONGEST_RUN_S: Final = 1e6

#: Below this share the two equations of the fit are one.
_SINGULAR: Final = 1e-9


class CostModel:
    """Seconds of a run by its rows, for one model version on one device.

    Exponentially weighted least squares on relative errors (noise of run times grows with them), with a and b never
    negative. A run that is far off counts as a moderate one (Huber 1964), so that an outlier hardly moves
    the line, yet a lasting change does within some tens of runs. While row counts hardly vary, only the pace is learned
    and the proportion of a to b stays as it was (at the start: all of it per row, which never makes waiting look good).

    seconds_fixed, seconds_per_row: measured elsewhere, a start for `predict`; they don't make the model `confident`.
    `CostModel.measured` takes such as were measured where the model will run, and is confident from the start.
    """

    __slots__ = ("_deviation", "_sums", "_told_apart", "_warm_up", "seconds_fixed", "seconds_per_row")

    def __init__(self, seconds_fixed: float = 0.0, seconds_per_row: float = 0.0) -> None:
        """Both default to unknown (0): then `predict` returns 0 until the first run was observed.

        Figures that no run can have count as unknown.
        """
        self.seconds_fixed = max(seconds_fixed, 0.0)
        self.seconds_per_row = max(seconds_per_row, 0.0)
        if not (self.predict(1) >= _SHORTEST_RUN_S and self.predict(1000) <= _LONGEST_RUN_S):
            self.seconds_fixed = self.seconds_per_row = 0.0
        self._warm_up: list[tuple[float, float]] | None = []
        self._deviation = MIN_DEVIATION
        #: Decayed sums over runs, weighted by 1/seconds²: of 1, rows, rows², seconds, rows·seconds; then, for the
        #: spread, the unweighted ones of 1, rows, rows².
        self._sums: tuple[float, ...] = (0.0,) * 8
        self._told_apart = False

    @classmethod
    def measured(cls, seconds_fixed: float, seconds_per_row: float) -> CostModel:
        """Start from figures that were measured where this model will run, with both parts told apart.

        They count as some runs that went by, so that real ones correct them within some tens of runs.
        """
        cost = cls(seconds_fixed, seconds_per_row)
        if cost.predict(1):
            cost._warm_up = None
            cost._deviation = _MEASURED_DEVIATION
            for rows in _MEASURED_RUNS:
                cost._learn(rows, cost.predict(rows))
            cost._fit()
        return cost

    @property
    def confident(self) -> bool:
        """Whether enough runs of different sizes were seen or measured to tell the fixed seconds from those per row."""
        return self._warm_up is None and self._told_apart

    def predict(self, rows: float) -> float:
        """Return the expected seconds of a run of `rows` rows; 0 for no rows, and while nothing is known."""
        return self.seconds_fixed + self.seconds_per_row * rows if rows > 0 else 0.0

    def observe(self, rows: int, seconds: float) -> None:
        """Learn from one run; what can't be a run time (not above 0, not finite, no rows) is ignored."""
        if rows < 1 or not 0 < seconds < math.inf:
            return
        if self._warm_up is None:
            self._learn(rows, seconds)
            self._fit()
            return
        self._warm_up.append((rows, seconds))
        self._fit_by_medians(self._warm_up)
        if len(self._warm_up) >= WARM_UP_RUNS:
            self._end_warm_up(self._warm_up)

    def _fit_by_medians(self, runs: list[tuple[float, float]]) -> None:
        """Draw the first line as Theil (1950) and Sen (1968) do: the median slope, then the median intercept."""
        slopes = [(s2 - s1) / (r2 - r1) for (r1, s1), (r2, s2) in combinations(runs, 2) if r1 != r2]
        if not slopes:
            self._rescale(median(seconds / self._shape(rows) for rows, seconds in runs))
            return
        per_row = max(median(slopes), 0.0)
        fixed = median(seconds - per_row * rows for rows, seconds in runs)
        if fixed < 0:
            fixed, per_row = 0.0, median(seconds / rows for rows, seconds in runs)
        self.seconds_fixed, self.seconds_per_row = fixed, per_row

    def _end_warm_up(self, runs: list[tuple[float, float]]) -> None:
        self._warm_up = None
        self._deviation = max(median(abs(s / self.predict(r) - 1) for r, s in runs), MIN_DEVIATION)
        for rows, seconds in runs:
            self._learn(rows, seconds)
        self._fit()

    def _learn(self, rows: float, seconds: float) -> None:
        expected = self.predict(rows)
        limit = CLIP_DEVIATIONS * self._deviation
        off = min(max(seconds / expected - 1, -min(limit, 0.9)), limit)
        self._deviation = max(DECAY * self._deviation + (1 - DECAY) * abs(off), MIN_DEVIATION)
        seconds = expected * (1 + off)
        weight = 1 / (expected * expected)
        new = (
            weight,
            weight * rows,
            weight * rows * rows,
            weight * seconds,
            weight * rows * seconds,
            1.0,
            rows,
            rows * rows,
        )
        self._sums = tuple([DECAY * old + add for old, add in zip(self._sums, new, strict=True)])

    def _fit(self) -> None:
        w, wx, wxx, wy, wxy, n, x, xx = self._sums
        determinant = w * wxx - wx * wx
        if xx * n - x * x < (MIN_SPREAD * x) ** 2 or determinant <= _SINGULAR * w * wxx:
            self._rescale(wy / (self.seconds_fixed * w + self.seconds_per_row * wx))
            return
        self._told_apart = True
        per_row = (w * wxy - wx * wy) / determinant
        fixed = (wy - per_row * wx) / w
        if per_row < 0:
            fixed, per_row = wy / w, 0.0
        elif fixed < 0:
            fixed, per_row = 0.0, wxy / wxx
        self.seconds_fixed, self.seconds_per_row = fixed, per_row

    def _shape(self, rows: float) -> float:
        """Return the prediction whose pace is to be learned; proportional to rows while nothing is known."""
        return self.predict(rows) or rows

    def _rescale(self, factor: float) -> None:
        if self.seconds_fixed == 0 and self.seconds_per_row == 0:
            self.seconds_per_row = 1.0
        self.seconds_fixed *= factor
        self.seconds_per_row *= factor
