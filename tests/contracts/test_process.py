"""A process that asked for it ends with its parent, even when that is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

CHILD = """
import os, signal, time
from headrace.contracts.process import end_with_parent
print(end_with_parent(os.getppid(), signal.SIGKILL), flush=True)
time.sleep(30)
"""

PARENT = f"""
import subprocess, sys
subprocess.run([sys.executable, "-c", {CHILD!r}])
"""


def test_a_killed_parent_takes_its_child_with_it() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "True\n"
        parent.send_signal(signal.SIGKILL)
        # The child holds the other end of the pipe: its end is the end of the file.
        assert parent.stdout.read() == ""


def test_a_parent_that_ended_before_is_noticed() -> None:
    code = (
        "import signal; from headrace.contracts.process import end_with_parent\n"
        f"print(end_with_parent({os.getppid()}, signal.SIGTERM))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "False\n"
