"""What every section works with: the servers, the sizes, and the sides in the configurations that won the sweep."""

from __future__ import annotations

import contextlib
import dataclasses
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from online_parts.celery_side import CeleryConfig, CelerySide
from online_parts.headrace_side import HeadraceConfig, HeadraceSide
from online_parts.measure import Rate
from online_parts.models import MLP, BenchModel
from online_parts.plan import Plan
from online_parts.servers import Servers

#: Figures of a run of which the median is given.
FIGURES = ("per_s", "worker_cpu_s", "valkey_cpu_s", "postgres_cpu_s", "round_trips", "others_cpus")


@dataclass
class Bench:
    """One run of the benchmark.

    rivals: the best configuration found of each kind of plain Celery worker, fastest first.
    """

    servers: Servers
    models: Path
    plan: Plan
    rivals: list[CeleryConfig] = field(default_factory=list)
    live_rates: dict[str, float] = field(default_factory=dict)
    _open: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def celery(self, config: CeleryConfig) -> CelerySide:
        """Make a rival."""
        side = CelerySide(self.servers, self.models, config)
        self._open.callback(side.close)
        return side

    def rival_sides(self) -> dict[str, CelerySide]:
        """Give plain Celery's best, and the best of a single worker command where that is another."""
        best = self.rivals[0]
        single = next(config for config in self.rivals if config.workers == 1)
        chosen = {"celery": best} if single == best else {"celery": best, "celery_one_worker": single}
        # One encoding, so that both drain the same preloaded queue.
        return {
            name: self.celery(dataclasses.replace(config, encoding=best.encoding)) for name, config in chosen.items()
        }

    def headrace(self, processes: int = 1, model: BenchModel = MLP) -> HeadraceSide:
        """Make our side."""
        side = HeadraceSide(self.servers, self.models, model, HeadraceConfig(processes))
        self._open.callback(side.close)
        return side

    def close(self) -> None:
        """Close the connections of all sides."""
        self._open.close()


def say(text: str) -> None:
    """Tell a person what goes on; standard output is for the result."""
    print(text, file=sys.stderr, flush=True)


def summary(config: str, rates: Sequence[Rate]) -> dict[str, Any]:
    """Give the medians of several runs, and the runs."""
    return {
        "config": config,
        "requests": rates[0].requests,
        **{name: statistics.median(getattr(rate, name) for rate in rates) for name in FIGURES},
        "runs": [asdict(rate) for rate in rates],
    }


def ratios(rates: Mapping[str, Sequence[Rate]]) -> dict[str, Any]:
    """Divide our rates by those of the rivals, round by round, and take medians: slow noise cancels.

    `ratio` is against plain Celery's very best, `ratio_to_...` against each kind of rival measured.
    """
    found = {
        f"ratio_to_{name}": statistics.median(a.per_s / b.per_s for a, b in zip(rates["headrace"], runs, strict=True))
        for name, runs in rates.items()
        if name != "headrace"
    }
    return {"ratio": min(found.values()), **found}


def fastest(rates: Mapping[Any, float]) -> Any:
    """Give the key with the highest rate."""
    return max(rates, key=lambda key: rates[key])
