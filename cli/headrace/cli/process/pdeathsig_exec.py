"""Becomes a command that ends when its parent does; run as a script, never imported.

    python -I -S pdeathsig_exec.py PARENT_PID SIGNAL UID:GID COMMAND...

On Linux the kernel sends SIGNAL to the command when the thread that started it is gone, even after a `kill -9`. UID:GID
is the account to run as, `-` for the present one. A script, because the same in `preexec_fn` would run Python between
fork and exec of a process that has threads; it costs 15 ms once.
"""

import ctypes
import os
import sys

#: From <linux/prctl.h>.
PR_SET_PDEATHSIG = 1


def main(parent_pid: int, signal_number: int, account: str, command: list[str]) -> None:
    """Take the account, ask for the signal, and become the command."""
    if account != "-":
        uid, gid = map(int, account.split(":"))
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    if sys.platform == "linux":
        # After setuid, which would clear it again.
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal_number, 0, 0, 0)
    if os.getppid() != parent_pid:
        sys.exit("the process that started this one is gone")
    os.execv(command[0], command)  # noqa: S606  (there is no shell, and none is wanted)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4:])
