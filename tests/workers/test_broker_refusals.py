"""A server that is there and refuses: each error reply that passes, one at a time, at one worker under load.

The worker waits in the same process, says one line when it begins and one when it ends, and loses nothing.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import psycopg
import pytest
import redis
from onnx import helper
from pydantic import SecretStr
from tests.eventually import eventually
from tests.queueing.commands import run_command
from tests.queueing.wire import Wire
from tests.workers.conftest import running_worker, write_package

from headrace.cli.stack.servers import Valkey
from headrace.contracts import BrokerUnavailable, Settings
from headrace.producers import Client, Handle
from headrace.results_store import migrate

#: How long a server refuses.
REFUSES_S = 2.5


class OpenValkey(Valkey):
    """A server that takes the commands by which it is brought to refuse."""

    def _options(self) -> Sequence[str]:
        return [*super()._options(), "--enable-debug-command", "yes", "--enable-protected-configs", "yes"]


@dataclass
class Scene:
    """A server, a worker behind a wire, and a client that submits all the time."""

    server: OpenValkey
    wire: Wire
    settings: Settings
    log: Path
    pid: int
    admin: redis.Redis
    accepted: list[tuple[float, Handle]] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def lines(self, text: str) -> int:
        return self.log.read_text().count(text)

    @contextmanager
    def load(self) -> Iterator[None]:
        """Submit requests until the end of the block, then check that each that was accepted is answered."""
        self.accepted, self.refusals = [], []
        self._stop.clear()
        with Client(self.settings) as client:
            thread = threading.Thread(target=self._submit, args=(client,))
            thread.start()
            try:
                yield
            finally:
                self._stop.set()
                thread.join()
            assert self.accepted
            for value, handle in self.accepted:
                assert handle.result(60)["y"].tolist() == [[2 * value] * 4]

    def _submit(self, client: Client) -> None:
        number = 0
        while not self._stop.wait(0.02):
            number += 1
            try:
                handle = client.submit("double", {"x": np.full((1, 4), number, np.float32)})
            except BrokerUnavailable as exc:
                self.refusals.append(exc.message)
            else:
                self.accepted.append((float(number), handle))


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory, postgres_uri: str) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("refusals")
    write_package(
        folder / "models",
        "double",
        [helper.make_node("Mul", ["x", "two"], ["y"])],
        {"x": ("FP32", (4,))},
        {"y": ("FP32", (4,))},
        [("two", np.float32(2))],
    )
    with psycopg.connect(postgres_uri, autocommit=True) as postgres:
        postgres.execute("CREATE DATABASE refusals")
    database_url = postgres_uri.replace("/postgres?", "/refusals?", 1)
    migrate(database_url)
    with OpenValkey(folder / "valkey") as server:
        wire = Wire(server.port)
        settings = Settings(
            broker_url=SecretStr(server.url),
            database_url=SecretStr(database_url),
            models=folder / "models",
            home=folder / "home",
            lease_s=10.0,
            grace_s=10.0,
        )
        behind = settings.model_copy(update={"broker_url": SecretStr(f"redis://127.0.0.1:{wire.port}/0")})
        with redis.Redis.from_url(server.url) as first:
            first.execute_command("ACL", "SETUSER", "admin", "on", ">secret", "~*", "&*", "+@all")
        admin = redis.Redis(port=server.port, username="admin", password="secret", socket_timeout=None)
        log = folder / "worker.log"
        with running_worker(behind, log) as process:
            with Client(settings) as client:
                client.predict("double", {"x": np.ones((1, 4), np.float32)}, timeout_s=60)
            yield Scene(server, wire, settings, log, process.pid, admin)
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
        admin.close()
        wire.close()


@contextmanager
def _configured(admin: redis.Redis, **options: str | int) -> Iterator[None]:
    names = {name.replace("_", "-"): value for name, value in options.items()}
    before = {name: admin.config_get(name)[name] or "" for name in names}
    for name, value in names.items():
        admin.config_set(name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            admin.config_set(name, value)


def _oom(scene: Scene) -> AbstractContextManager[None]:
    return _configured(scene.admin, maxmemory=1)


def _noreplicas(scene: Scene) -> AbstractContextManager[None]:
    return _configured(scene.admin, min_replicas_to_write=1)


@contextmanager
def _readonly(scene: Scene) -> Iterator[None]:
    run_command(scene.admin, "REPLICAOF", "127.0.0.1", "1")
    try:
        yield
    finally:
        run_command(scene.admin, "REPLICAOF", "NO", "ONE")


@contextmanager
def _masterdown(scene: Scene) -> Iterator[None]:
    with _configured(scene.admin, replica_serve_stale_data="no"), _readonly(scene):
        yield


@contextmanager
def _busy(scene: Scene) -> Iterator[None]:
    def loop() -> None:
        with contextlib.suppress(redis.ResponseError), redis.Redis(port=scene.server.port, socket_timeout=None) as one:
            one.eval("while true do end", 0)

    with _configured(scene.admin, busy_reply_threshold=50):
        thread = threading.Thread(target=loop)
        thread.start()
        time.sleep(0.3)
        try:
            yield
        finally:
            run_command(scene.admin, "SCRIPT", "KILL")
            thread.join()


@contextmanager
def _misconf(scene: Scene) -> Iterator[None]:
    """A snapshot that fails, here because the process that writes it is killed, as when the disk is full."""
    with _configured(scene.admin, save="3600 1000000"):
        with _configured(scene.admin, rdb_key_save_delay=10_000_000):
            scene.admin.set("something", "to save")
            scene.admin.bgsave()
            (child,) = psutil.Process(scene.server.pid).children()
            child.kill()
            eventually(
                lambda: scene.admin.info("persistence")["rdb_last_bgsave_status"] == "err",
                30,
                "it to fail",
            )
        try:
            yield
        finally:
            scene.admin.bgsave()
            eventually(
                lambda: scene.admin.info("persistence")["rdb_last_bgsave_status"] == "ok",
                30,
                "it to work",
            )


@contextmanager
def _noperm(scene: Scene) -> Iterator[None]:
    run_command(scene.admin, "ACL", "SETUSER", "default", "-@scripting")
    try:
        yield
    finally:
        run_command(scene.admin, "ACL", "SETUSER", "default", "+@all")


@contextmanager
def _noauth(scene: Scene) -> Iterator[None]:
    scene.admin.config_set("requirepass", "another")
    run_command(scene.admin, "CLIENT", "KILL", "USER", "default")
    try:
        yield
    finally:
        scene.admin.config_set("requirepass", "")


@contextmanager
def _loading(scene: Scene) -> Iterator[None]:
    with scene.admin.pipeline() as pipe:
        for number in range(1000):
            pipe.set(f"filler:{number}", "x" * 100)
        pipe.execute()
    delay_us = int(REFUSES_S * 1e6 / 1000)
    with (
        _configured(scene.admin, key_load_delay=delay_us, loading_process_events_interval_bytes=1024),
        redis.Redis(port=scene.server.port, username="admin", password="secret", socket_timeout=None) as one,
    ):
        reload = threading.Thread(target=one.execute_command, args=("DEBUG", "RELOAD"))
        reload.start()
        try:
            yield
        finally:
            reload.join()


def _answered(line: str) -> Callable[[Scene], AbstractContextManager[None]]:
    @contextmanager
    def refuse(scene: Scene) -> Iterator[None]:
        scene.wire.answer(line)
        try:
            yield
        finally:
            scene.wire.answer("")

    return refuse


REFUSALS: dict[str, Callable[[Scene], AbstractContextManager[None]]] = {
    "OOM": _oom,
    "NOREPLICAS": _noreplicas,
    "READONLY": _readonly,
    "MASTERDOWN": _masterdown,
    "BUSY": _busy,
    "MISCONF": _misconf,
    "NOPERM": _noperm,
    "NOAUTH": _noauth,
    "LOADING": _loading,
    "NOPERM to all": _answered("NOPERM this user has no permissions to run the command"),
    "NOREPLICAS to all": _answered("NOREPLICAS Not enough good replicas to write."),
    "MISCONF to all": _answered("MISCONF Errors writing to the AOF file: No space left on device"),
    "OOM to all": _answered("OOM command not allowed when used memory > 'maxmemory'."),
    "CLUSTERDOWN": _answered("CLUSTERDOWN The cluster is down"),
    "TRYAGAIN": _answered("TRYAGAIN Multiple keys request during rehashing of slot"),
    "WRONGPASS": _answered("WRONGPASS invalid username-password pair or user is disabled."),
    "MAXCLIENTS": _answered("ERR max number of clients reached"),
}


def _said(scene: Scene) -> tuple[int, int]:
    return scene.lines("broker away, trying"), scene.lines("broker back after")


@pytest.mark.parametrize("word", REFUSALS)
def test_a_worker_waits_out_a_refusal_and_says_two_lines(word: str, scene: Scene) -> None:
    before = _said(scene)
    noise = scene.lines("Traceback"), scene.lines("CRITICAL")
    with scene.load():
        time.sleep(0.3)
        with REFUSALS[word](scene):
            time.sleep(REFUSES_S)
        with Client(scene.settings) as client:
            client.predict("double", {"x": np.ones((1, 4), np.float32)}, timeout_s=60)
    # A worker that has nothing to do may not notice.
    least = 0 if word in ("OOM", "NOREPLICAS", "MISCONF", "NOPERM") else 1
    eventually(
        lambda: least <= _said(scene)[0] - before[0] == _said(scene)[1] - before[1],
        30,
        "the line that the broker is back",
    )
    assert _said(scene)[0] - before[0] <= 1
    assert psutil.Process(scene.pid).status() != psutil.STATUS_ZOMBIE, "the worker has ended"
    assert (scene.lines("Traceback"), scene.lines("CRITICAL")) == noise
    assert [line for line in scene.refusals if "\n" in line] == []
