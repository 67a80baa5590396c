"""How large each measurement is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Plan:
    """Sizes of a run. Rounds alternate the sides; figures are medians over rounds.

    passes: how often each candidate of a sweep is tried. try_s: a try lasts at least so long, measured; sweep_requests
    and headrace_sweep_requests are where the numbers of requests begin. sweep_prefetch: prefetch multipliers tried for
    each pool. processes, max_rows: worker processes and batch sizes of headrace that are tried. kinds: how many of the
    best pools are tried again in the live section. producers: producer processes tried there, on both sides.
    celery_requests, headrace_requests, live_requests (headrace's): per run.
    """

    rounds: int
    passes: int
    try_s: float
    sweep_prefetch: tuple[int, ...]
    sweep_encodings: tuple[str, ...]
    sweep_requests: int
    headrace_sweep_requests: int
    kinds: int
    processes: tuple[int, ...]
    max_rows: tuple[int, ...]
    producers: tuple[int, ...]
    celery_requests: int
    headrace_requests: int
    live_requests: int
    latency_blocks: int
    latency_block: int
    half_load_s: float
    compute_rows: int
    bare_s: float
    memory_requests: int


#: Up to three minutes: figures good enough to see whether a change helped. One pass, so its sweeps may err.
QUICK = Plan(
    rounds=2,
    passes=1,
    try_s=1.5,
    sweep_prefetch=(64,),
    sweep_encodings=("base64",),
    sweep_requests=2_500,
    headrace_sweep_requests=50_000,
    kinds=1,
    processes=(1, 2),
    max_rows=(64, 256),
    producers=(1,),
    celery_requests=3_000,
    headrace_requests=60_000,
    live_requests=40_000,
    latency_blocks=5,
    latency_block=100,
    half_load_s=2.0,
    compute_rows=400,
    bare_s=2.0,
    memory_requests=60_000,
)

#: Up to twelve minutes: the figures of the README.
FULL = Plan(
    rounds=3,
    passes=2,
    try_s=1.5,
    sweep_prefetch=(1, 16, 64, 256),
    sweep_encodings=("base64", "list"),
    sweep_requests=2_500,
    headrace_sweep_requests=50_000,
    kinds=3,
    processes=(1, 2),
    max_rows=(64, 256),
    producers=(1, 2),
    celery_requests=5_000,
    headrace_requests=80_000,
    live_requests=80_000,
    latency_blocks=8,
    latency_block=200,
    half_load_s=4.0,
    compute_rows=800,
    bare_s=3.0,
    memory_requests=150_000,
)

#: Seconds: only to see that everything runs. Its figures mean nothing. It sweeps nothing.
TINY = Plan(
    rounds=1,
    passes=1,
    try_s=0.0,
    sweep_prefetch=(),
    sweep_encodings=(),
    sweep_requests=100,
    headrace_sweep_requests=100,
    kinds=1,
    processes=(1,),
    # Not 64, so that the side with batches of 64 runs too.
    max_rows=(256,),
    producers=(1,),
    celery_requests=200,
    headrace_requests=5_000,
    live_requests=2_000,
    latency_blocks=1,
    latency_block=5,
    half_load_s=0.3,
    compute_rows=32,
    bare_s=0.1,
    memory_requests=2_000,
)
