"""Error replies that pass are told from mistakes, whichever server says them, and in whatever words."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis
from redis import exceptions as errors
from tests.queueing.commands import run_command

from headrace.contracts import BrokerUnavailable
from headrace.queueing import ClaimingConsumer, broken_preconditions, connect, translate_errors
from headrace.queueing.connection.preconditions import complaints
from headrace.queueing.connection.refusals import REFUSALS, ServerRefuses, classified, meaning


@contextmanager
def _configured(client: redis.Redis, name: str, value: str | int) -> Iterator[None]:
    before = client.config_get(name)[name]
    assert before is not None
    client.config_set(name, value)
    try:
        yield
    finally:
        client.config_set(name, before)


def _without_replicas(client: redis.Redis) -> Any:
    return _configured(client, "min-replicas-to-write", 1)


def _without_memory(client: redis.Redis) -> Any:
    return _configured(client, "maxmemory", 1)


@contextmanager
def _as_replica(client: redis.Redis) -> Iterator[None]:
    run_command(client, "REPLICAOF", "127.0.0.1", "1")
    try:
        yield
    finally:
        run_command(client, "REPLICAOF", "NO", "ONE")


@pytest.mark.parametrize(
    ("refuse", "kind"),
    [
        (_without_replicas, ServerRefuses),
        (_without_memory, errors.OutOfMemoryError),
        (_as_replica, errors.ReadOnlyError),
    ],
)
def test_a_script_that_is_refused_raises_the_class_of_the_refusal(
    refuse: Callable[[redis.Redis], Any], kind: type[Exception], any_url: str, client: redis.Redis
) -> None:
    with connect(any_url) as ours:
        consumer = ClaimingConsumer(ours, lease_s=60)
        client.lpush("infer.digits", "a message")
        with refuse(client):
            with pytest.raises(kind) as raised:
                ours.eval("redis.call('SET', 'a', 1)", 0)
            with pytest.raises(kind):
                ours.pipeline(transaction=True).set("a", 1).set("b", 2).execute()
            with pytest.raises(BrokerUnavailable, match="refuses to work for now") as told, translate_errors():
                ours.set("a", 1)
        assert meaning(raised.value)
        assert "\n" not in told.value.message
        assert [each.raw for each in consumer.claim({"infer.digits": 1})] == [b"a message"]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("NOREPLICAS Not enough good replicas to write.", ServerRefuses),
        ("BUSY Redis is busy running a script.", ServerRefuses),
        ("MISCONF Redis is configured to save RDB snapshots", ServerRefuses),
        ("UNBLOCKED force unblock from blocking operation", ServerRefuses),
        ("Error running script (call to f_1): @user_script:1: -READONLY You can't write", errors.ReadOnlyError),
        ("Error running script (call to f_1): @user_script:1: @user_script: 1: -OOM command", errors.OutOfMemoryError),
        ("Transaction discarded because of: MISCONF Errors writing to the AOF file", ServerRefuses),
        ("ACL failure in script: User default has no permissions to run the 'del' command", errors.NoPermissionError),
        ("Error running script: @user_script:1: -LOADING Redis is loading", errors.BusyLoadingError),
        ("BUSYGROUP Consumer Group name already exists", errors.ResponseError),
        ("BUSYKEY Target key name already exists", errors.ResponseError),
        ("WRONGTYPE Operation against a key holding the wrong kind of value", errors.ResponseError),
        ("unknown command 'OOM'", errors.ResponseError),
    ],
)
def test_words_of_a_refusal_are_found(text: str, kind: type[Exception]) -> None:
    found = classified(errors.ResponseError(text))
    assert type(found) is kind
    assert str(found) == text
    assert (meaning(found) is None) == (kind is errors.ResponseError)
    assert isinstance(found, (*REFUSALS, errors.ConnectionError)) == (kind is not errors.ResponseError)


def test_a_script_whose_command_the_acl_forbids_is_a_refusal(any_url: str, client: redis.Redis) -> None:
    run_command(client, "ACL", "SETUSER", "default", "-del")
    try:
        with connect(any_url) as ours, pytest.raises(errors.NoPermissionError):
            ours.eval("return redis.call('DEL', 'a')", 0)
    finally:
        run_command(client, "ACL", "SETUSER", "default", "+@all")


def test_another_error_reply_stays_what_it_is(any_url: str, client: redis.Redis) -> None:
    client.set("text", "a")
    with connect(any_url) as ours, pytest.raises(errors.ResponseError, match="WRONGTYPE"), translate_errors():
        ours.lpush("text", 1)


def test_settings_with_which_a_server_may_lose_messages_are_told(any_url: str, client: redis.Redis) -> None:
    with _configured(client, "maxmemory-policy", "allkeys-lru"), _configured(client, "appendonly", "yes"):
        (line,) = broken_preconditions(client)
        assert "allkeys-lru" in line
        assert "noeviction" in line
    with _configured(client, "maxmemory-policy", "noeviction"), _configured(client, "appendonly", "no"):
        (line,) = broken_preconditions(client)
        assert "appendonly" in line


def test_nothing_is_told_of_settings_that_a_server_keeps_for_itself() -> None:
    assert complaints({}) == []
    assert complaints({"maxmemory_policy": "noeviction", "aof_enabled": 1}) == []
    assert len(complaints({"maxmemory_policy": "volatile-lru", "maxmemory": 1, "aof_enabled": 0})) == 2


def test_a_consumer_says_how_many_messages_the_server_has_lost(
    any_url: str, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    consumer = ClaimingConsumer(client, lease_s=60)
    client.lpush("infer.digits", *range(5))
    kept = consumer.claim({"infer.digits": 3})
    consumer.renew()
    assert "in_flight_gone" not in caplog.text
    client.flushdb()
    client.lpush("infer.digits", "later")
    later = consumer.claim({"infer.digits": 1})
    consumer.renew()
    assert f"queueing.in_flight_gone consumer={consumer.id} messages={len(kept)}" in caplog.text
    assert [consumer.holds(each.tag) for each in (*kept, *later)] == [False, False, False, True]
    caplog.clear()
    consumer.renew()
    assert "in_flight_gone" not in caplog.text
