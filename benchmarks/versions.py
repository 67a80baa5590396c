"""Two versions of headrace in turn, on one machine: did a change make it faster or slower?

    git worktree add --detach ../before v0.1.0
    python benchmarks/versions.py ../before                       # that checkout and this one; about five minutes
    python benchmarks/versions.py ../before --rounds 20 --processes 2 --max-rows 256 --only drain

Single runs on a shared machine differ by a tenth and more from hour to hour. Here each round runs both versions, one
right after the other, and in each round the other one begins; what is told is the median of the rounds' ratios, and
the interval that holds it with 95 % confidence.

Both run in this environment; of the other checkout only the Python code is taken. docs/benchmarks.md says what the
sections measure.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import itertools
import json
import math
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from online_parts.bench import say
from online_parts.headrace_side import HeadraceConfig, HeadraceSide
from online_parts.measure import Backlog, Rate, arrivals, live, percentile, ready
from online_parts.models import MLP, write_models
from online_parts.processes import environment
from online_parts.servers import Servers, started

#: Requests of one idle block; each takes a good millisecond.
BLOCK = 200

#: How long requests arrive, in one run of the section load.
LOAD_S = 1.0

#: What a run gives, by the name of the figure.
Figures = dict[str, float]


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("before", type=Path, help="a checkout of the version to compare with")
    parser.add_argument("now", type=Path, nargs="?", default=Path(__file__).resolve().parents[1], help="default: this")
    parser.add_argument("--rounds", type=int, default=10, help="runs of each version in each section (default 10)")
    parser.add_argument("--processes", type=int, default=1, help="worker processes (default 1)")
    parser.add_argument("--max-rows", type=int, choices=(64, 256), default=64, help="largest batch (default 64)")
    parser.add_argument("--requests", type=int, default=60_000, help="per run of drain and live (default 60000)")
    parser.add_argument("--arrivals", type=float, default=2_000, help="per second, in the section load (default 2000)")
    parser.add_argument("--only", action="append", choices=("drain", "live", "idle", "load"), help="may be repeated")
    parser.add_argument("--json", action="store_true", help="print one JSON object with every run")
    options = parser.parse_args(arguments)
    for checkout in (options.before, options.now):
        if not any(checkout.glob("*/headrace")):
            parser.error(
                f"{checkout} is no checkout of headrace; make one by `git worktree add --detach {checkout} TAG`"
            )
    return options


@dataclasses.dataclass
class Version:
    """One checkout, with servers of its own: the store's schema may differ."""

    name: str
    servers: Servers
    side: HeadraceSide


def open_version(stack: contextlib.ExitStack, name: str, config: HeadraceConfig) -> Version:
    """Start servers, and make the schema with the version's own code."""
    servers = stack.enter_context(started())
    write_models(servers.folder)
    side = HeadraceSide(servers, servers.folder, MLP, config)
    stack.callback(side.close)
    migrate = [sys.executable, "-m", "headrace.cli", "store", "migrate"]
    subprocess.run(migrate, env=environment(side.env), check=True, stdout=subprocess.DEVNULL)
    return Version(name, servers, side)


def alternate(versions: Sequence[Version], rounds: int, run: Callable[[Version], Figures]) -> dict[str, list[Figures]]:
    """Run each version once a round, in every other round the other way about."""
    found: dict[str, list[Figures]] = {version.name: [] for version in versions}
    for number in range(rounds):
        for version in versions if number % 2 == 0 else reversed(versions):
            found[version.name].append(run(version))
        last = {
            name: ", ".join(f"{key} {value:,.1f}" for key, value in runs[-1].items()) for name, runs in found.items()
        }
        say(f"  round {number + 1}: " + "; ".join(f"{name} {figures}" for name, figures in last.items()))
    return found


def drain(versions: Sequence[Version], options: argparse.Namespace) -> dict[str, list[Figures]]:
    """A preloaded queue, workers only."""
    queues = {version.name: Backlog(version.side, options.requests) for version in versions}
    return alternate(versions, options.rounds, lambda of: _figures(queues[of.name].drain(of.servers)))


def producing(versions: Sequence[Version], options: argparse.Namespace) -> dict[str, list[Figures]]:
    """One producer and the workers at once."""
    return alternate(versions, options.rounds, lambda of: _figures(live(of.servers, of.side, options.requests, 1)))


def idle(versions: Sequence[Version], options: argparse.Namespace) -> dict[str, list[Figures]]:
    """One request at a time."""
    return _latencies(versions, options, lambda _: {"op": "ask", "first": 0, "count": BLOCK})


def load(versions: Sequence[Version], options: argparse.Namespace) -> dict[str, list[Figures]]:
    """Requests arrive at random, `--arrivals` a second (Poisson), whether or not the last are answered."""
    return _latencies(
        versions, options, lambda number: {"op": "open_loop", "arrivals_s": arrivals(options.arrivals, LOAD_S, number)}
    )


def _latencies(
    versions: Sequence[Version], options: argparse.Namespace, order: Callable[[int], dict[str, Any]]
) -> dict[str, list[Figures]]:
    """The workers of both versions are up, and wait while the other's are asked. order: by the number of the run."""
    numbers = {version.name: itertools.count() for version in versions}
    with contextlib.ExitStack() as stack:
        clients = {version.name: ready(stack, version.side) for version in versions}

        def ask(version: Version) -> Figures:
            found: list[float] = clients[version.name].do(**order(next(numbers[version.name])))["latencies_s"]
            return {"p50_us": percentile(found, 0.5) * 1e6, "p99_us": percentile(found, 0.99) * 1e6}

        return alternate(versions, options.rounds, ask)


SECTIONS = {"drain": drain, "live": producing, "idle": idle, "load": load}


def _figures(rate: Rate) -> Figures:
    return {
        "per_s": rate.per_s,
        "worker_cpu_us": rate.worker_cpu_s * 1e6,
        "valkey_cpu_us": rate.valkey_cpu_s * 1e6,
        "postgres_cpu_us": rate.postgres_cpu_s * 1e6,
        "round_trips": rate.round_trips,
        "others_cpus": rate.others_cpus,
    }


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Give the two values between which the median lies with at least 95 % confidence, by order statistics.

    The number of values below the median is binomial with p = ½, whatever their distribution (Conover, Practical
    Nonparametric Statistics, 3.2). With fewer than six values no such interval exists: the smallest and the largest.
    """
    ordered, count = sorted(values), len(values)
    rank, below = 0, 0.5**count
    while 2 * (below + math.comb(count, rank + 1) * 0.5**count) <= 0.05:
        rank += 1
        below += math.comb(count, rank) * 0.5**count
    return ordered[rank], ordered[-1 - rank]


def compare(found: dict[str, list[Figures]]) -> dict[str, dict[str, float]]:
    """Give the medians of each figure, and of the ratios now ÷ before of each round."""
    result = {}
    for key in found["before"][0]:
        before, now = ([run[key] for run in found[name]] for name in ("before", "now"))
        result[key] = {"before": statistics.median(before), "now": statistics.median(now)}
        if all(before):
            ratios = [b / a for a, b in zip(before, now, strict=True)]
            low, high = interval(ratios)
            result[key] |= {"ratio": statistics.median(ratios), "low": low, "high": high}
    return result


def table(result: dict[str, Any]) -> str:
    """Lay out one line a figure."""
    lines = [f"{'':24}{'before':>12}{'now':>12}{'now ÷ before':>16}   95 %"]
    for section, figures in result["sections"].items():
        for key, of in figures.items():
            line = f"{section + ' ' + key:24}{_short(of['before']):>12}{_short(of['now']):>12}"
            if key != "others_cpus" and "ratio" in of:
                line += f"{of['ratio']:16.3f}   {of['low']:.3f} to {of['high']:.3f}"
            lines.append(line)
    return "\n".join(lines)


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def main() -> None:
    """Measure and print."""
    options = parse()
    runs: dict[str, dict[str, list[Figures]]] = {}
    with contextlib.ExitStack() as stack:
        versions = [
            open_version(
                stack, name, HeadraceConfig(options.processes, options.max_rows, checkout.resolve(strict=True))
            )
            for name, checkout in (("before", options.before), ("now", options.now))
        ]
        for section in options.only or SECTIONS:
            say(section)
            runs[section] = SECTIONS[section](versions, options)
    result = {"sections": {section: compare(found) for section, found in runs.items()}, "runs": runs}
    print(json.dumps(result, indent=2) if options.json else table(result))


if __name__ == "__main__":
    main()
