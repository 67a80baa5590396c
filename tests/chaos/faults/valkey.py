"""Faults of Valkey. What it answers is provoked for real, by its own settings; its statistics tell that it was met."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, TypeAlias

import redis
from tests.chaos.cluster import Cluster
from tests.chaos.faults import wire
from tests.chaos.faults.spans import (
    ANSWER_ERRORS_S,
    AWAY_S,
    FULL_S,
    MINUTE_S,
    STALL_S,
    VANISHED_TIMEOUTS,
    between,
)
from tests.chaos.schedule import Fault, Kind
from tests.chaos.wire.link import Direction

Way: TypeAlias = Callable[[Fault], bool]

#: Nobody listens there: a replica of it never gets data, and keeps its own.
_NOWHERE: Final = ("127.0.0.1", 1)

#: A script that does nothing without end; others wait for so long before they are answered BUSY.
_ENDLESS: Final = "while true do end"
_BUSY_AFTER_MS: Final = 50

#: What an operator may have taken from the user that everybody is, and how it is given back.
_FORBIDDEN: Final = ("-@write", "-@scripting", "-@blocking")
_ALLOWED: Final = "+@all"

#: Keys that take their time to be loaded, in a database that nobody else uses.
_FILLER_KEYS: Final = 2_000
_FILLER_DATABASE: Final = 15


class ValkeyFaults:
    """The faults of the cluster's Valkey, and of the wire before it."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def ways(self) -> Mapping[Kind, Way]:
        """Return what does each kind; each says whether it was met."""
        return self._ends() | self._of_the_wire() | self._answers()

    def _ends(self) -> dict[Kind, Way]:
        server = self._cluster.valkey
        return {
            Kind.VALKEY_TERM: lambda _: wire.restart(server, signal.SIGTERM),
            Kind.VALKEY_KILL: lambda _: wire.restart(server, signal.SIGKILL),
            Kind.VALKEY_AWAY_LONG: lambda fault: wire.restart(server, signal.SIGTERM, between(MINUTE_S, fault)),
            Kind.VALKEY_LOADING: self._load_slowly,
        }

    def _of_the_wire(self) -> dict[Kind, Way]:
        proxy, timeout_s = self._cluster.valkey_proxy, self._cluster.options.timeout_s
        return {
            Kind.VALKEY_CUT: lambda _: wire.cut(proxy),
            Kind.VALKEY_CUT_REPLY: lambda _: wire.cut_replies(proxy),
            Kind.VALKEY_STALL: lambda fault: wire.stall(proxy, between(STALL_S, fault)),
            Kind.VALKEY_REFUSE: lambda fault: wire.refuse(proxy, between(AWAY_S, fault)),
            Kind.VALKEY_FREEZE_REQUESTS: lambda fault: wire.freeze(proxy, Direction.REQUESTS, fault),
            Kind.VALKEY_FREEZE_REPLIES: lambda fault: wire.freeze(proxy, Direction.REPLIES, fault),
            Kind.VALKEY_FREEZE: lambda fault: wire.freeze(proxy, Direction.BOTH, fault),
            Kind.VALKEY_VANISH: lambda fault: wire.vanish(proxy, timeout_s * between(VANISHED_TIMEOUTS, fault)),
        }

    def _answers(self) -> dict[Kind, Way]:
        return {
            Kind.VALKEY_FULL: lambda fault: self._fill(between(FULL_S, fault)),
            Kind.VALKEY_FULL_LONG: lambda fault: self._fill(between(MINUTE_S, fault)),
            Kind.VALKEY_READONLY: lambda fault: self._answer("READONLY", self._replica(), fault),
            Kind.VALKEY_NOREPLICAS: lambda fault: self._answer(
                "NOREPLICAS", self._configured("min-replicas-to-write", 1, 0), fault
            ),
            Kind.VALKEY_MISCONF: lambda fault: self._answer("MISCONF", self._unsaved(), fault),
            Kind.VALKEY_BUSY: lambda fault: self._answer("BUSY", self._stuck_in_a_script(), fault),
            Kind.VALKEY_NOPERM: lambda fault: self._answer(
                "NOPERM", self._forbidden(_FORBIDDEN[int(fault.fraction * len(_FORBIDDEN))]), fault
            ),
        }

    def _answer(self, error: str, provoked: Any, fault: Fault) -> bool:
        """Keep a state in which the server answers an error, from the first time that somebody got it."""
        with provoked:
            was_met = wire.met(lambda: self._count(error) > 0)
            time.sleep(between(ANSWER_ERRORS_S, fault))
        return was_met

    def _count(self, error: str) -> int:
        with self._cluster.broker() as broker:
            try:
                found: dict[str, Any] = broker.info("errorstats")
            except redis.exceptions.ResponseError:
                return 1  # BUSY answers this too, and so do we learn that others get it
        return int(found.get(f"errorstat_{error}", {"count": 0})["count"])

    def _do(self, *command: Any) -> Any:
        with self._cluster.broker() as broker:
            return broker.execute_command(*command)

    @contextmanager
    def _configured(self, name: str, during: Any, after: Any) -> Iterator[None]:
        self._do("CONFIG", "RESETSTAT")
        self._do("CONFIG", "SET", name, during)
        try:
            yield
        finally:
            self._do("CONFIG", "SET", name, after)

    def _fill(self, seconds: float) -> bool:
        """Let the server find its memory full for a while, as when other applications fill it."""
        with self._configured("maxmemory", 1, 0):
            time.sleep(seconds)
        return True

    @contextmanager
    def _replica(self) -> Iterator[None]:
        """What was the master before a failover is a replica now."""
        self._do("CONFIG", "RESETSTAT")
        self._do("REPLICAOF", *_NOWHERE)
        try:
            yield
        finally:
            self._do("REPLICAOF", "NO", "ONE")

    @contextmanager
    def _unsaved(self) -> Iterator[None]:
        """A snapshot can't be written, and is wanted."""
        in_the_way = self._cluster.valkey.folder / "dump.rdb"
        in_the_way.mkdir()
        try:
            with self._configured("save", "3600 1", ""):
                self._do("BGSAVE")
                yield
        finally:
            in_the_way.rmdir()

    @contextmanager
    def _forbidden(self, what: str) -> Iterator[None]:
        self._do("CONFIG", "RESETSTAT")
        self._do("ACL", "SETUSER", "default", what)
        try:
            yield
        finally:
            self._do("ACL", "SETUSER", "default", _ALLOWED)

    @contextmanager
    def _stuck_in_a_script(self) -> Iterator[None]:
        """Somebody's script runs for long; all others are told BUSY."""
        with self._configured("busy-reply-threshold", _BUSY_AFTER_MS, 5000):
            script = threading.Thread(target=self._run_endless_script, name="chaos-script")
            script.start()
            time.sleep(2 * _BUSY_AFTER_MS / 1000)
            try:
                yield
            finally:
                self._do("SCRIPT", "KILL")
                script.join()

    def _run_endless_script(self) -> None:
        with self._cluster.broker(timeout_s=None) as broker:
            try:
                broker.eval(_ENDLESS, 0)
            except redis.exceptions.ResponseError as exc:
                if "killed" not in str(exc):
                    raise

    def _load_slowly(self, fault: Fault) -> bool:
        """Kill it; it needs some seconds to load its data, and answers LOADING meanwhile."""
        server = self._cluster.valkey
        with self._cluster.broker(database=_FILLER_DATABASE) as broker:
            broker.mset({f"filler-{number}": "" for number in range(_FILLER_KEYS)})
            broker.bgrewriteaof()
            wire.met(lambda: not broker.info("persistence")["aof_rewrite_in_progress"])
        server.load_delay_us = int(between(ANSWER_ERRORS_S, fault) * 1e6 / _FILLER_KEYS)
        try:
            wire.restart(server, signal.SIGKILL)
        finally:
            server.load_delay_us = 0
        with self._cluster.broker(database=_FILLER_DATABASE) as broker:
            wire.met(lambda: not broker.info("persistence")["loading"])
            broker.config_set("key-load-delay", 0)
            broker.flushdb()
        return self._count("LOADING") > 0
