"""A process that renews leases in the place of one that is busy; run as a script, in an interpreter without packages.

It sleeps while its parent's own thread renews and signals it (`beat`). It takes over when that thread is silent for
longer than a beat and a half: the interpreter is held by a library, or the hub of gevent by a task. Only then does it
import redis-py, so that it costs some 3 MB while it sleeps. It ends with its parent, however that ends.

Standard input has a line for each event: `take ID EVERY_S JSON` (see `Lease`; again when something has changed), `beat
ID`, `hold ID` (don't renew until the next beat), `drop ID`, `quit`. So no credential is seen from outside.
"""

from __future__ import annotations

import os
import select
import sys
import time

TYPE_CHECKING = False  # `typing` would cost a third of a megabyte
if TYPE_CHECKING:
    from typing import Any

    import redis

#: Number of beats after which a silent parent is taken to be unable to renew.
SILENT_BEATS = 1.5

#: With a beat below this the import of redis-py, some 0.3 s, would come too late: then it is done at once.
WARM_BELOW_S = 2.0

#: Factor by which the next renewal comes sooner after one that failed.
HASTE = 4

#: How often the parent is looked at where the kernel can't signal its end (no pidfd).
LOOK_S = 1.0

#: Longest wait for a connection or an answer; shorter where the lease is.
TIMEOUT_S = 5.0


class Lease:
    """One consumer's lease, and how to renew it: JSON of `path` (sys.path), `unix`, `tls`, `options`, `commands`.

    Where Sentinels watch the server there is `sentinels` as well: `name`, `addresses` and `options`.
    """

    def __init__(self, every_s: float, text: bytes) -> None:
        """every_s: how often it is to be renewed, which is how often the parent beats."""
        self.every_s = every_s
        self.text = text
        self.due = time.monotonic() + SILENT_BEATS * every_s
        self.client: redis.Redis | None = None
        if every_s < WARM_BELOW_S:
            self._read()

    def beat(self) -> None:
        """Note that the parent renews by itself."""
        self.due = time.monotonic() + SILENT_BEATS * self.every_s
        if self.every_s >= WARM_BELOW_S:
            self._disconnect()

    def hold(self) -> None:
        """Renew no more until the next beat."""
        self.due = float("inf")

    def renew(self, parent: int) -> None:
        """Renew now, unless the parent is stopped; what fails is tried again soon."""
        started = time.monotonic()
        renewed = False
        if not is_stopped(parent):
            described = self._read()
            from redis.exceptions import RedisError

            try:
                client = self._connect(described)
                for command in described["commands"]:
                    client.execute_command(*command)  # type: ignore[no-untyped-call]
                renewed = True
            except RedisError:
                # The parent logs that the server is away, as soon as it can; here there is only the next try.
                if described.get("sentinels"):
                    self._disconnect()
        self.due = started + (self.every_s if renewed else self.every_s / HASTE)

    def _read(self) -> dict[str, Any]:
        """Return the description of the lease, and make sure that redis-py can be imported."""
        import json

        described: dict[str, Any] = json.loads(self.text)
        sys.path[:] = described["path"]
        import redis  # noqa: F401  # so that it is there when it is needed

        return described

    def _connect(self, described: dict[str, Any]) -> redis.Redis:
        import redis

        if self.client is None:
            kind: Any = redis.Connection
            if described["unix"]:
                kind = redis.UnixDomainSocketConnection
            elif described["tls"]:
                kind = redis.SSLConnection
            timeout_s = min(self.every_s, TIMEOUT_S)
            timeouts = {"socket_timeout": timeout_s}
            if not described["unix"]:
                timeouts["socket_connect_timeout"] = timeout_s
            master = find_master(described["sentinels"], timeout_s / 2) if described.get("sentinels") else {}
            pool = redis.ConnectionPool(connection_class=kind, **{**described["options"], **master, **timeouts})
            self.client = redis.Redis(connection_pool=pool)
        return self.client

    def _disconnect(self) -> None:
        if self.client is not None:
            self.client.close()
            self.client = None


def find_master(watchers: dict[str, Any], timeout_s: float) -> dict[str, Any]:
    """Ask Sentinels where the server is that they watch. Raises redis-py's errors."""
    from redis.backoff import NoBackoff
    from redis.retry import Retry
    from redis.sentinel import Sentinel

    options = {"socket_timeout": timeout_s, "socket_connect_timeout": timeout_s, "retry": Retry(NoBackoff(), 0)}
    addresses = [tuple(address) for address in watchers["addresses"]]
    with Sentinel(addresses, sentinel_kwargs={**watchers["options"], **options}) as sentinels:  # type: ignore[no-untyped-call]
        host, port = sentinels.discover_master(watchers["name"])
    return {"host": host, "port": port}


def is_stopped(pid: int) -> bool:
    """Return whether a process is stopped by a signal or a debugger; it does no work then, and others should."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:  # noqa: PTH123 (pathlib is heavy)
            return stat.read().rpartition(b")")[2].split()[0] in (b"T", b"t")
    except OSError:  # no Linux, or no such process any more, which is noticed elsewhere
        return False


def read_lines(buffer: bytes, leases: dict[bytes, Lease]) -> bytes:
    """Execute the complete lines of a buffer; return its rest. Raises SystemExit for `quit`."""
    *lines, rest = buffer.split(b"\n")
    for line in lines:
        verb, _, arguments = line.partition(b" ")
        if verb == b"quit":
            raise SystemExit(0)
        name, _, text = arguments.partition(b" ")
        if verb == b"take":
            every_s, _, described = text.partition(b" ")
            leases[name] = Lease(float(every_s), described)
        elif verb == b"drop":
            leases.pop(name, None)
        elif name in leases:
            leases[name].beat() if verb == b"beat" else leases[name].hold()
    return rest


def serve(parent: int) -> None:
    """Serve until the parent ends, closes its end or sends `quit`."""
    poll = select.poll()
    poll.register(0, select.POLLIN)
    pidfd = -1
    if hasattr(os, "pidfd_open"):
        try:
            pidfd = os.pidfd_open(parent)
            poll.register(pidfd, select.POLLIN)
        except OSError:
            pidfd = -1
    buffer = b""
    leases: dict[bytes, Lease] = {}
    while os.getppid() == parent:
        waits = [lease.due - time.monotonic() for lease in leases.values() if lease.due != float("inf")]
        if pidfd < 0:
            waits.append(LOOK_S)
        ready = [fd for fd, _ in poll.poll(max(0.0, min(waits)) * 1000 if waits else None)]
        if pidfd in ready:
            return
        if 0 in ready:
            data = os.read(0, 1 << 16)
            if not data:
                return
            buffer = read_lines(buffer + data, leases)
            continue  # a beat that has just come is reason enough to renew nothing
        now = time.monotonic()
        for lease in leases.values():
            if lease.due <= now:
                lease.renew(parent)


if __name__ == "__main__":
    os.closerange(3, 4096)  # descriptors that the parent let its children inherit
    serve(int(sys.argv[1]))
