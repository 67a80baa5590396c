"""Records of child processes on disk, so that one whose parent was killed is found and reaped."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path
from typing import Final

import msgspec

from headrace.cli.process.child import KILL_S
from headrace.cli.terminal.errors import StackError

#: A killed process gives its locks back a moment before its children lose it as their parent.
_DYING_S: Final = 1.0


class ChildRecord(msgspec.Struct, frozen=True):
    """A child as its folder remembers it. started_at: distinguishes it from a later process of the same pid."""

    pid: int
    started_at: float
    parent_pid: int
    port: int = 0


def write_record(path: Path, pid: int, port: int = 0) -> None:
    """Write the record of a child that was just started."""
    import psutil

    with contextlib.suppress(psutil.NoSuchProcess):
        record = ChildRecord(pid=pid, started_at=psutil.Process(pid).create_time(), parent_pid=os.getpid(), port=port)
        path.write_bytes(msgspec.json.encode(record))


def read_record(path: Path) -> ChildRecord | None:
    """Read the record of the last child; None when there is none that can be read."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=ChildRecord)
    except (OSError, msgspec.MsgspecError):
        return None


def reap_orphan(record: ChildRecord | None, stop_signal: signal.Signals, grace_s: float) -> None:
    """Wait for the end of a child whose parent was killed, so that two servers never write the same data.

    The kernel has told it to end; it is told once more, and killed after `grace_s`. Raises StackError when its parent
    lives, to whom it then belongs.
    """
    import psutil

    if record is None:
        return
    try:
        process = psutil.Process(record.pid)
        if process.create_time() != record.started_at:
            return
        if process.ppid() == record.parent_pid:
            _await_parent(record)
        process.send_signal(stop_signal)
        try:
            process.wait(grace_s)
        except psutil.TimeoutExpired:
            process.kill()
            process.wait(KILL_S)
    except psutil.NoSuchProcess:
        return


def _await_parent(record: ChildRecord) -> None:
    """Wait for the end of a parent that was killed a moment ago. Raises StackError when it lives on."""
    import psutil

    try:
        psutil.Process(record.parent_pid).wait(_DYING_S)
    except psutil.NoSuchProcess:
        return
    except psutil.TimeoutExpired:
        raise StackError(
            f"this server runs already (pid {record.pid}), started by process {record.parent_pid}; "
            "stop that one first, or use another folder"
        ) from None
