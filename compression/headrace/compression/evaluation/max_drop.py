"""The largest drop of a metric that is allowed, and whether an evaluation is within it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from headrace.compression.evaluation.evaluate import Evaluation
from headrace.contracts import ConfigurationError
from headrace.contracts.errors import quoted

#: Rounding in the last digits of a difference of two shares is no drop.
_ROUNDING: Final = 1e-9

#: Plain numbers above this are refused as a bound: whoever writes 0.5 most likely means 0.5 %.
_LARGEST_PLAIN: Final = 0.1

_BOUND: Final = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*(%|pt|points?)?", re.IGNORECASE)


@dataclass(frozen=True)
class MaxDrop:
    """The largest loss of a metric that is allowed to a compressed model.

    fraction: 0.005 is half a point of a share (accuracy, f1, auc, r2, agreement, cosine), so 98.9 % may become 98.4 %;
    of an error (rmse, mae), which has the labels' own unit, it is 0.5 % of the original's.
    """

    fraction: float

    def __post_init__(self) -> None:
        """Raise ConfigurationError for a fraction outside 0..1."""
        if not 0 <= self.fraction <= 1:
            raise ConfigurationError(f"a drop of {self.fraction} is not allowed; give 0% to 100%")

    @classmethod
    def parse(cls, text: str) -> MaxDrop:
        """Read "0.5%", "0.5pt" or "0.005", which are all the same. Raises ConfigurationError."""
        found = _BOUND.fullmatch(text.strip())
        if found is None:
            raise ConfigurationError(f"{quoted(text)} is no bound of a drop; write it like 0.5%")
        number = float(found[1])
        if found[2]:
            return cls(number / 100)
        if number > _LARGEST_PLAIN:
            raise ConfigurationError(f"a drop of {text} would be {100 * number:g} points; write {text}% or {text}pt")
        return cls(number)

    def __str__(self) -> str:
        """Write it as `parse` reads it."""
        return f"{round(100 * self.fraction, 10):g}%"


def within(evaluation: Evaluation, bound: MaxDrop) -> bool:
    """Whether a compressed model lost no more than allowed on the measured rows; never with rows that are not finite.

    An original, which has no drop, is within any bound.
    """
    return _at_most(evaluation, evaluation.drop, bound)


def surely_within(evaluation: Evaluation, bound: MaxDrop) -> bool:
    """Whether the worse end of the interval of the drop is within the bound too."""
    return _at_most(evaluation, evaluation.drop_high, bound)


def _at_most(evaluation: Evaluation, drop: float | None, bound: MaxDrop) -> bool:
    if drop is None:
        return True
    return evaluation.not_finite_rows == 0 and drop <= bound.fraction + _ROUNDING
