"""Statistics of models as Triton's extension has them, from sums over rows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec


class Sum(msgspec.Struct, frozen=True):
    """Requests to a version of a model in batches of one size.

    batch_rows: 0 for requests that no batch ran. queued_s, ran_s: over all requests.
    """

    succeeded: bool
    batch_rows: int
    requests: int
    batches: int
    queued_s: float
    ran_s: float


def model_statistics(name: str, version: str, sums: Iterable[Sum], last_ms: int) -> dict[str, Any]:
    """Return the statistics of a version of a model. last_ms: when its last request ended, since 1970; 0 for none.

    `inference_count` counts rows, `execution_count` batches: their quotient is the mean batch. headrace does not time
    decoding and encoding apart from the model, so that compute_input and compute_output have counts, but no time.
    """
    good = [each for each in sums if each.succeeded]
    bad = [each for each in sums if not each.succeeded]
    batches = [each for each in good if each.batch_rows]
    requests = sum(each.requests for each in good)
    queued_s, ran_s = sum(each.queued_s for each in good), sum(each.ran_s for each in good)
    return {
        "name": name,
        "version": version,
        "last_inference": last_ms,
        "inference_count": sum(each.batches * each.batch_rows for each in batches),
        "execution_count": sum(each.batches for each in batches),
        "inference_stats": {
            "success": _duration(requests, queued_s + ran_s),
            "fail": _duration(sum(each.requests for each in bad), sum(each.queued_s + each.ran_s for each in bad)),
            "queue": _duration(requests, queued_s),
            "compute_input": _duration(requests, 0),
            "compute_infer": _duration(requests, ran_s),
            "compute_output": _duration(requests, 0),
            "cache_hit": _duration(0, 0),
            "cache_miss": _duration(0, 0),
        },
        "batch_stats": [
            {
                "batch_size": size,
                "compute_input": _duration(count, 0),
                "compute_infer": _duration(count, seconds),
                "compute_output": _duration(count, 0),
            }
            for size, count, seconds in _by_size(batches)
        ],
    }


def _by_size(batches: Iterable[Sum]) -> list[tuple[int, int, float]]:
    """Return size, number and seconds of batches. Every request of a batch has the whole time of it."""
    found: dict[int, tuple[int, float]] = {}
    for each in batches:
        count, seconds = found.get(each.batch_rows, (0, 0.0))
        found[each.batch_rows] = (count + each.batches, seconds + each.ran_s * each.batches / each.requests)
    return [(size, *found[size]) for size in sorted(found)]


def _duration(count: int, seconds: float) -> dict[str, int]:
    return {"count": count, "ns": round(seconds * 1e9)}
