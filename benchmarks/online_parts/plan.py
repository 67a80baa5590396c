"""How large each measurement is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Plan:
    """Sizes of a run. Rounds alternate the sides; figures are medians over rounds.

    sweep_prefetch: prefetch multipliers tried for each pool. kinds: how many of the best kinds of rival go on to the
    live and latency sections. processes: worker processes of headrace that are tried. producers: producer processes
    that are tried, on both sides. celery_requests, headrace_requests: per run.
    """

    rounds: int
    sweep_prefetch: tuple[int, ...]
    sweep_encodings: tuple[str, ...]
    sweep_requests: int
    kinds: int
    processes: tuple[int, ...]
    producers: tuple[int, ...]
    celery_requests: int
    headrace_requests: int
    latency_blocks: int
    latency_block: int
    half_load_s: float
    compute_rows: int
    bare_s: float
    memory_requests: int


#: About two minutes: figures good enough to see whether a change helped.
QUICK = Plan(
    rounds=3,
    sweep_prefetch=(64,),
    sweep_encodings=("base64",),
    sweep_requests=1_000,
    kinds=2,
    processes=(1, 2),
    producers=(1, 2),
    celery_requests=1_500,
    headrace_requests=30_000,
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
    sweep_prefetch=(1, 16, 64, 256),
    sweep_encodings=("base64", "list"),
    sweep_requests=2_000,
    kinds=4,
    processes=(1, 2),
    producers=(1, 2),
    celery_requests=5_000,
    headrace_requests=100_000,
    latency_blocks=8,
    latency_block=200,
    half_load_s=8.0,
    compute_rows=1_200,
    bare_s=4.0,
    memory_requests=200_000,
)

#: Seconds: only to see that everything runs. Its figures mean nothing.
TINY = Plan(
    rounds=1,
    sweep_prefetch=(),
    sweep_encodings=(),
    sweep_requests=100,
    kinds=1,
    processes=(1,),
    producers=(1,),
    celery_requests=200,
    headrace_requests=500,
    latency_blocks=1,
    latency_block=5,
    half_load_s=0.3,
    compute_rows=32,
    bare_s=0.1,
    memory_requests=2_000,
)
