"""The identity of a process, by which another one on the same machine can tell that it is gone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

#: States of processes that have ended: zombies, and those that are being removed.
_ENDED: Final = ("Z", "X", "x")


def own_identity() -> str:
    """Return the identity of this process: machine since its boot, PID namespace, PID and start; "" where unknown.

    Unlike a host name, which containers and clones of machines share, no two processes have the same one.
    """
    place = _place()
    start = _start_of(os.getpid())
    return f"{place}:{os.getpid()}:{start}" if place and start else ""


def is_gone(identity: str) -> bool:
    """Return whether a process has ended for certain; False for one on another machine or in another container."""
    place, _, process = identity.partition(":")
    pid, _, start = process.partition(":")
    if not start or place != _place() or not pid.isdecimal():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass  # it is another user's, and may have the PID since the one that is asked for has ended
    return _start_of(int(pid)) not in (start, None)


def _place() -> str:
    """Return the boot of this machine and the namespace in which PIDs are counted; "" where the system has no such."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = Path("/proc/self/ns/pid").readlink()
    except OSError:
        return ""
    return f"{boot}/{str(namespace).strip('pid:[]')}"


def _start_of(pid: int) -> str | None:
    """Return when a process began, in ticks since the boot; "" if it has ended, None if it can't be read."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return "" if fields[0] in _ENDED else fields[19]
