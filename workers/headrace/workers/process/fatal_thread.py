"""Threads whose failure must terminate the worker process."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from typing import Final

logger = logging.getLogger(__name__)

#: `EX_SOFTWARE` of sysexits.h: an error of ours.
EXIT_CODE: Final = 70


def fatal_thread(name: str, target: Callable[[], None]) -> threading.Thread:
    """Make a thread whose failure ends the process.

    A worker that lives on without its executor or outbox would claim requests and never answer them. Ended, it leaves
    them to its lease, and the supervisor starts another.
    """

    def run() -> None:
        try:
            target()
        except BaseException:
            logger.critical("%s failed; the worker ends, its requests will be delivered again", name, exc_info=True)
            logging.shutdown()
            os._exit(EXIT_CODE)

    return threading.Thread(target=run, name=name, daemon=True)
