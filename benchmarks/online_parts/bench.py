"""What every section works with: the servers, the sizes, and the sides in the configurations that won the sweep."""

from __future__ import annotations

import contextlib
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from online_parts.celery_side import CeleryConfig, CelerySide
from online_parts.headrace_side import HeadraceConfig, HeadraceSide
from online_parts.measure import Rate
from online_parts.models import MLP, BenchModel
from online_parts.plan import Plan
from online_parts.servers import Servers
from online_parts.side import Side

#: Figures of a run of which the median is given.
FIGURES = ("per_s", "worker_cpu_s", "valkey_cpu_s", "postgres_cpu_s", "round_trips", "others_cpus")

AnySide = TypeVar("AnySide", CelerySide, HeadraceSide)


@dataclass
class Bench:
    """One run of the benchmark.

    rivals: plain Celery's best configuration of each pool under one worker command, fastest first.
    two_workers: its best with two worker commands side by side. ours: headrace's best configuration with each number
    of processes, fastest first. ours_64: its best with batches of up to 64 rows.
    """

    servers: Servers
    models: Path
    plan: Plan
    rivals: list[CeleryConfig] = field(default_factory=lambda: [CeleryConfig()])
    two_workers: CeleryConfig = field(default_factory=lambda: CeleryConfig("solo", workers=2))
    ours: list[HeadraceConfig] = field(default_factory=lambda: [HeadraceConfig()])
    ours_64: HeadraceConfig = field(default_factory=HeadraceConfig)
    live_rates: dict[str, float] = field(default_factory=dict)
    _sides: dict[object, Any] = field(default_factory=dict)
    _open: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def celery(self, config: CeleryConfig) -> CelerySide:
        """Give a rival."""
        return self._kept(config, lambda: CelerySide(self.servers, self.models, config))

    def headrace(self, config: HeadraceConfig | None = None, model: BenchModel = MLP) -> HeadraceSide:
        """Give our side; without a configuration, one process and the model's own batch size."""
        chosen = config or HeadraceConfig(max_rows=model.max_rows)
        return self._kept((chosen, model), lambda: HeadraceSide(self.servers, self.models, model, chosen))

    def side(self, config: CeleryConfig | HeadraceConfig) -> Side:
        """Give the side of a configuration."""
        return self.celery(config) if isinstance(config, CeleryConfig) else self.headrace(config)

    def _kept(self, key: object, make: Callable[[], AnySide]) -> AnySide:
        """Make each side once, for each holds connections."""
        side: AnySide | None = self._sides.get(key)
        if side is None:
            side = self._sides[key] = make()
            self._open.callback(side.close)
        return side

    def close(self) -> None:
        """Close the connections of all sides."""
        self._open.close()


def say(text: str) -> None:
    """Tell a person what goes on; standard output is for the result."""
    print(text, file=sys.stderr, flush=True)


def summary(config: CeleryConfig | HeadraceConfig, rates: Sequence[Rate]) -> dict[str, Any]:
    """Give the medians of several runs, and the runs."""
    return {
        "config": str(config),
        "max_rows": config.max_rows if isinstance(config, HeadraceConfig) else 1,
        "requests": rates[0].requests,
        **{name: statistics.median(getattr(rate, name) for rate in rates) for name in FIGURES},
        "runs": [asdict(rate) for rate in rates],
    }


def ratios(rates: Mapping[str, Sequence[Rate]]) -> dict[str, Any]:
    """Divide our rates by the rivals', round by round, and take medians: slow noise cancels.

    `ratio` is against plain Celery's best single worker command, `ratio_two_workers` against two side by side,
    `ratio_at_64` is that of headrace with batches of up to 64 rows against the former, where they were run apart.
    """
    ours, celery = rates["headrace"], rates["celery"]
    found = {"ratio": _ratio(ours, celery), "ratio_two_workers": _ratio(ours, rates["celery_two_workers"])}
    return found | ({"ratio_at_64": _ratio(rates["headrace_64"], celery)} if "headrace_64" in rates else {})


def _ratio(ours: Sequence[Rate], theirs: Sequence[Rate]) -> float:
    return statistics.median(a.per_s / b.per_s for a, b in zip(ours, theirs, strict=True))
