"""The figures of a run, for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: Figure → its line, how it is written.
LINES = {
    "full_batches_rows_per_s": ("rows/s, bare client, full batches", "{:,.0f}"),
    "single_rows_per_s": ("rows/s, bare client, a row a call", "{:,.0f}"),
    "headrace_rows_per_s": ("rows/s, headrace, a row a request, submitted together", "{:,.0f}"),
    "headrace_callers_rows_per_s": ("rows/s, headrace, a row a request, each caller waits", "{:,.0f}"),
    "heavy_full_batches_rows_per_s": ("`heavy`: rows/s, bare client, full batches", "{:,.0f}"),
    "heavy_headrace_rows_per_s": ("`heavy`: rows/s, headrace, submitted together", "{:,.0f}"),
    "heavy_of_full_batches": ("`heavy`: headrace ÷ bare client with full batches", "{:.2f}"),
    "deep_full_batches_rows_per_s": ("`deep`: rows/s, bare client, full batches", "{:,.0f}"),
    "deep_headrace_rows_per_s": ("`deep`: rows/s, headrace, submitted together", "{:,.0f}"),
    "deep_of_full_batches": ("`deep`: headrace ÷ bare client with full batches", "{:.2f}"),
    "of_full_batches": ("headrace ÷ bare client with full batches", "{:.2f}"),
    "of_single": ("headrace ÷ bare client with a row a call", "{:.2f}"),
    "mean_batch_rows": ("rows of a batch, as its requests saw it", "{:.1f}"),
    "idle_p50_s": ("idle p50, bare client, ms", "{:.2f}"),
    "headrace_idle_p50_s": ("idle p50, headrace, ms", "{:.2f}"),
    "idle_added_p50_s": ("added by headrace, ms", "{:.2f}"),
}


def table(found: Mapping[str, Any]) -> str:
    """Return a column for each server."""
    servers = [name for name in found if name != "machine"]
    lines = [f"{'':<58}" + "".join(f"{name:>12}" for name in servers)]
    for figure, (title, form) in LINES.items():
        factor = 1e3 if figure.endswith("_s") and "per_s" not in figure else 1
        values = [form.format(found[name][figure] * factor) for name in servers]
        lines.append(f"{title:<58}" + "".join(f"{value:>12}" for value in values))
    return "\n".join(lines)
