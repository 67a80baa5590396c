"""Bodies that are not what their headers say, clients that leave, and bodies without end."""

from __future__ import annotations

import gzip
import zlib
from functools import partial

import numpy as np
import orjson
import pytest
from tests.eventually import eventually
from tests.gateway.conftest import Running, Served, question, running_gateway
from tests.gateway.raw_http import connected

from headrace.gateway.serving.limited_http import MOST_HEAD_BYTES
from headrace.queueing import connect_to, queue_stats
from headrace.results_store import Prediction, StoreReader

INFER = "/v2/models/mirror/infer"
GATE = "/v2/models/gate/infer"

RAW = np.arange(4, dtype="<f4").tobytes()


def framed(size: object = len(RAW), raw: bytes = RAW, shape: object = (1, 4)) -> tuple[bytes, int]:
    """Return a body with a binary tensor and the length of its JSON."""
    given = {"name": "x", "shape": shape, "datatype": "FP32", "parameters": {"binary_data_size": size}}
    head = orjson.dumps({"inputs": [given]})
    return head + raw, len(head)


def test_a_body_in_many_pieces_is_one_body(gateway: Running) -> None:
    body, length = framed()
    with connected(gateway.url) as connection:
        connection.send(INFER, b"", Content_Length=len(body), Inference_Header_Content_Length=length)
        for at in range(len(body)):
            connection.socket.sendall(body[at : at + 1])
        assert connection.answer().json()["outputs"][0]["data"] == [0, 1, 2, 3]


def test_a_chunked_body_is_a_body(gateway: Running) -> None:
    body, length = framed()
    with connected(gateway.url) as connection:
        connection.send(
            INFER, b"", Content_Length=None, Transfer_Encoding="chunked", Inference_Header_Content_Length=length
        )
        for at in range(0, len(body), 50):
            piece = body[at : at + 50]
            connection.socket.sendall(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        connection.socket.sendall(b"0\r\n\r\n")
        assert connection.answer().status == 200


@pytest.mark.parametrize(
    "length", ["-1", "1e3", "", "x", "99999999999999999999", "0", "10", str(10**6), "\uff11\uff10"]
)
def test_a_wrong_length_of_the_json_is_refused(gateway: Running, length: str) -> None:
    body, _ = framed()
    with connected(gateway.url) as connection:
        connection.socket.sendall(
            f"POST {INFER} HTTP/1.1\r\nHost: test\r\nContent-Length: {len(body)}\r\n"
            f"Inference-Header-Content-Length: {length}\r\n\r\n".encode()
            + body
        )
        answer = connection.answer()
    assert answer.status == 400
    assert answer.json()["error"]


@pytest.mark.parametrize("size", [-1, 0, 15, 17, 2**63, 2**64 - 1, 1.5, "16", True, [16]])
def test_a_wrong_size_of_a_tensor_is_refused(gateway: Running, size: object) -> None:
    body, length = framed(size)
    with connected(gateway.url) as connection:
        connection.send(INFER, body, Inference_Header_Content_Length=length)
        answer = connection.answer()
    assert answer.status in {400, 422}
    assert answer.json()["error"]


@pytest.mark.parametrize("shape", [[1, 5], [4, 4], [0, 4], [-1, 4], [2**40, 2**40], [1] * 40, [], [1, 4, 2**63]])
def test_a_shape_that_disagrees_with_the_bytes_is_refused(gateway: Running, shape: list[int]) -> None:
    body, length = framed(shape=shape)
    with connected(gateway.url) as connection:
        connection.send(INFER, body, Inference_Header_Content_Length=length)
        assert connection.answer().status in {400, 422}


def test_a_body_that_says_it_is_too_large_is_refused_before_it_is_sent(gateway: Running) -> None:
    with connected(gateway.url) as connection:
        connection.send(INFER, b"{", Content_Length=10**9)
        answer = connection.answer()
        assert (answer.status, answer.headers["connection"]) == (413, "close")
        assert "HEADRACE_GATEWAY_BODY_BYTES" in answer.json()["error"]
        assert connection.is_closed()


def test_a_body_that_grows_too_large_is_refused_while_it_comes(served: Served) -> None:
    settings = served.settings.model_copy(update={"gateway_body_bytes": 100_000})
    with running_gateway(settings) as gateway, connected(gateway.url) as connection:
        connection.send(INFER, b"", Content_Length=None, Transfer_Encoding="chunked")
        piece = b"1000\r\n" + b" " * 0x1000 + b"\r\n"
        for _ in range(100_000 // 0x1000 + 1):
            connection.socket.sendall(piece)
        answer = connection.answer()
        assert (answer.status, answer.headers["connection"]) == (413, "close")


@pytest.mark.parametrize(("coding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_a_compression_bomb_is_bounded(gateway: Running, coding: str, pack: type) -> None:
    bomb = pack(bytes(200 << 20))
    with connected(gateway.url) as connection:
        connection.send(INFER, bomb, Content_Encoding=coding)
        assert connection.answer().status == 413


@pytest.mark.parametrize(
    "body",
    [b"", b"no gzip", gzip.compress(b"{}")[:-4], gzip.compress(b"{}") + b"more"],
    ids=["nothing", "no gzip", "cut off", "more behind it"],
)
def test_a_body_that_is_not_what_its_coding_says_is_refused(gateway: Running, body: bytes) -> None:
    with connected(gateway.url) as connection:
        connection.send(INFER, body, Content_Encoding="gzip")
        assert connection.answer().status == 400


def test_a_truncated_body_is_no_request(gateway: Running) -> None:
    body, length = framed()
    with connected(gateway.url) as connection:
        connection.send(INFER, body[:-3], Content_Length=len(body), Inference_Header_Content_Length=length)
    assert gateway.infer("mirror", question(1)).status_code == 200


def test_a_client_that_leaves_cancels_its_request_and_the_model_never_runs_it(gateway: Running, served: Served) -> None:
    with served.held():
        first = gateway.infer("gate", question(1), headers={"Prefer": "respond-async"})
        for number in range(200, 220):
            with connected(gateway.url) as connection:
                connection.send(GATE, orjson.dumps(question(number)))
                eventually(partial(_waits, served, number), 30, "a request on the queue")
        eventually(lambda: len(_cancelled(served)) == 20, 60, "cancelled rows")
        eventually(lambda: served.are_cancelled(_cancelled(served)), 30, "a worker that has heard of it")
    assert gateway.client.get(first.headers["Location"], params={"wait": 60}).json()["state"] == "succeeded"
    assert gateway.infer("gate", question(2)).status_code == 200
    assert not {str(number) for number in range(200, 220)} & set(served.runs().split())


def _waits(served: Served, number: int) -> bool:
    with connect_to(served.settings) as client:
        (stats,) = queue_stats(client, ["infer.gate"])
    return stats.waiting + stats.in_flight + len(_cancelled(served)) > number - 200


def _cancelled(served: Served) -> list[Prediction]:
    with StoreReader(served.settings.require_database_url()) as reader:
        return reader.find(model="gate", state="cancelled", limit=100)


def test_a_client_that_leaves_while_it_waits_for_an_asynchronous_answer_cancels_nothing(
    gateway: Running, served: Served
) -> None:
    with served.held():
        with connected(gateway.url) as connection:
            connection.send(GATE, orjson.dumps(question(301)), Prefer="respond-async, wait=30")
            eventually(lambda: _noted(served), 30, "a note on the request")
        (request_id,) = _noted(served)
    found = gateway.client.get(f"/v2/requests/{request_id}", params={"wait": 60}).json()
    assert found["state"] == "succeeded"


def _noted(served: Served) -> list[str]:
    from headrace.queueing import connect_to

    with connect_to(served.settings) as client:
        return [key.decode().rpartition(":")[2] for key in client.scan_iter("headrace:gateway:request:*")]


@pytest.mark.parametrize("piece", [b"X-A: " + b"a" * 1000 + b"\r\n", b"a" * 1000])
def test_headers_without_end_are_refused(gateway: Running, piece: bytes) -> None:
    with connected(gateway.url) as connection:
        head = f"POST {INFER} HTTP/1.1\r\nHost: test\r\nX-B: ".encode() + piece * 70
        # No byte more: what is left unread when a connection closes takes the answer with it.
        connection.socket.sendall(head[: MOST_HEAD_BYTES + 1])
        answer = connection.answer()
        assert (answer.status, answer.json()["status"], answer.headers["connection"]) == (431, 431, "close")
        assert connection.is_closed()


def test_headers_up_to_the_limit_are_read_with_every_request_of_a_connection(gateway: Running) -> None:
    with connected(gateway.url) as connection:
        for number in range(3):
            connection.send(INFER, orjson.dumps(question(number)), X_Long="a" * 60_000)
            assert connection.answer().status == 200


def test_two_requests_in_one_piece_are_both_answered(gateway: Running) -> None:
    body = orjson.dumps(question(5))
    request = f"POST {INFER} HTTP/1.1\r\nHost: test\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    with connected(gateway.url) as connection:
        connection.socket.sendall(request * 2)
        connection.socket.sendall(request)
        received = b""
        while received.count(b'"outputs"') < 3:
            received += connection.socket.recv(65_536)
    assert received.count(b"HTTP/1.1 200 OK") == 3


def test_requests_one_behind_the_other_are_answered_in_order(gateway: Running) -> None:
    with connected(gateway.url) as connection:
        for number in range(5):
            connection.send(INFER, orjson.dumps(question(number)))
            assert connection.answer().json()["outputs"][0]["data"] == [number]
