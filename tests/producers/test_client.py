"""The way of a request as its sender sees it, through a real Valkey, a real Postgres and a peer that answers."""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import socket
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import redis
from pydantic import SecretStr
from tests.producers.peer import MODEL, Peer, Taken, store, succeeded

from headrace.contracts import Settings, encode_tensors
from headrace.contracts.message import Envelope, Reply, queue_name
from headrace.contracts.tensors.codec import Tensors
from headrace.producers import (
    BrokerUnavailable,
    Cancelled,
    Client,
    ConfigurationError,
    DeadlineExceeded,
    Handle,
    HeadraceError,
    InferenceFailed,
    InvalidRequest,
    PartlySubmitted,
    QueueFull,
    ResultTimeout,
    SignatureMismatch,
    SubmissionInterrupted,
    UnknownModel,
)
from headrace.producers.replies import pending
from headrace.producers.requests.factory import Block, RequestFactory
from headrace.producers.requests.inputs import Checked
from headrace.producers.transport.serving import is_served
from headrace.queueing import ClaimingConsumer
from headrace.results_store import Row, StoreReader, error_json

X = np.arange(3, dtype=np.float32).reshape(1, 3)


def kill_connections(url: str) -> None:
    """Cut every connection to the server but the one that asks."""
    with redis.Redis.from_url(url) as admin:
        admin.client_kill_filter(_type="normal", skipme=True)


def test_a_request_gets_its_result(client: Client, worker: Peer) -> None:
    outputs = client.submit(MODEL, {"x": X}).result(timeout_s=30)
    assert outputs.keys() == {"y"}
    np.testing.assert_array_equal(outputs["y"], X * 2)


def test_predict_submits_and_waits(client: Client, worker: Peer) -> None:
    np.testing.assert_array_equal(client.predict(MODEL, {"x": X})["y"], X * 2)


def test_a_result_may_be_asked_for_again(client: Client, worker: Peer) -> None:
    handle = client.submit(MODEL, {"x": X})
    np.testing.assert_array_equal(handle.result(30)["y"], handle.result(30)["y"])
    assert (handle.done(), handle.status()) == (True, "succeeded")


def test_the_message_says_what_the_request_asks(client: Client, peer: Peer) -> None:
    handle = client.submit(MODEL, {"x": X}, priority=7, deadline_s=60.0, version="2", request_id="order 7")
    popped = peer.client.brpop([queue_name(MODEL) + "\x06\x166"], 30)
    assert popped
    taken = Taken(popped[1])
    assert (taken.id, handle.id, handle.model) == ("order 7", "order 7", MODEL)
    assert taken.properties["priority"] == 7
    assert (taken.header["version"], taken.header["rows"]) == ("2", 1)
    assert taken.headers["argsrepr"] == "digits v2, 1 row"
    assert taken.headers["expires"] is not None
    assert "order 7" in repr(handle)


def test_each_row_becomes_a_request_in_order(client: Client, worker: Peer) -> None:
    rows = np.arange(3000 * 3, dtype=np.float32).reshape(3000, 3)
    handles = client.submit_many(MODEL, {"x": rows})
    results = [handle.result(timeout_s=60)["y"] for handle in handles]
    np.testing.assert_array_equal(np.concatenate(results), rows * 2)
    assert len({handle.id for handle in handles}) == 3000
    assert [taken.id for taken in worker.taken] == [handle.id for handle in handles]


def test_replies_may_come_in_any_order(client: Client, peer: Peer) -> None:
    handles = client.submit_many(MODEL, {"x": np.repeat(X, 3, axis=0)})
    taken = peer.take(3)
    for request in reversed(taken):
        peer.reply(request.inbox, request.doubled())
    for handle in handles:
        np.testing.assert_array_equal(handle.result(30)["y"], X * 2)


def test_one_element_carries_the_replies_of_a_batch(client: Client, peer: Peer) -> None:
    handles = client.submit_many(MODEL, {"x": np.repeat(X, 5, axis=0)})
    taken = peer.take(5)
    peer.reply(taken[0].inbox, *(request.doubled() for request in taken))
    handles[0].result(30)
    assert all(handle.done() for handle in handles)


def test_many_threads_share_one_client(client: Client, worker: Peer) -> None:
    def ask(number: int) -> bool:
        x = np.full((1, 3), number, np.float32)
        return bool((client.predict(MODEL, {"x": x})["y"] == 2 * number).all())

    with ThreadPoolExecutor(32) as pool:
        assert all(pool.map(ask, range(1000)))


def test_a_waiter_whose_reader_leaves_reads_on(client: Client, peer: Peer) -> None:
    first, second = client.submit(MODEL, {"x": X}), client.submit(MODEL, {"x": X})
    one, two = peer.take(2)
    with ThreadPoolExecutor(2) as pool:
        results = [pool.submit(first.result, 30), pool.submit(second.result, 30)]
        peer.reply(one.inbox, one.doubled())
        results[0].result()
        peer.reply(two.inbox, two.doubled())
        np.testing.assert_array_equal(results[1].result()["y"], X * 2)


def test_a_waiter_whose_reader_times_out_reads_on(client: Client, peer: Peer) -> None:
    handles = [client.submit(MODEL, {"x": X}) for _ in range(8)]
    *_, last = peer.take(8)
    with ThreadPoolExecutor(8) as pool:
        timeouts = [pool.submit(handle.result, 0.05 * number) for number, handle in enumerate(handles[:-1])]
        result = pool.submit(handles[-1].result, 30)
        for timeout in timeouts:
            assert isinstance(timeout.exception(), ResultTimeout)
        peer.reply(last.inbox, last.doubled())
        np.testing.assert_array_equal(result.result()["y"], X * 2)


@pytest.mark.parametrize("timeout_s", [0, 0.05])
def test_a_timeout_names_the_request_and_lets_it_go_on(client: Client, peer: Peer, timeout_s: float) -> None:
    handle = client.submit(MODEL, {"x": X})
    with pytest.raises(ResultTimeout, match=handle.id) as caught:
        handle.result(timeout_s=timeout_s)
    assert caught.value.request_id == handle.id
    assert isinstance(caught.value, TimeoutError)
    (taken,) = peer.take()
    peer.reply(taken.inbox, taken.doubled())
    np.testing.assert_array_equal(handle.result(30)["y"], X * 2)


def test_a_timeout_says_when_no_worker_serves_the_model(
    client: Client, peer: Peer, serving: Callable[[str], ClaimingConsumer]
) -> None:
    handle = client.submit(MODEL, {"x": X})
    none, away = (
        "no worker serves model 'digits' at present; start one .*headrace worker --models",
        "goes on: wait again",
    )
    with pytest.raises(ResultTimeout, match=none) as caught:
        handle.result(timeout_s=0.01)
    assert caught.value.request_id == handle.id
    consumer = serving(queue_name(MODEL))
    with pytest.raises(ResultTimeout, match=away) as caught:
        handle.result(timeout_s=0.01)
    assert "no worker" not in caught.value.message
    with pytest.raises(ResultTimeout, match="no worker serves model 'other'"):
        client.predict("other", {"x": X}, timeout_s=0.01)
    consumer.close()
    assert not client.is_served(MODEL)
    with pytest.raises(ResultTimeout, match=none):
        handle.result(timeout_s=0.01)


def test_a_look_without_waiting_asks_nobody_who_serves(client: Client, peer: Peer) -> None:
    handle = client.submit(MODEL, {"x": X})
    with pytest.raises(ResultTimeout, match="no result within 0 s") as caught:
        handle.result(timeout_s=0)
    assert "no worker" not in caught.value.message


def test_where_nobody_can_say_who_serves_a_model_is_taken_to_be_served() -> None:
    assert is_served("redis://127.0.0.1:1/0", MODEL)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert is_served(f"redis://127.0.0.1:{silent.getsockname()[1]}/0", MODEL)


def test_outputs_come_back_in_the_order_of_the_model(
    stored_client: Client, peer: Peer, stored_settings: Settings
) -> None:
    outputs = {name: np.ones((1, 2), np.float32) for name in ("long name", "b", "aa", "a")}
    handle = stored_client.submit(MODEL, {"x": X})
    (taken,) = peer.take()
    store(stored_settings.require_database_url(), handle.id, succeeded(outputs))
    peer.reply(taken.inbox, Reply(id=handle.id, state="succeeded", stored=True))
    assert list(handle.result(30)) == list(outputs)
    row = stored_client.get(handle.id)
    assert row is not None
    assert list(row.result()) == list(outputs)
    inline = stored_client.submit(MODEL, {"x": X})
    peer.reply(taken.inbox, Reply(id=inline.id, state="succeeded", outputs=encode_tensors(outputs)))
    assert list(inline.result(30)) == list(outputs)


def test_nan_and_infinity_go_to_a_model_whose_signature_nobody_here_knows(client: Client, worker: Peer) -> None:
    odd = [[float("nan"), float("inf"), -float("inf")]]
    for x in (odd, np.array(odd, np.float32)):
        np.testing.assert_array_equal(client.predict(MODEL, {"x": x})["y"], np.array(odd))
    for handle in client.submit_many(MODEL, {"x": [*odd, [1.0, 2.0, 3.0]]}):
        assert handle.result(30)["y"].shape == (1, 3)


def test_a_timeout_of_zero_takes_what_is_there(client: Client, peer: Peer) -> None:
    handle = client.submit(MODEL, {"x": X})
    (taken,) = peer.take()
    peer.reply(taken.inbox, taken.doubled())
    np.testing.assert_array_equal(handle.result(0)["y"], X * 2)


@pytest.mark.parametrize(
    ("state", "error_type", "expected"),
    [
        ("failed", "SignatureMismatch", SignatureMismatch),
        ("failed", "UnknownModel", UnknownModel),
        ("failed", "InferenceFailed", InferenceFailed),
        ("failed", "SomethingOfALaterRelease", InferenceFailed),
        ("failed", "", InferenceFailed),
        ("expired", "", DeadlineExceeded),
        ("expired", "DeadlineExceeded", DeadlineExceeded),
        ("cancelled", "", Cancelled),
    ],
)
def test_an_error_reply_raises_its_class(
    client: Client, peer: Peer, state: str, error_type: str, expected: type[HeadraceError]
) -> None:
    handle = client.submit(MODEL, {"x": X})
    (taken,) = peer.take()
    peer.reply(
        taken.inbox,
        Reply(id=taken.id, state=state, error_type=error_type, error_message="so it is" if error_type else ""),
    )
    for _ in range(2):
        with pytest.raises(HeadraceError) as caught:
            handle.result(30)
        assert type(caught.value) is expected
        assert caught.value.request_id == handle.id
        assert not error_type or caught.value.message == "so it is"
    assert handle.status() == state


def test_replies_for_others_and_nonsense_are_ignored(client: Client, peer: Peer) -> None:
    handle = client.submit(MODEL, {"x": X})
    (taken,) = peer.take()
    peer.reply(taken.inbox, Reply(id="somebody else's", state="succeeded"))
    peer.client.rpush(taken.inbox, b"\xc1 this is no reply")
    peer.reply(taken.inbox, taken.doubled(), taken.doubled())
    np.testing.assert_array_equal(handle.result(30)["y"], X * 2)


def test_dropped_handles_leave_nothing_behind(client: Client, peer: Peer) -> None:
    handles = client.submit_many(MODEL, {"x": np.repeat(X, 100, axis=0)})
    kept = handles[-1]
    del handles
    gc.collect()
    assert len(client._inbox._pending) == 1
    taken = peer.take(100)
    peer.reply(taken[0].inbox, *(request.doubled() for request in taken))
    kept.result(30)
    assert len(client._inbox._pending) == 0


def test_one_id_submitted_twice_is_one_handle(client: Client, peer: Peer) -> None:
    first, second = (client.submit(MODEL, {"x": X}, request_id="same") for _ in range(2))
    assert first is second
    with pytest.raises(InvalidRequest, match="another id"):
        client.submit("other", {"x": X}, request_id="same")


def test_outputs_too_large_for_a_reply_are_read_from_the_store(
    stored_client: Client, database_url: str, peer: Peer
) -> None:
    handle = stored_client.submit(MODEL, {"x": X}, request_id="big one")
    (taken,) = peer.take()
    store(database_url, taken.id, succeeded({"y": X * 3}))
    peer.reply(taken.inbox, Reply(id=taken.id, state="succeeded", stored=True))
    np.testing.assert_array_equal(handle.result(30)["y"], X * 3)


def test_a_pruned_row_is_a_clear_error(stored_client: Client, peer: Peer) -> None:
    handle = stored_client.submit(MODEL, {"x": X})
    (taken,) = peer.take()
    peer.reply(taken.inbox, Reply(id=taken.id, state="succeeded", stored=True))
    with pytest.raises(ConfigurationError, match="not in the store") as caught:
        handle.result(30)
    assert caught.value.request_id == handle.id


def test_a_lost_reply_is_found_in_the_store(
    stored_client: Client, database_url: str, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pending, "LOOKUP_EVERY_S", 0.2)
    handle = stored_client.submit(MODEL, {"x": X})
    (taken,) = peer.take()
    with ThreadPoolExecutor(1) as pool:
        result = pool.submit(handle.result)
        store(database_url, taken.id, succeeded({"y": X * 2}))
        peer.reply(taken.inbox, Reply(id="x", state="succeeded"))
        peer.client.delete(taken.inbox)
        np.testing.assert_array_equal(result.result(30)["y"], X * 2)


def test_a_cut_connection_makes_waiters_look_into_the_store(
    stored_client: Client, database_url: str, broker_url: str, peer: Peer
) -> None:
    handles = stored_client.submit_many(MODEL, {"x": np.repeat(X, 4, axis=0)})
    taken = peer.take(4)
    for request in taken:
        store(database_url, request.id, succeeded({"y": X * 2}))
    with ThreadPoolExecutor(4) as pool:
        results = [pool.submit(handle.result, 60) for handle in handles[:3]]
        kill_connections(broker_url)
        for result in results:
            np.testing.assert_array_equal(result.result()["y"], X * 2)
    np.testing.assert_array_equal(handles[3].result(60)["y"], X * 2)


def test_a_waiter_survives_a_cut_connection(client: Client, broker_url: str, peer: Peer) -> None:
    handle = client.submit(MODEL, {"x": X})
    (taken,) = peer.take()
    with ThreadPoolExecutor(1) as pool:
        result = pool.submit(handle.result, 60)
        kill_connections(broker_url)
        peer.reply(taken.inbox, taken.doubled())
        np.testing.assert_array_equal(result.result()["y"], X * 2)


def test_a_failed_row_found_in_the_store_raises_its_error(stored_client: Client, database_url: str, peer: Peer) -> None:
    handle = stored_client.submit(MODEL, {"x": X})
    assert handle.status() == "pending"
    error = error_json(SignatureMismatch("input 'x' must be INT64"))
    store(database_url, handle.id, Row(id=succeeded({}).id, state="failed", error=error))
    assert handle.status() == "failed"
    with pytest.raises(SignatureMismatch, match="INT64") as caught:
        handle.result()
    assert caught.value.request_id == handle.id


def test_get_reads_any_row(stored_client: Client, database_url: str) -> None:
    assert stored_client.get("order 8") is None
    store(database_url, "order 8", succeeded({"y": X}))
    row = stored_client.get("order 8")
    assert row is not None
    np.testing.assert_array_equal(row.result()["y"], X)


def test_without_a_database_only_the_store_is_missing(client: Client, peer: Peer) -> None:
    handle = client.submit(MODEL, {"x": X})
    assert handle.status() == "pending"
    for ask in (lambda: client.get("x"), handle.cancel):
        with pytest.raises(ConfigurationError, match="HEADRACE_DATABASE_URL"):
            ask()
    (taken,) = peer.take()
    peer.reply(taken.inbox, Reply(id=taken.id, state="succeeded", stored=True))
    with pytest.raises(ConfigurationError, match="HEADRACE_DATABASE_URL"):
        handle.result(30)


def test_cancel_writes_the_row_tells_the_workers_and_wakes_the_waiter(
    stored_client: Client, database_url: str, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What Celery itself would go by.
    monkeypatch.setenv("CELERY_BROKER_URL", "redis://127.0.0.1:1/0")
    handle = stored_client.submit(MODEL, {"x": X})
    with ThreadPoolExecutor(1) as pool, peer.client.pubsub() as broadcasts:  # type: ignore[no-untyped-call]
        broadcasts.psubscribe("*celery.pidbox*")
        assert broadcasts.get_message(timeout=30)
        waiter = pool.submit(handle.result)
        assert handle.cancel()
        assert isinstance(waiter.exception(30), Cancelled)
        heard = broadcasts.get_message(timeout=30)
    assert heard
    assert heard["type"] == "pmessage"
    assert handle.cancel()
    assert handle.status() == "cancelled"
    with StoreReader(database_url) as reader:
        row = reader.get(handle.id)
    assert row is not None
    assert (row.state, row.model) == ("cancelled", MODEL)
    with pytest.raises(Cancelled):
        handle.result()


def test_what_has_ended_is_not_cancelled(stored_client: Client, database_url: str) -> None:
    handle = stored_client.submit(MODEL, {"x": X})
    store(database_url, handle.id, succeeded({"y": X}))
    assert not handle.cancel()
    assert not handle.cancel()
    np.testing.assert_array_equal(handle.result()["y"], X)


def test_a_full_queue_refuses(settings: Settings, peer: Peer) -> None:
    limited = settings.model_copy(update={"queue_limit": 2})
    with Client(limited) as client:
        client.submit(MODEL, {"x": X})
        client.submit(MODEL, {"x": X})
        with pytest.raises(QueueFull, match="limit of 2") as caught:
            client.submit(MODEL, {"x": X})
        assert caught.value.request_id
    assert peer.client.llen(queue_name(MODEL)) == 2


def test_a_queue_that_fills_up_on_the_way_says_which_rows_go_on(settings: Settings, peer: Peer) -> None:
    limited = settings.model_copy(update={"queue_limit": 1500})
    with Client(limited) as client:
        with pytest.raises(PartlySubmitted, match="first 1,500 rows") as caught:
            client.submit_many(MODEL, {"x": np.zeros((5000, 3), np.float32)})
        assert caught.value.type == "QueueFull"
        assert [taken.id for taken in peer.take(1500)] == [handle.id for handle in caught.value.handles]


def test_the_limit_holds_for_eight_clients_at_once(settings: Settings, peer: Peer) -> None:
    limited = settings.model_copy(update={"queue_limit": 700})

    def submit_until_full(_: int) -> int:
        accepted = 0
        with Client(limited) as client, contextlib.suppress(QueueFull):
            while True:
                client.submit(MODEL, {"x": X}, priority=accepted % 10)
                accepted += 1
        return accepted

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(submit_until_full, range(8))) == 700


def test_a_closed_client_answers_its_waiters(client: Client, peer: Peer) -> None:
    handles = [client.submit(MODEL, {"x": X}) for _ in range(3)]
    with ThreadPoolExecutor(3) as pool:
        waiters = [pool.submit(handle.result) for handle in handles]
        peer.take(3)
        client.close()
        for waiter in waiters:
            assert isinstance(waiter.exception(30), ResultTimeout)
    client.close()
    with pytest.raises(ResultTimeout, match="closed"):
        handles[0].result()
    with pytest.raises(InvalidRequest, match="closed"):
        client.submit(MODEL, {"x": X})


def test_a_closed_client_leaves_no_inbox(client: Client, peer: Peer) -> None:
    client.submit(MODEL, {"x": X})
    (taken,) = peer.take()
    peer.reply(taken.inbox, taken.doubled())
    client.close()
    assert not peer.client.exists(taken.inbox)


def test_a_client_that_never_waits_empties_its_inbox(
    client: Client, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.producers.replies.inbox.TIDY_EVERY_S", 0.0)
    monkeypatch.setattr("headrace.producers.replies.inbox.POLL_EVERY_S", 0.0)
    client.submit(MODEL, {"x": X})
    (taken,) = peer.take()
    for _ in range(200):
        peer.reply(taken.inbox, taken.doubled())
    client.submit(MODEL, {"x": X})
    assert not peer.client.exists(taken.inbox)


def test_a_broker_that_is_down_is_one_clear_line_without_the_password() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"redis://user:s3cret@127.0.0.1:{unused.getsockname()[1]}/0"
        with Client(Settings(broker_url=SecretStr(url))) as client:
            for submit in (client.submit, client.submit_many, client.predict):
                with pytest.raises(BrokerUnavailable, match="HEADRACE_BROKER_URL") as caught:
                    submit(MODEL, {"x": X})
                assert "\n" not in caught.value.message
                assert "s3cret" not in "".join(traceback.format_exception(caught.value))


def test_a_broker_that_is_lost_on_the_way_says_which_rows_go_on(
    client: Client, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = RequestFactory._block
    blocks: list[Block] = []

    def break_before_the_third(self: RequestFactory, envelope: Envelope, checked: Checked, start: int) -> Block:
        if len(blocks) == 2:
            peer.client.rename(queue_name(MODEL), "aside")
            peer.client.set(queue_name(MODEL), "no list")
        blocks.append(encode(self, envelope, checked, start))
        return blocks[-1]

    monkeypatch.setattr(RequestFactory, "_block", break_before_the_third)
    with pytest.raises(SubmissionInterrupted, match="first 2,048 rows") as caught:
        client.submit_many(MODEL, {"x": np.zeros((5000, 3), np.float32)})
    assert caught.value.type == "BrokerUnavailable"
    assert [handle.id for handle in caught.value.handles] == blocks[0].ids + blocks[1].ids
    assert peer.client.llen("aside") == 2048


def test_a_broker_that_stays_away_ends_a_wait(client: Client, peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.producers.replies.reading.PATIENCE_S", 0.0)
    handle = client.submit(MODEL, {"x": X})
    peer.client.set(client._inbox.key, "no list")
    with pytest.raises(BrokerUnavailable, match="Redis or Valkey"):
        handle.result()


def test_a_broker_that_refuses_is_unavailable(client: Client, peer: Peer) -> None:
    peer.client.set(queue_name(MODEL), "no list")
    with pytest.raises(BrokerUnavailable, match="WRONGTYPE"):
        client.submit(MODEL, {"x": X})


def test_a_client_needs_a_broker(monkeypatch: pytest.MonkeyPatch, tmp_path: os.PathLike[str]) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match="HEADRACE_BROKER_URL"):
        Client(Settings())


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch, broker_url: str, worker: Peer) -> None:
    monkeypatch.setenv("HEADRACE_BROKER_URL", broker_url.replace("redis://", "headrace://"))
    with Client() as client:
        assert client.predict(MODEL, {"x": X})


def in_forked_child(run: Callable[[], None]) -> int:
    """Run something in a forked child, where the interpreter is as it was; give the exit code."""
    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    process.join(60)
    return process.exitcode if process.exitcode is not None else -1


#: Python from 3.12 on warns of forks beside threads; prefork servers fork all the same, before they serve.
_forks = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")


@_forks
def test_a_forked_child_has_an_inbox_and_connections_of_its_own(
    stored_client: Client, database_url: str, worker: Peer
) -> None:
    x = {"x": X}
    stored_client.predict(MODEL, x)
    assert stored_client.get("nobody") is None
    inherited = stored_client.submit(MODEL, x)
    inherited.result(30)
    lost: Handle = stored_client.submit(MODEL, x, request_id="lost")
    store(database_url, "lost", succeeded({"y": X}))
    parent_inbox = stored_client._inbox.key

    def child() -> None:
        assert stored_client._inbox.key != parent_inbox
        for _ in range(20):
            assert stored_client.predict(MODEL, x)
        assert inherited.result(0)
        np.testing.assert_array_equal(lost.result(30)["y"], X)
        stored_client.close()

    assert in_forked_child(child) == 0
    for _ in range(20):
        assert stored_client.predict(MODEL, x)
    assert stored_client.get("lost") is not None


@_forks
def test_a_fork_while_a_thread_waits_does_not_block_the_child(client: Client, worker: Peer, peer: Peer) -> None:
    worker.answer = lambda taken: None if taken.id == "never" else taken.doubled()
    never = client.submit(MODEL, {"x": X}, request_id="never")
    started = threading.Event()

    def wait() -> Tensors:
        started.set()
        return never.result()

    with ThreadPoolExecutor(1) as pool:
        waiter = pool.submit(wait)
        started.wait()

        def child() -> None:
            assert client.predict(MODEL, {"x": X})
            client.close()

        assert in_forked_child(child) == 0
        client.close()
        assert isinstance(waiter.exception(30), ResultTimeout)
