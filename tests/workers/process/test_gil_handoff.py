"""The main thread hands the GIL to a thread that makes a few requests, and never waits long for it."""

from __future__ import annotations

import threading

from headrace.workers.process.gil_handoff import GilHandoff

#: Far above the longest time that the main thread may wait; only a test that hangs takes as long.
HANGS_S = 10


def test_the_main_thread_goes_on_when_the_other_thread_is_done() -> None:
    way = GilHandoff()
    started = threading.Event()

    def wait_and_release() -> None:
        started.wait(HANGS_S)
        way.release()

    passing = threading.Thread(target=wait_and_release)
    passing.start()
    way.run_and_yield(started.set)
    passing.join()
    assert started.is_set()


def test_the_main_thread_goes_on_although_the_other_thread_never_makes_its_requests() -> None:
    way = GilHandoff()
    way.release()
    waiting = threading.Thread(target=way.run_and_yield, args=(lambda: None,), daemon=True)
    waiting.start()
    waiting.join(HANGS_S)
    assert not waiting.is_alive()
