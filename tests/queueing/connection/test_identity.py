"""A broker's identity stays while its data are there, and changes with each way to lose them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import redis
import redis.asyncio

from headrace.cli.stack.servers import Valkey
from headrace.queueing import connect
from headrace.queueing.connection.identity import ServerIdentity, identity_steps, read_identity, read_identity_async
from headrace.queueing.keys import Keys


def test_the_first_to_ask_writes_the_epoch_and_all_see_it(broker_url: str) -> None:
    with connect(broker_url) as broker:
        first = read_identity(broker, "one")
        assert first.epoch == "one"
        assert first.run_id
        assert first.replication_id
        assert read_identity(broker, "two") == first

    async def ask() -> ServerIdentity:
        async with redis.asyncio.Redis.from_url(broker_url) as client:
            return await read_identity_async(client, "three")

    assert asyncio.run(ask()) == first


def test_a_flush_changes_it(broker_url: str) -> None:
    with connect(broker_url) as broker:
        first = read_identity(broker, "one")
        broker.flushdb()
        assert read_identity(broker, "two") == first._replace(epoch="two")


def test_key_spaces_have_epochs_of_their_own(broker_url: str) -> None:
    with connect(broker_url) as broker, connect(broker_url, prefix="shop:") as shop:
        assert read_identity(broker, "one").epoch == "one"
        assert read_identity(shop, "two").epoch == "two"


@pytest.mark.server
def test_a_restart_and_a_failover_change_it(tmp_path: Path) -> None:
    with Valkey(tmp_path / "first") as first, Valkey(tmp_path / "second") as second:
        with connect(first.url) as primary, connect(second.url) as replica:
            before = read_identity(primary, "one")
            replica.replicaof(first.host, first.port)
            while replica.info("replication")["master_link_status"] != "up":
                pass
            replica.replicaof("NO", "ONE")
            promoted = read_identity(replica, "two")
            assert promoted.epoch == "one"
            assert promoted.run_id != before.run_id
            assert promoted.replication_id != before.replication_id
        first.stop()
        first.start()
        with connect(first.url) as restarted:
            after = read_identity(restarted, "three")
        assert after.epoch == "one"
        assert after.run_id != before.run_id


def test_a_user_without_info_has_the_epoch(broker_url: str) -> None:
    with connect(broker_url) as broker:
        broker.acl_setuser("meek", enabled=True, nopass=True, keys=["*"], commands=["+@all", "-info"])
        try:
            with connect(broker_url, username="meek", password="any") as meek:
                assert read_identity(meek, "one") == ServerIdentity("one", "", "")
        finally:
            broker.acl_deluser("meek")


def test_a_server_that_takes_no_writes_has_no_epoch_yet() -> None:
    steps = identity_steps(Keys(), "fresh")
    next(steps)
    assert steps.send([None, {"run_id": "r"}, {"master_replid": "m"}]) == [
        ("SET", "headrace:epoch", "fresh", "NX"),
        ("GET", "headrace:epoch"),
    ]
    with pytest.raises(StopIteration) as end:
        steps.send([redis.exceptions.ReadOnlyError("READONLY"), None])
    assert end.value.value == ServerIdentity("", "r", "m")


def test_a_server_that_can_not_answer_yet_has_no_identity() -> None:
    steps = identity_steps(Keys(), "fresh")
    next(steps)
    loading = redis.exceptions.BusyLoadingError("LOADING")
    with pytest.raises(redis.exceptions.BusyLoadingError):
        steps.send([loading, loading, loading])
