"""The main thread steps aside for a few requests, and never for long."""

from __future__ import annotations

import threading
import time

from headrace.workers.process.gil_handoff import RightOfWay


def test_who_steps_aside_goes_on_when_the_way_is_free() -> None:
    way = RightOfWay()
    started = threading.Event()
    passing = threading.Thread(target=lambda: (started.wait(10), way.make_free()))
    passing.start()
    way.give(started.set)
    passing.join()
    assert started.is_set()


def test_what_never_comes_through_holds_up_nobody() -> None:
    way = RightOfWay()
    way.make_free()
    started = time.monotonic()
    way.give(lambda: None)
    assert time.monotonic() - started < 10
