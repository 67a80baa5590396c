"""Allocation: how many channels each layer keeps. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

#: By the name of a group of channels, one figure for each of its channels.
Scores: TypeAlias = Mapping[str, NDArray[np.floating[Any]]]


@dataclass(frozen=True)
class Sizes:
    """The numbers of channels that a layer may have.

    round_to: they are multiples of it, or its half or quarter. keep_least: share of its first channels that it keeps.
    """

    round_to: int
    keep_least: float

    def below(self, size: int, initial: int) -> int:
        """Return the next smaller number of channels for a layer that has `size` and had `initial`; 0 for none."""
        wanted = ((size - 1) // self.round_to * self.round_to, self.round_to // 2, self.round_to // 4)
        least = max(1, math.ceil(initial * self.keep_least))
        return next((each for each in wanted if least <= each < size), 0)


def plan_removal(
    scores: Scores, initial: Mapping[str, int], share: float, *, sizes: Sizes, savings: Mapping[str, float]
) -> dict[str, list[int]]:
    """Choose the channels to remove, so that as near to `share` of the initial ones as possible are gone.

    All layers are ranked together: what goes next is the step down to the next size, of whichever layer, that costs
    the least for what it saves. scores: how much would be lost with each channel. initial: channels of each group
    before anything was removed. savings: what each channel of a group costs at run time, in any unit.
    """
    ascending = {name: np.sort(values) for name, values in scores.items()}
    now = {name: len(values) for name, values in scores.items()}
    goal = sum(initial.values()) * (1 - share)
    while True:
        steps = []
        for name, size in now.items():
            below = sizes.below(size, initial[name])
            if below:
                gone = len(ascending[name]) - size
                cost = float(ascending[name][gone : gone + size - below].mean()) / savings[name]
                steps.append((cost, name, below))
        if not steps:
            break
        _, name, size = min(steps)
        total = sum(now.values())
        if abs(total - now[name] + size - goal) >= abs(total - goal):
            break
        now[name] = size
    return {
        name: sorted(np.argsort(scores[name], kind="stable")[: len(scores[name]) - size].tolist())
        for name, size in now.items()
        if size < len(scores[name])
    }
