"""Writes the result: one JSON object for programs, one table for people."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

#: Packages whose versions belong to the figures.
PACKAGES = ("celery", "kombu", "redis", "hiredis", "onnxruntime", "psycopg", "headrace")

#: From this many CPUs busy with other work on, figures deserve a warning.
BUSY_CPUS = 0.15


def machine() -> dict[str, Any]:
    """Describe where the figures come from."""
    return {
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
        "cpu": _cpu_name(),
        "load_average_before": os.getloadavg()[0],
        "started_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "packages": {name: version(name) for name in PACKAGES},
    }


def _cpu_name() -> str:
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as lines:
            return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
    except OSError:
        return platform.processor()


def compose(sections: Mapping[str, Any], about: Mapping[str, Any]) -> dict[str, Any]:
    """Put the headline figures in front; a section that did not run leaves None."""
    drain, live, latency = sections.get("drain"), sections.get("live"), sections.get("latency")
    compute, memory = sections.get("compute"), sections.get("memory")
    at_64 = _at_64(drain["sides"]) if drain else None
    kept = ("requests", "growth_mb", "slope_mb_per_100k", "resident_mb")
    return {
        "drain_ratio": drain and drain["ratio"],
        "drain_ratio_two_workers": drain and drain["ratio_two_workers"],
        "live_ratio": live and live["ratio"],
        "live_ratio_two_workers": live and live["ratio_two_workers"],
        "idle_latency_ratio": latency and latency["ratio"],
        "batch_efficiency": compute and compute["ratio"],
        "round_trips_per_request": at_64 and _round_trips(at_64),
        "worker_memory": memory and {name: memory[name] for name in kept},
        "raw": dict(sections),
        "machine": {**about, "load_average_after": os.getloadavg()[0]},
    }


def table(result: Mapping[str, Any]) -> str:
    """Lay the figures out as a Markdown table."""
    raw = result["raw"]
    rows = [("", "plain Celery", "headrace", "ratio")]
    for name, title in (("drain", "preloaded queue, requests/s"), ("live", "producers and workers, requests/s")):
        rows += _rates(title, raw[name]) if name in raw else []
    rows += _latency(raw["latency"]) if "latency" in raw else []
    if "compute" in raw:
        found = raw["compute"]
        bare = f"bare loop {found['bare_rows_per_s']:,.1f}"
        title = f"compute-bound, rows/s, batches of {found['batch_rows']}"
        rows.append((title, bare, f"{found['headrace']['per_s']:,.1f}", f"{found['ratio']:.3f}"))
    if "memory" in raw:
        found = raw["memory"]
        grown = f"{found['growth_mb']:+.1f} MB of {found['resident_mb']:.0f}"
        rows.append((f"worker memory over {found['requests']:,} requests", "", grown, ""))
        rows.append(("  with", "", found["config"], ""))
    return _align(rows) + _warning(raw)


def _warning(raw: Mapping[str, Any]) -> str:
    """Say so when the machine did other work meanwhile."""
    sides = [side for name in ("drain", "live") if name in raw for side in raw[name]["sides"].values()]
    others = max((side["others_cpus"] for side in sides), default=0.0)
    if others < BUSY_CPUS:
        return ""
    return f"\n\nOther processes kept {others:.1f} CPUs busy during these runs: measure again on a quiet machine."


def _at_64(sides: Mapping[str, Any]) -> Mapping[str, Any]:
    """Give headrace's runs with batches of up to 64 rows: a side of their own where its best has larger ones."""
    found: Mapping[str, Any] = sides.get("headrace_64", sides["headrace"])
    return found


def _round_trips(side: Mapping[str, Any]) -> float:
    """Add up those of submitting and of draining; the live section counts them together."""
    return float(side["round_trips"] + side.get("submit_round_trips", 0.0))


def _rates(title: str, section: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    sides = section["sides"]
    celery, two, ours = sides["celery"], sides["celery_two_workers"], sides["headrace"]
    at_64 = _at_64(sides)
    rows = [
        (title, f"{celery['per_s']:,.0f}", f"{ours['per_s']:,.0f}", f"{section['ratio']:.1f}"),
        ("  with", celery["config"], ours["config"], ""),
        ("  against two workers", f"{two['per_s']:,.0f}", "", f"{section['ratio_two_workers']:.1f}"),
        ("    with", two["config"], "", ""),
    ]
    if at_64 is not ours:
        rows.append(("  with batches ≤ 64", "", f"{at_64['per_s']:,.0f}", f"{section['ratio_at_64']:.1f}"))
        rows.append(("    with", "", at_64["config"], ""))
    batches = f"(batches ≤ {at_64['max_rows']})"
    for name, label in (("worker", "workers"), ("valkey", "Valkey"), ("postgres", "Postgres")):
        theirs, mine = celery[f"{name}_cpu_s"] * 1e6, at_64[f"{name}_cpu_s"] * 1e6
        rows.append((f"  CPU µs/request, {label}", f"{theirs:,.0f}", f"{mine:,.0f} {batches}", ""))
    trips = f"{_round_trips(at_64):.3f} {batches}"
    rows.append(("  Redis round trips/request", f"{_round_trips(celery):.2f}", trips, ""))
    return rows


def _latency(section: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    idle, half = section["idle"], section["half_load"]
    own, same = half["headrace_half_of_its_own"], half["headrace"]
    celery_half, ratio = half["celery"], f"{section['ratio']:.2f}"
    return [
        ("idle p50 / p99, ms", _ms(idle["celery"]), _ms(idle["headrace"]), ratio),
        ("  with", section["config"]["celery"], section["config"]["headrace"], ""),
        (f"at {same['arrivals_per_s']:,.0f}/s, p50 / p99, ms", _ms(celery_half), _ms(same), ""),
        (f"at {own['arrivals_per_s']:,.0f}/s, p50 / p99, ms", "", _ms(own), ""),
    ]


def _ms(found: Mapping[str, float]) -> str:
    return f"{found['p50_s'] * 1e3:.2f} / {found['p99_s'] * 1e3:.2f}"


def _align(rows: list[tuple[str, str, str, str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])
