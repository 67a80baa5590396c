"""A queue that gets room while the doorbells of others are being waited for: it is claimed, and waited for, at once."""

from __future__ import annotations

from typing import Any

import kombu
import pytest
from tests.queueing.channel.test_idle import Turn, idle

from headrace.queueing import headrace_url
from headrace.queueing.channel.channel import MANY_QUEUES

#: A wait that nobody cuts lasts for so long, which is longer than the tests have.
WAIT_S = 300.0

many_or_few = pytest.mark.parametrize("queues", [3, MANY_QUEUES + 3])


class Window:
    """Room for 10 messages of each queue, but for none of q0 until it was asked for that queue often enough."""

    def __init__(self) -> None:
        self.asked = 0
        self.closed_for = float("inf")

    def __call__(self, queue: str) -> int:
        if queue != "q0":
            return 10
        self.asked += 1
        return 10 if self.asked > self.closed_for else 0


def publish(url: str, queue: str, body: str) -> None:
    with kombu.Connection(headrace_url(url)) as connection:
        kombu.Producer(connection.channel()).publish(body, routing_key=queue, content_type="text/plain")


def close_first(turn: Turn, channel: Any) -> Window:
    """Turn the loop until the channel waits for the doorbells of all queues but the first."""
    window = channel.window = Window()
    channel.brpop_timeout = WAIT_S
    channel.wake()
    turn(lambda: bool(channel._in_poll))
    if "q0" in channel._bell.awaited:
        channel._bell.cut()
    turn(lambda: bool(channel._in_poll) and not channel._eager and "q0" not in channel._bell.awaited)
    assert len(channel._bell.awaited) == len(channel._active_queues) - 1
    return window


@many_or_few
def test_it_is_claimed_though_the_thread_was_awake_when_room_returned(broker_url: str, queues: int) -> None:
    with idle(broker_url, queues) as (consumer, turn):
        window = close_first(turn, consumer.channel)
        publish(broker_url, "q0", "waited")
        # The thread finds no room when it wakes, and some before it waits again; who made room woke nobody, for it was
        # awake.
        window.closed_for = window.asked + 2
        consumer.channel.wake()
        turn(lambda: "waited" in consumer.bodies)


@many_or_few
def test_its_doorbell_is_waited_for_from_then_on(broker_url: str, queues: int) -> None:
    with idle(broker_url, queues) as (consumer, turn):
        channel = consumer.channel
        window = close_first(turn, channel)
        window.closed_for = 0
        channel.claim_soon()
        turn(lambda: bool(channel._in_poll) and "q0" in channel._bell.awaited)
        publish(broker_url, "q0", "late")
        turn(lambda: "late" in consumer.bodies)
