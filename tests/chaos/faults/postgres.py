"""Faults of Postgres and of the wire before it. Its log, or its own tables, tell that a fault was met."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import Final, TypeAlias

import psycopg
from tests.chaos.cluster import Cluster
from tests.chaos.faults import disk, wire
from tests.chaos.faults.spans import (
    ANSWER_ERRORS_S,
    DISK_FULL_S,
    MET_S,
    MINUTE_S,
    POSTGRES_AWAY_S,
    STALL_S,
    VANISHED_TIMEOUTS,
    WAL_FULL_S,
    between,
)
from tests.chaos.schedule import Fault, Kind
from tests.chaos.wire.link import Direction

Way: TypeAlias = Callable[[Fault], bool]

#: What Postgres logs for each statement, and each connection, that it refuses.
_READ_ONLY: Final = b"in a read-only transaction"
_TOO_MANY: Final = b"too many clients already"

_OTHERS: Final = "FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> ALL(%s)"
_END_OTHERS: Final = f"SELECT pg_terminate_backend(pid) {_OTHERS}"

_WAITS_FOR_LOCK: Final = "SELECT count(*) FROM pg_locks WHERE NOT granted"


class PostgresFaults:
    """The faults of the cluster's Postgres, and of the wire before it."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def ways(self) -> Mapping[Kind, Way]:
        """Return what does each kind; each says whether it was met."""
        return self._ends() | self._of_the_wire() | self._answers()

    def _ends(self) -> dict[Kind, Way]:
        server = self._cluster.postgres
        return {
            Kind.POSTGRES_FAST: lambda _: wire.restart(server, signal.SIGINT),
            Kind.POSTGRES_IMMEDIATE: lambda _: wire.restart(server, signal.SIGQUIT),
            Kind.POSTGRES_AWAY: lambda fault: wire.restart(server, signal.SIGINT, between(POSTGRES_AWAY_S, fault)),
            Kind.POSTGRES_AWAY_LONG: lambda fault: wire.restart(server, signal.SIGINT, between(MINUTE_S, fault)),
            Kind.POSTGRES_FULL: self._fill_disk,
            Kind.POSTGRES_WAL_FULL: self._fill_disk_of_wal,
        }

    def _of_the_wire(self) -> dict[Kind, Way]:
        proxy, timeout_s = self._cluster.postgres_proxy, self._cluster.options.timeout_s
        return {
            Kind.POSTGRES_CUT: lambda _: wire.cut(proxy),
            Kind.POSTGRES_CUT_REPLY: lambda _: wire.cut_replies(proxy),
            Kind.POSTGRES_STALL: lambda fault: wire.stall(proxy, between(STALL_S, fault)),
            Kind.POSTGRES_FREEZE_REQUESTS: lambda fault: wire.freeze(proxy, Direction.REQUESTS, fault),
            Kind.POSTGRES_FREEZE_REPLIES: lambda fault: wire.freeze(proxy, Direction.REPLIES, fault),
            Kind.POSTGRES_FREEZE: lambda fault: wire.freeze(proxy, Direction.BOTH, fault),
            Kind.POSTGRES_VANISH: lambda fault: wire.vanish(proxy, timeout_s * between(VANISHED_TIMEOUTS, fault)),
        }

    def _answers(self) -> dict[Kind, Way]:
        return {
            Kind.POSTGRES_CONNECTIONS: self._take_all_connections,
            Kind.POSTGRES_READ_ONLY: self._refuse_writes,
            Kind.POSTGRES_LOCKED: self._lock_table,
        }

    def _fill_disk(self, fault: Fault) -> bool:
        with disk.tables_full(self._cluster.postgres, self._cluster.database_url) as refusals:
            # Nobody writes while Valkey is away too.
            wire.met(lambda: refusals() > 0)
            time.sleep(between(DISK_FULL_S, fault))
            return refusals() > 0

    def _fill_disk_of_wal(self, fault: Fault) -> bool:
        """Without room for its WAL the server ends; there is room again before its supervisor starts it."""
        disk.end_for_lack_of_wal(self._cluster.postgres, self._cluster.database_url)
        time.sleep(between(WAL_FULL_S, fault))
        self._cluster.postgres.start()
        return True

    def _refuse_writes(self, fault: Fault) -> bool:
        """Make it read-only for all sessions, as a hot standby or a provider's full disk does."""
        refusals = disk.count_in_log(self._cluster.postgres, _READ_ONLY)
        with self._everywhere("default_transaction_read_only", "on"):
            was_met = wire.met(lambda: refusals() > 0)
            time.sleep(between(ANSWER_ERRORS_S, fault))
        return was_met

    @contextmanager
    def _everywhere(self, name: str, value: str) -> Iterator[None]:
        with psycopg.connect(self._cluster.postgres.url, autocommit=True) as admin:
            admin.execute("SET default_transaction_read_only = off")
            admin.execute(f"ALTER SYSTEM SET {name} = {value}")
            admin.execute("SELECT pg_reload_conf()")
            try:
                yield
            finally:
                admin.execute(f"ALTER SYSTEM RESET {name}")
                admin.execute("SELECT pg_reload_conf()")

    def _lock_table(self, fault: Fault) -> bool:
        """Hold the table, as a migration by hand does, until somebody has waited for longer than it waits."""
        url = self._cluster.database_url
        with psycopg.connect(url, autocommit=True) as looks, psycopg.connect(url) as holds:
            holds.execute("LOCK TABLE predictions IN ACCESS EXCLUSIVE MODE")

            def somebody_waits() -> bool:
                ((waiting,),) = looks.execute(_WAITS_FOR_LOCK)
                return bool(waiting)

            was_met = wire.met(somebody_waits)
            time.sleep(self._cluster.options.timeout_s * between(VANISHED_TIMEOUTS, fault))
            holds.rollback()
        return was_met

    def _take_all_connections(self, fault: Fault) -> bool:
        """Take every connection there is, those of the workers and clients too, until others are refused."""
        refusals = disk.count_in_log(self._cluster.postgres, _TOO_MANY)
        ours, was_met = 0, False
        with ExitStack() as held:
            admin = held.enter_context(psycopg.connect(self._cluster.postgres.url, autocommit=True))
            taken = [admin.info.backend_pid]
            ends_at = time.monotonic() + MET_S
            while not was_met and time.monotonic() < ends_at:
                taken += self._take_free_connections(held)
                ours += 1  # the last try was refused
                time.sleep(wire.LOOK_S)
                was_met = refusals() > ours
                admin.execute(_END_OTHERS, [taken])
            taken += self._take_free_connections(held)
            time.sleep(between(ANSWER_ERRORS_S, fault))
        return was_met

    def _take_free_connections(self, held: ExitStack) -> Iterator[int]:
        """Open connections until one is refused."""
        with suppress(psycopg.OperationalError):
            while True:
                yield held.enter_context(psycopg.connect(self._cluster.postgres.url)).info.backend_pid
