"""The rows of durable requests: how they are inserted, sent, found missing and removed."""

from __future__ import annotations

import datetime as dt
import socket
import threading
import time
import uuid
from collections.abc import Iterator, Sequence

import psycopg
import pytest
from tests.eventually import eventually

from headrace.contracts.errors import StoreUnavailable
from headrace.contracts.ids import new_ids, row_id
from headrace.contracts.message import Envelope, Request, RequestHeader
from headrace.results_store import BatchRows, Row, StoreReader, StoreWriter, prune
from headrace.results_store.durable.block import BLOCK_BYTES, BLOCK_REQUESTS, DurableBlock, blocks_of
from headrace.results_store.durable.relay_store import RelayStore
from headrace.results_store.durable.request_store import CONNECTIONS, RequestStore

QUEUE = "infer.digits"


@pytest.fixture
def requests(store_url: str) -> Iterator[RequestStore]:
    store = RequestStore(store_url)
    yield store
    store.close()


@pytest.fixture
def relay(store_url: str) -> Iterator[RelayStore]:
    store = RelayStore(store_url, "", "one")
    yield store
    store.close()


def block(*names: str, priority: int = 0, prefix: str = "") -> DurableBlock:
    envelope = Envelope(Request(id="", model="digits", body=b"", header=RequestHeader()))
    messages = [envelope.encode(name, name.encode()) for name in names]
    (found,) = blocks_of(prefix, QUEUE, priority, names, messages)
    return found


def insert(requests: RequestStore, *blocks: DurableBlock) -> None:
    for each in blocks:
        with requests.inserting(each):
            pass


def end(store_url: str, *names: str) -> None:
    rows = [Row(id=row_id(name), state="failed") for name in names]
    with StoreWriter(store_url) as writer:
        writer.write([BatchRows(model="digits", version="1", rows=rows, finished_at=time.time())])


class Queues:
    """Messages that were sent; `room` is how much more is accepted."""

    def __init__(self, room: int = 1_000_000) -> None:
        self.room = room
        self.sent: list[tuple[str, int, bytes]] = []

    def send(self, queue: str, priority: int, messages: Sequence[bytes]) -> int:
        accepted = list(messages)[: self.room]
        self.room -= len(accepted)
        self.sent += [(queue, priority, message) for message in accepted]
        return len(accepted)


def make_due(store: psycopg.Connection) -> None:
    store.execute("UPDATE headrace_requests SET due_at = now() WHERE due_at IS NOT NULL")


def test_blocks_are_cut_by_number_and_by_size() -> None:
    names = [str(number) for number in range(2 * BLOCK_REQUESTS + 1)]
    blocks = list(blocks_of("", QUEUE, 0, names, [b"m"] * len(names)))
    assert [len(each.ids) for each in blocks] == [BLOCK_REQUESTS, BLOCK_REQUESTS, 1]
    assert [name for each in blocks for name in each.ids] == names
    large = b"m" * (BLOCK_BYTES // 2)
    assert [len(each.ids) for each in blocks_of("", QUEUE, 0, list("abc"), [large] * 3)] == [2, 1]
    assert [len(each.ids) for each in blocks_of("", QUEUE, 0, list("ab"), [large * 3] * 2)] == [1, 1]
    assert list(blocks_of("", QUEUE, 0, [], [])) == []


def test_what_a_client_does_not_send_is_sent_by_a_relay_as_it_was(
    requests: RequestStore, relay: RelayStore, store: psycopg.Connection
) -> None:
    of_ids, of_names, urgent = block(*new_ids(3)), block("order 1", "órder 2"), block(*new_ids(1), priority=9)
    insert(requests, of_ids, of_names, urgent)
    queues = Queues()
    assert relay.send_due(queues.send) == 0
    make_due(store)
    assert relay.send_due(queues.send) == 3
    assert relay.send_due(queues.send) == 0
    expected = [(QUEUE, 0, message) for message in (*of_ids.messages, *of_names.messages)]
    assert queues.sent == [*expected, (QUEUE, 9, urgent.messages[0])]


def test_what_a_client_sent_is_not_due(requests: RequestStore, relay: RelayStore, store: psycopg.Connection) -> None:
    whole, partly = block(*new_ids(3)), block(*new_ids(3))
    insert(requests, whole, partly)
    requests.mark_sent(whole, 3)
    requests.mark_sent(partly, 1)
    assert requests.kept([whole.id, partly.id, uuid.uuid4()]) == {whole.id: True, partly.id: False}
    make_due(store)
    queues = Queues()
    assert relay.send_due(queues.send) == 1
    assert [message for _, _, message in queues.sent] == list(partly.messages[1:])


def test_marks_are_written_soon_and_together(requests: RequestStore, store: psycopg.Connection) -> None:
    blocks = [block(*new_ids(2)) for _ in range(20)]
    insert(requests, *blocks)
    for each in blocks:
        requests.mark_sent(each, 2)
    unsent = "SELECT count(*) FROM headrace_requests WHERE due_at IS NOT NULL OR sent <> 2"
    eventually(lambda: store.execute(unsent).fetchone() == (0,), 30, "the marks")
    versions = store.execute("SELECT count(DISTINCT xmin::text) FROM headrace_requests").fetchone()
    assert versions is not None
    assert versions[0] <= 2  # noted at once, or on both sides of a moment


def test_a_mark_that_is_not_written_yet_is_written_when_the_store_is_closed(
    requests: RequestStore, store: psycopg.Connection
) -> None:
    (only,) = blocks = [block(*new_ids(1))]
    insert(requests, *blocks)
    requests.mark_sent(only, 1)
    requests.close()
    assert store.execute("SELECT sent, due_at FROM headrace_requests").fetchall() == [(1, None)]


def test_a_full_queue_gets_the_rest_later(requests: RequestStore, relay: RelayStore, store: psycopg.Connection) -> None:
    first, second = block(*new_ids(3)), block(*new_ids(2))
    insert(requests, first, second)
    queues = Queues(room=4)
    make_due(store)
    assert relay.send_due(queues.send) == 2
    assert relay.send_due(queues.send) == 0
    queues.room = 10
    make_due(store)
    assert relay.send_due(queues.send) == 1
    assert [message for _, _, message in queues.sent] == [*first.messages, *second.messages]


def test_what_has_ended_is_not_sent(
    requests: RequestStore, relay: RelayStore, store_url: str, store: psycopg.Connection
) -> None:
    ids = new_ids(3)
    insert(requests, block(*ids))
    with StoreReader(store_url) as reader:
        assert reader.cancel(ids[1], "digits")
    make_due(store)
    queues = Queues()
    relay.send_due(queues.send)
    assert len(queues.sent) == 2
    assert not any(ids[1].encode() in message for _, _, message in queues.sent)


def test_a_failure_while_sending_leaves_all_due(
    requests: RequestStore, relay: RelayStore, store: psycopg.Connection
) -> None:
    insert(requests, block(*new_ids(2)))
    make_due(store)

    def fail(*_: object) -> int:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        relay.send_due(fail)
    queues = Queues()
    assert relay.send_due(queues.send) == 1
    assert len(queues.sent) == 2


def test_two_relays_at_a_time_send_nothing_twice(
    requests: RequestStore, relay: RelayStore, store_url: str, store: psycopg.Connection
) -> None:
    insert(requests, *(block(*new_ids(2)) for _ in range(20)))
    make_due(store)
    other, queues, began = RelayStore(store_url, "", "two"), Queues(), threading.Event()

    def slowly(queue: str, priority: int, messages: Sequence[bytes]) -> int:
        began.set()
        time.sleep(0.5)
        return queues.send(queue, priority, messages)

    thread = threading.Thread(target=relay.send_due, args=(slowly,))
    thread.start()
    assert began.wait(60)
    assert other.send_due(queues.send) == 0
    thread.join()
    other.close()
    assert len(queues.sent) == 40


def test_one_relay_of_a_prefix_has_the_place_until_it_leaves_or_is_gone(
    relay: RelayStore, store_url: str, store: psycopg.Connection
) -> None:
    other, elsewhere = RelayStore(store_url, "", "two"), RelayStore(store_url, "shop:", "two")
    assert relay.lead() == ""
    assert other.lead() is None
    assert elsewhere.lead() == ""
    relay.remember("e/r/m")
    assert relay.lead() == "e/r/m"
    relay.leave()
    assert other.lead() == "e/r/m"
    assert relay.lead() is None
    store.execute("UPDATE headrace_relays SET until = now() - interval '1 second' WHERE prefix = ''")
    assert relay.lead() == "e/r/m"
    other.close()
    elsewhere.close()


def test_a_relay_sends_for_its_own_prefix_only(
    requests: RequestStore, relay: RelayStore, store: psycopg.Connection
) -> None:
    insert(requests, block(*new_ids(1), prefix="shop:"))
    make_due(store)
    assert relay.send_due(Queues().send) == 0


def test_a_block_goes_when_all_of_it_has_ended_and_was_sent(
    requests: RequestStore, relay: RelayStore, store_url: str
) -> None:
    done, half, unsent = block(*new_ids(2)), block(*new_ids(2)), block(*new_ids(1))
    insert(requests, done, half, unsent)
    for each in (done, half):
        requests.mark_sent(each, len(each.ids))
    assert requests.kept([done.id, half.id]) == {done.id: True, half.id: True}
    end(store_url, *done.ids, half.ids[0], *unsent.ids)
    assert relay.tidy().int == 0
    assert requests.kept([done.id, half.id, unsent.id]) == {half.id: True, unsent.id: False}
    assert [each.id for each in relay.sent_after()] == [half.id]
    assert relay.ended([row_id(each) for each in half.ids]) == {row_id(half.ids[0])}
    (read,) = relay.read([half.id])
    assert (read.ids, list(read.messages)) == (list(half.ids), list(half.messages))


def test_prune_removes_what_is_old(requests: RequestStore, store_url: str, store: psycopg.Connection) -> None:
    old, young = block(*new_ids(1)), block(*new_ids(1))
    insert(requests, old, young)
    store.execute("UPDATE headrace_requests SET submitted_at = now() - interval '9 days' WHERE id = %s", (old.id,))
    assert prune(store_url, 8, dt.datetime.now(dt.UTC)) == 1
    assert list(requests.kept([old.id, young.id])) == [young.id]


def test_many_threads_insert_over_a_few_connections(requests: RequestStore, store: psycopg.Connection) -> None:
    threads = [threading.Thread(target=insert, args=(requests, block(*new_ids(1)))) for _ in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counted = store.execute(
        "SELECT (SELECT count(*) FROM headrace_requests), count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    ).fetchone()
    assert counted is not None
    assert counted[0] == 100
    assert counted[1] <= CONNECTIONS


def test_a_connection_that_the_server_ended_is_replaced(requests: RequestStore, store: psycopg.Connection) -> None:
    first = block(*new_ids(1))
    insert(requests, first)
    requests.mark_sent(first, 1)
    store.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    time.sleep(0.2)
    insert(requests, block(*new_ids(1)))


def test_a_postgres_that_accepts_and_never_answers_is_told_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        store = RequestStore(f"postgresql://nobody@127.0.0.1:{silent.getsockname()[1]}/none", timeout_s=2.0)
        began = time.monotonic()
        with pytest.raises(StoreUnavailable):
            insert(store, block(*new_ids(1)))
        assert time.monotonic() - began < 30, "far more than the time-out; without one it would last for ever"
