"""The process that sends ordinary tasks: at a steady rate, until a line on standard input says that it is enough.

`python -m tests.chaos.plain.load RATE FOLDER`; writes each number that was sent into `sent` before it goes on.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Final

from kombu.exceptions import OperationalError
from tests.chaos.ledger import Journal
from tests.chaos.plain.app import note

#: Between two attempts while the server is away.
RETRY_S: Final = 0.1


def main(rate: float, folder: Path) -> int:
    """Send tasks."""
    enough = threading.Event()
    threading.Thread(target=_obey, args=(enough,), name="orders", daemon=True).start()
    number = 0
    with Journal(folder / "sent") as sent:
        while not enough.wait(1 / rate):
            if _send(number):
                sent.add([str(number)])
            number += 1
    return 0


def _send(number: int) -> bool:
    """Send a task; False when nobody knows whether the server has it, so that nothing is promised."""
    try:
        note.apply_async((number,), retry=False)
    except OperationalError:
        time.sleep(RETRY_S)
        return False
    return True


def _obey(enough: threading.Event) -> None:
    sys.stdin.readline()
    enough.set()
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), Path(sys.argv[2])))
