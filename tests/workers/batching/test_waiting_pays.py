"""Waiting for company never costs more than it saves: exact simulations of one executor, against no waiting at all."""

from __future__ import annotations

import random

import pytest
from tests.workers.batching.simulation import Device, Outcome, Simulation, bursts, poisson

from headrace.workers.batching import BatchPolicy, CostModel
from headrace.workers.batching.waiting import Waiting

WAITING = BatchPolicy()
NOT_WAITING = BatchPolicy(max_wait_s=0)

#: Fixed and per-row seconds: dominated by the fixed part, by the rows, and in between.
DEVICES = [Device(2e-4, 1e-6), Device(1e-3, 2e-4), Device(5e-3, 1e-4), Device(2e-2, 1e-3), Device(1e-4, 5e-3)]

REQUESTS = 4000


def capacity(device: Device) -> float:
    """Give the most requests a second, in full batches."""
    return WAITING.max_rows / device.run_s(WAITING.max_rows, FixedChance())


class FixedChance(random.Random):
    def uniform(self, a: float, b: float) -> float:
        return 0.0


def under_poisson(device: Device, policy: BatchPolicy, load: float, seed: int) -> Outcome:
    return Simulation(device, policy).run(poisson(load * capacity(device), REQUESTS, seed))


def test_a_stream_that_comes_anyway_pays_for_the_wait_too() -> None:
    seconds = CostModel(0.010, 0.0).predict
    assert Waiting(1, 1, 2.0, 2.0, 0.001, seconds).saves_s() == pytest.approx(2 * 0.010 - 3 * 0.001)
    assert Waiting(1, 1, 2.0, 20.0, 0.001, seconds).saves_s() == pytest.approx(2 * 0.010 - 21 * 0.001)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("load", [0.01, 0.1, 0.3, 0.5, 0.8, 0.95])
def test_random_traffic_is_at_most_two_percent_slower_than_without_waits(device: Device, load: float) -> None:
    waiting, not_waiting = (under_poisson(device, policy, load, seed=3) for policy in (WAITING, NOT_WAITING))
    assert waiting.mean_s <= 1.02 * not_waiting.mean_s


@pytest.mark.parametrize("device", DEVICES)
def test_throughput_at_saturation_is_the_same_to_the_last_request(device: Device) -> None:
    waiting, not_waiting = (under_poisson(device, policy, 1.5, seed=4) for policy in (WAITING, NOT_WAITING))
    assert waiting.per_second >= 0.999 * not_waiting.per_second


@pytest.mark.parametrize("device", DEVICES)
def test_one_client_at_a_time_never_waits(device: Device) -> None:
    outcome = Simulation(device, WAITING).run_clients(1, REQUESTS, (0.0, 0.002))
    assert (outcome.waits, outcome.waited_s) == (0, 0.0)


@pytest.mark.parametrize("clients", [2, 4, 16, 64])
@pytest.mark.parametrize("device", DEVICES)
def test_clients_that_wait_for_their_replies_are_served_as_fast_as_without_waits(device: Device, clients: int) -> None:
    waiting, not_waiting = (
        Simulation(device, policy).run_clients(clients, REQUESTS, (0.0005, 0.003)) for policy in (WAITING, NOT_WAITING)
    )
    assert waiting.mean_s <= 1.03 * not_waiting.mean_s
    assert waiting.per_second >= 0.98 * not_waiting.per_second


def test_bursts_on_a_device_with_high_fixed_cost_gain_a_third() -> None:
    device = Device(2e-2, 1e-4)
    waiting, not_waiting = (
        Simulation(device, policy).run(bursts(0.1, 20, 0.001, REQUESTS)) for policy in (WAITING, NOT_WAITING)
    )
    assert waiting.mean_s <= 0.67 * not_waiting.mean_s
    assert len(waiting.batch_rows) < 0.67 * len(not_waiting.batch_rows)
