"""All that a run is made of: Valkey, Postgres, the proxies before them, worker processes and client processes.

Valkey syncs its append-only file before it answers (`appendfsync always`). That is what the guarantee needs against the
loss of a machine, and also against a `kill -9` of the server alone: with `everysec` Valkey may keep acknowledged
writes in its own memory for up to two seconds while an earlier sync is still under way. A clean restart (SIGTERM)
loses nothing with either.
"""

from __future__ import annotations

import os
import re
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from urllib.parse import parse_qs, urlsplit

import redis
import redis.backoff
import redis.retry
from tests.chaos.fork_server import ForkServer
from tests.chaos.models import write_models
from tests.chaos.plain.app import QUEUE
from tests.chaos.refused import refuse_some_rows
from tests.chaos.wire.proxy import Proxy, ProxyLoop, tcp, unix
from tests.chaos.worker import PLAIN
from tests.chaos.worker_slot import Death, WorkerSlot

from headrace.cli.stack.servers import Postgres, Valkey
from headrace.queueing import keys

ROOT: Final = Path(__file__).parents[2]
DATABASE: Final = "chaos"

#: While Valkey restarts, what a dead worker held can't be read; it is tried so often for about a lease.
HELD_TRIES: Final = 10

_REQUEST_ID: Final = re.compile(rb'"id": ?"([^"]+)"')


@dataclass(frozen=True)
class ClusterOptions:
    """How large the cluster is. lease_s, grace_s: of the workers. outbox_rows: small, so that an outage fills it.

    timeout_s: how long any read or write may be silent. plain_workers: beside the `workers` that do inference.
    """

    workers: int = 3
    lease_s: float = 3.0
    grace_s: float = 10.0
    outbox_rows: int = 2_000
    timeout_s: float = 3.0
    plain_workers: int = 1


class SyncingValkey(Valkey):
    """Valkey that syncs each write before it answers. load_delay_us: how long it takes to load each key."""

    load_delay_us = 0

    def _options(self) -> Sequence[str]:
        slow = {"key-load-delay": self.load_delay_us, "loading-process-events-interval-bytes": 1024}
        more = {"appendfsync": "always", **(slow if self.load_delay_us else {})}
        return [*super()._options(), *(part for name, value in more.items() for part in (f"--{name}", str(value)))]


class Cluster:
    """Starts everything; use it as a context manager.

    Servers are bound to the thread that starts them, so each has a thread of its own: `on_valkey`, `on_postgres`.
    """

    def __init__(self, folder: Path, options: ClusterOptions) -> None:
        self.folder = folder
        self.options = options
        self.models = folder / "models"
        self.ledger = folder / "ledger"
        self.valkey = SyncingValkey(folder / "valkey")
        self.postgres = Postgres(folder / "postgres")
        self.on_valkey = ThreadPoolExecutor(1, "chaos-valkey")
        self.on_postgres = ThreadPoolExecutor(1, "chaos-postgres")
        self.deaths: list[Death] = []
        self.slots: list[WorkerSlot] = []
        self.plain_slots: list[WorkerSlot] = []
        self._undo = ExitStack()
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._undo.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._undo.close()

    def _start(self) -> None:
        from headrace.results_store import migrate

        self.ledger.mkdir(parents=True)
        write_models(self.models)
        for server, thread in ((self.valkey, self.on_valkey), (self.postgres, self.on_postgres)):
            self._undo.callback(thread.shutdown)
            self._undo.callback(_run_on, thread, server.stop)
            thread.submit(server.start).result()
        self.postgres.create_database(DATABASE)
        migrate(self.database_url)
        self._start_proxies()
        refuse_some_rows(self.database_url)
        self._start_workers()

    def _start_workers(self) -> None:
        fork_server = ForkServer(self.environment())
        self._undo.callback(fork_server.close)
        for slots, count, name in (
            (self.slots, self.options.workers, "worker"),
            (self.plain_slots, self.options.plain_workers, PLAIN + "worker"),
        ):
            for index in range(count):
                log = self.folder / f"{name}-{index}.log"
                slot = WorkerSlot(index, f"{name}-{index}", fork_server, log, self._note_death)
                slots.append(slot)
                self._undo.callback(slot.close, self.options.grace_s)
                slot.start()
        for slot in (*self.slots, *self.plain_slots):
            if not slot.ready.wait(120):
                raise RuntimeError(f"{slot.name} did not start; see {self.folder}")

    def _start_proxies(self) -> None:
        loop = self._undo.enter_context(ProxyLoop())
        socket = parse_qs(urlsplit(self.database_url).query)["host"][0]
        self.valkey_proxy = Proxy(loop, tcp(self.valkey.host, self.valkey.port))
        self.postgres_proxy = Proxy(loop, unix(f"{socket}/.s.PGSQL.5432"))
        for proxy in (self.valkey_proxy, self.postgres_proxy):
            proxy.start()
            self._undo.callback(proxy.stop)

    @property
    def database_url(self) -> str:
        """The database, past the proxy."""
        return self.postgres.url_of(DATABASE)

    def environment(self) -> dict[str, str]:
        """The environment of workers and clients, who reach both servers through the proxies only."""
        return {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
            "HEADRACE_CHAOS_LEDGER": str(self.ledger),
            "HEADRACE_CHAOS_PLAIN_URL": f"headrace://127.0.0.1:{self.valkey_proxy.port}/0",
            "HEADRACE_BROKER_URL": f"redis://127.0.0.1:{self.valkey_proxy.port}/0",
            "HEADRACE_DATABASE_URL": f"postgresql://{self.postgres.user}@127.0.0.1:{self.postgres_proxy.port}/{DATABASE}",
            "HEADRACE_MODELS": str(self.models),
            "HEADRACE_HOME": str(self.folder / "home"),
            "HEADRACE_LEASE_S": str(self.options.lease_s),
            "HEADRACE_GRACE_S": str(self.options.grace_s),
            "HEADRACE_OUTBOX_ROWS": str(self.options.outbox_rows),
            "HEADRACE_BROKER_TIMEOUT_S": str(self.options.timeout_s),
            "HEADRACE_DATABASE_TIMEOUT_S": str(self.options.timeout_s),
            # Random kills hit some request three times in a large run, though it is no poison.
            "HEADRACE_MAX_DELIVERIES": "50",
        }

    def broker(self, *, timeout_s: float | None = 5.0, database: int = 0) -> redis.Redis:
        """A connection past the proxy, which does not retry; close it."""
        retry = redis.retry.Retry(redis.backoff.NoBackoff(), 0)
        host, port = self.valkey.host, self.valkey.port
        return redis.Redis(host, port, db=database, retry=retry, socket_timeout=timeout_s)

    @staticmethod
    def broker_of(server: SyncingValkey) -> redis.Redis:
        """A connection to a server that isn't the cluster's, or not yet."""
        return redis.Redis(host=server.host, port=server.port, socket_timeout=5)

    def also_stop(self, server: SyncingValkey) -> None:
        """Stop another server too when the cluster ends."""
        self._undo.callback(lambda: self.on_valkey.submit(server.stop).result())

    def _note_death(self, death: Death) -> None:
        """In the slot's thread, while the dead worker's lease still runs: see what it held."""
        for _ in range(HELD_TRIES):
            try:
                death.held = self._held_by(death.consumers)
                break
            except redis.RedisError:
                time.sleep(self.options.lease_s / HELD_TRIES)
        with self._lock:
            self.deaths.append(death)

    def _held_by(self, consumers: Sequence[str]) -> set[str]:
        found: set[str] = set()
        with self.broker() as broker:
            for consumer in consumers:
                messages: list[bytes] = broker.hvals(keys.PLAIN.in_flight(consumer))
                found.update(match[1].decode() for message in messages if (match := _REQUEST_ID.search(message)))
        return found

    def leftovers(self) -> dict[str, int]:
        """Count what a settled queue must not hold: waiting messages, messages in flight or put off, leases."""
        with self.broker() as broker:
            queues = [*broker.scan_iter("infer.*", _type="LIST"), *broker.scan_iter(f"{QUEUE}*", _type="LIST")]
            waiting = sum(broker.llen(key) for key in queues)
            in_flight = sum(broker.hlen(key) for key in broker.scan_iter(f"{keys.PLAIN.in_flight('')}*"))
            sets = {"leases": keys.PLAIN.leases, "delayed": keys.PLAIN.delayed}
            sizes = {name: int(broker.zcard(key)) for name, key in sets.items()}
        return {"waiting": waiting, "in flight": in_flight, **sizes}

    def open_messages(self, queue: str) -> int:
        """Count what waits in a queue, whatever its priority, and what workers hold of it."""
        with self.broker() as broker:
            waiting = sum(broker.llen(key) for key in broker.scan_iter(f"{queue}*", _type="LIST"))
            held = [tag for key in broker.scan_iter(f"{keys.PLAIN.in_flight('')}*") for tag in broker.hkeys(key)]
        return int(waiting) + sum(f":{queue}".encode() in tag for tag in held)

    def dead_letters(self) -> set[str]:
        """Return the ids of the requests that ended as dead letters."""
        with self.broker() as broker:
            messages: list[bytes] = broker.hvals(keys.PLAIN.dead_messages)
        return {match[1].decode() for message in messages if (match := _REQUEST_ID.search(message))}

    def settle(self, patience_s: float) -> dict[str, int]:
        """Wait until nothing is left over, or the time is up; give what is."""
        ends_at = time.monotonic() + patience_s
        while any((left := self.leftovers()).values()) and time.monotonic() < ends_at:
            time.sleep(0.5)
        return left


def client_command(index: int, count: int, rate: float, seed: int, folder: Path, *, large: bool) -> list[str]:
    """Return the command of a client process. large: whether some of its requests have large outputs."""
    words = (index, count, rate, seed, folder, int(large))
    return [sys.executable, "-m", "tests.chaos.client", *map(str, words)]


def _run_on(thread: ThreadPoolExecutor, call: Callable[[], None]) -> None:
    """Run a call in a server's own thread, and wait for its end."""
    thread.submit(call).result()
