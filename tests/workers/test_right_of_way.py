"""The main thread steps aside for a few requests, and never for long."""

from __future__ import annotations

import threading
import time

from headrace.workers.process.gil_handoff import GilHandoff


def test_who_steps_aside_goes_on_when_the_way_is_free() -> None:
    way = GilHandoff()
    started = threading.Event()
    passing = threading.Thread(target=lambda: (started.wait(10), way.release()))
    passing.start()
    way.run_and_yield(started.set)
    passing.join()
    assert started.is_set()


def test_what_never_comes_through_holds_up_nobody() -> None:
    way = GilHandoff()
    way.release()
    started = time.monotonic()
    way.run_and_yield(lambda: None)
    assert time.monotonic() - started < 10
