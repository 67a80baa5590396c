"""Whether waiting for company pays: one simulated executor, with and without waits, under several kinds of traffic.

python -m benchmarks.waiting        (from the root of the repository)
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import fmean

from tests.workers.batching.simulation import Device, Outcome, Simulation, bursts, poisson

from headrace.workers.batching import BatchPolicy

DEVICES = [
    Device(fixed_s, row_s)
    for fixed_s, row_s in [
        (2e-4, 1e-6),
        (1e-3, 1e-5),
        (1e-3, 2e-4),
        (5e-3, 1e-4),
        (2e-2, 1e-3),
        (1e-2, 0.0),
        (1e-4, 5e-3),
        (3e-3, 3e-3),
    ]
]
LOADS = (0.01, 0.1, 0.3, 0.5, 0.8, 0.95, 1.3)
REQUESTS = 8000
ROWS = 64


def compare(name: str, simulate: Callable[[BatchPolicy], Outcome]) -> None:
    without, waiting = simulate(BatchPolicy(ROWS, 0.0)), simulate(BatchPolicy(ROWS, 0.002))
    print(
        f"{name:<52}{without.mean_s * 1e3:>10.3f}{waiting.mean_s * 1e3:>10.3f}"
        f"{waiting.mean_s / without.mean_s - 1:>+8.1%}{waiting.per_second / without.per_second - 1:>+8.1%}"
        f"{waiting.waits:>7}{fmean(without.batch_rows):>7.1f}{fmean(waiting.batch_rows):>7.1f}"
    )


def main() -> None:
    print(f"{'traffic':<52}{'mean ms':>10}{'waiting':>10}{'':>8}{'rate':>8}{'waits':>7}{'rows':>7}{'rows':>7}")
    for device in DEVICES:
        capacity = ROWS / (device.fixed_s + device.row_s * ROWS)
        line = f"a {device.fixed_s * 1e3:g} ms, b {device.row_s * 1e3:g} ms"
        for load in LOADS:
            compare(
                f"{line}: Poisson, load {load:.0%}",
                lambda policy, rate=load * capacity, device=device: Simulation(device, policy).run(
                    poisson(rate, REQUESTS)
                ),
            )
        for clients in (1, 4, 16, 64):
            compare(
                f"{line}: {clients} clients",
                lambda policy, clients=clients, device=device: Simulation(device, policy).run_clients(
                    clients, REQUESTS, (0.0005, 0.001)
                ),
            )
        compare(
            f"{line}: bursts of 20 within 1 ms",
            lambda policy, device=device: Simulation(device, policy).run(bursts(0.1, 20, 0.001, REQUESTS)),
        )


if __name__ == "__main__":
    main()
