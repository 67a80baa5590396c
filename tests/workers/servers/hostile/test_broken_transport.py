"""Servers that break HTTP itself: connections cut in the middle, lengths that lie, answers that drip or never end."""

from __future__ import annotations

import gzip
import json
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from tests.eventually import eventually
from tests.runtimes.remote.wrong_answers import json_answer
from tests.workers.servers.hostile import http_peer
from tests.workers.servers.hostile.conftest import PATIENCE_S, Arena, End, Ordeal, doubled, outcomes
from tests.workers.servers.hostile.http_peer import Call, Hangup

from headrace.contracts import DeadlineExceeded, InferenceFailed


def _good(call: Call) -> bytes:
    return json.dumps(json_answer(2 * call.x)).encode()


def _hang_up_before(call: Call) -> None:
    raise Hangup


def _hang_up_inside(call: Call) -> None:
    body = _good(call)
    call.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body[: len(body) // 2])
    raise Hangup


def _hang_up_in_head(call: Call) -> None:
    call.send(b"HTTP/1.1 200 OK\r\nContent-Le")
    raise Hangup


def _reset(call: Call) -> None:
    call.send(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{")
    http_peer.reset(call)


def _chunks_cut(call: Call) -> None:
    call.send(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"mod\r\n')
    raise Hangup


def _chunks_broken(call: Call) -> None:
    call.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n" + _good(call) + b"\r\n0\r\n\r\n")
    raise Hangup


def _chunks_negative(call: Call) -> None:
    call.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\n" + _good(call) + b"\r\n0\r\n\r\n")
    raise Hangup


def _length(value: str) -> http_peer.Behaviour:
    def respond(call: Call) -> None:
        call.send(f"HTTP/1.1 200 OK\r\nContent-Length: {value}\r\n\r\n".encode() + _good(call))
        raise Hangup

    return respond


def _raw(data: bytes) -> http_peer.Behaviour:
    def respond(call: Call) -> None:
        call.send(data)
        raise Hangup

    return respond


def _garbage(call: Call) -> None:
    call.send(b"-ERR unknown command\r\n" * 10)
    raise Hangup


#: The connection is lost or nobody can tell where the answer ends: a wait until the deadline, or an error by name.
BROKEN: dict[str, http_peer.Behaviour] = {
    "h-before": _hang_up_before,
    "h-inside": _hang_up_inside,
    "h-in-head": _hang_up_in_head,
    "h-reset": _reset,
    "h-chunks-cut": _chunks_cut,
    "h-chunks-broken": _chunks_broken,
    "h-chunks-negative": _chunks_negative,
    "h-length-larger": _length("9999"),
    "h-length-smaller": _length("20"),
    "h-length-zero": _length("0"),
    "h-length-negative": _length("-5"),
    "h-length-text": _length("many"),
    "h-length-twice": _length("20\r\nContent-Length: 30"),
    "h-length-huge": _length("999999999999999"),
    "h-length-long": _length("9" * 5000),
    "h-garbage": _garbage,
    "h-no-head": _raw(b"\r\n\r\n"),
    "h-status-text": _raw(b"HTTP/1.1 well OK\r\n\r\n"),
    "h-status-0": _raw(b"HTTP/1.1 0 OK\r\n\r\n"),
    "h-status-999": _raw(b"HTTP/1.1 999 OK\r\nContent-Length: 0\r\n\r\n"),
    "h-status-101": _raw(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"),
    "h-http-2": _raw(b"\0\0\x12\x04\0\0\0\0\0\0\x03\0\0\0\x64\0\x04\0\x10\0\0"),
    "h-long-line": _raw(b"HTTP/1.1 200 OK\r\nX-Long: " + b"a" * 5_000_000 + b"\r\nContent-Length: 0\r\n\r\n"),
    "h-many-headers": _raw(b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * 100_000 + b"Content-Length: 0\r\n\r\n"),
}


def _redirecting(status: str) -> http_peer.Behaviour:
    def respond(call: Call) -> None:
        # To a model of this very server that would answer well.
        call.respond("", status, location="/v2/models/h-trap/infer")

    return respond


#: Those that keep the method of a request, and those that make a GET of it.
REDIRECTS = {f"h-redirect-{status[:3]}": _redirecting(status) for status in ("302 Found", "307 Temporary Redirect")}


def _then_close(call: Call) -> None:
    call.respond(_good(call), connection="close")
    raise Hangup


def _close_unannounced(call: Call) -> None:
    call.respond(_good(call))
    raise Hangup


def _chunked(call: Call) -> None:
    body = _good(call)
    call.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    for byte in body:
        call.send(b"1;ext=1\r\n%c\r\n" % byte)
    call.send(b"0\r\nX-Trailer: 1\r\n\r\n")


def _until_close(call: Call) -> None:
    call.send(b"HTTP/1.0 200 OK\r\n\r\n" + _good(call))
    raise Hangup


def _continue(call: Call) -> None:
    call.send(b"HTTP/1.1 100 Continue\r\n\r\n" * 3 + b"HTTP/1.1 102 Processing\r\n\r\n")
    call.respond(_good(call))


def _trickle(call: Call) -> None:
    body = _good(call)
    data = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    for start in range(0, len(data), 20):
        call.send(data[start : start + 20])
        time.sleep(0.02)


WELL: dict[str, http_peer.Behaviour] = {
    "h-close": _then_close,
    "h-close-unannounced": _close_unannounced,
    "h-chunked": _chunked,
    "h-until-close": _until_close,
    "h-continue": _continue,
    "h-trickle": _trickle,
}


def _drip(call: Call) -> None:
    body = _good(call)
    for byte in b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body:
        call.send(b"%c" % byte)
        time.sleep(1.0)


def _drip_body(call: Call) -> None:
    body = _good(call)
    call.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body))
    for byte in body:
        call.send(b"%c" % byte)
        time.sleep(1.0)


def _never(call: Call) -> None:
    time.sleep(120)


SLOW: dict[str, http_peer.Behaviour] = {"h-drip-head": _drip, "h-drip": _drip_body, "h-never": _never}


def _endless(call: Call) -> None:
    call.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    piece = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
    for _ in range(3000):
        call.send(piece)
    raise Hangup


def _endless_head(call: Call) -> None:
    call.send(b"HTTP/1.1 200 OK\r\n")
    for _ in range(3000):
        call.send(b"X-A: " + b"a" * 0x100000 + b"\r\n")
    raise Hangup


def _bomb(call: Call) -> None:
    # The members of one file: 4 GiB unpacked.
    call.respond(gzip.compress(bytes(2**26), 1) * 64, content_encoding="gzip")


#: Answers whose memory nobody has. The first is read up to the limit of an answer's size, the others are not.
FLOODS: dict[str, http_peer.Behaviour] = {"h-endless": _endless, "h-endless-head": _endless_head, "h-bomb": _bomb}


PACKAGES: dict[str, dict[str, object]] = {
    name: {} for name in ("h-trap", "h-late", "h-gzip-real", *BROKEN, *REDIRECTS, *WELL, *SLOW, *FLOODS)
}
ENVIRONMENT = {"HEADRACE_SERVER_TIMEOUT_S": "3"}

#: Of `BROKEN`, those whose requests wait.
LOST = ["h-before", "h-inside", "h-reset", "h-chunks-cut", "h-length-larger"]


def _is_a_wait_or_named(ends: list[End]) -> bool:
    return all(isinstance(each, DeadlineExceeded | InferenceFailed) and each.message for each in ends)


@pytest.fixture(scope="module")
def ordeal(arena: Arena) -> Ordeal:
    """Two floods at a time are too much for the limit of the memory test; those here are stopped at their start."""
    early = {model: FLOODS[model] for model in ("h-endless-head", "h-bomb")}
    return arena.undergo(BROKEN | REDIRECTS | early, range(1, 5), deadline_s=3.0)


@pytest.mark.parametrize("model", BROKEN)
def test_a_broken_answer_is_an_error_or_a_wait_and_then_all_is_well(arena: Arena, ordeal: Ordeal, model: str) -> None:
    assert _is_a_wait_or_named(ordeal.ends[model]), ordeal.ends[model]
    assert ordeal.is_over(model), ordeal.later[model]
    arena.has_done_all_of(model)


@pytest.mark.parametrize("model", REDIRECTS)
def test_a_redirect_is_not_followed(arena: Arena, ordeal: Ordeal, model: str) -> None:
    assert _is_a_wait_or_named(ordeal.ends[model]), ordeal.ends[model]
    assert not arena.calls("h-trap")
    assert ordeal.is_over(model), ordeal.later[model]
    arena.has_done_all_of(model)


def test_requests_without_a_deadline_outlive_lost_connections_and_none_counts(arena: Arena) -> None:
    for model in LOST:
        arena.calls(model).clear()
        arena.behave(model, BROKEN[model])
    handles = {model: arena.submit(model, *range(20)) for model in LOST}
    for model, each in handles.items():
        # More than are in flight together: there are batches that were lost twice.
        arena.is_called(model, 4)
        assert not any(handle.done() for handle in each)
    arena.mend(*LOST)
    for model, each in handles.items():
        assert outcomes(each) == doubled(range(20)), model
        assert arena.attempts(each) == {1}
    arena.is_well(*LOST)


@pytest.mark.parametrize("model", WELL)
def test_an_odd_but_right_server_answers_every_request(arena: Arena, model: str) -> None:
    arena.behave(model, WELL[model])
    for start in range(0, 40, 20):
        arena.hears(model, *range(start, start + 20))
    handle = arena.client.submit(model, {"x": np.arange(30, dtype=np.float32)[:, None]})
    assert handle.result(timeout_s=PATIENCE_S)["y"].ravel().tolist() == doubled(range(30))
    arena.has_done_all_of(model)


def test_an_answer_packed_unasked_makes_requests_wait_and_says_why(arena: Arena) -> None:
    arena.http.models["h-gzip-real"].infer = lambda call: call.respond(
        gzip.compress(_good(call)), content_encoding="gzip"
    )
    ends = arena.ends("h-gzip-real", 1.0, 2.0, deadline_s=2.0)
    assert all(isinstance(each, DeadlineExceeded) for each in ends), ends
    eventually(lambda: "switch" in arena.client.problem_of("h-gzip-real"), PATIENCE_S, "a problem that is published")
    lines = [line for line in arena.log.read_text().splitlines() if "server.misconfigured" in line]
    assert any("switch compression off for this path" in line for line in lines), lines
    arena.is_well("h-gzip-real")


def test_deadlines_are_kept_however_slowly_bytes_come(arena: Arena) -> None:
    for model, slow in SLOW.items():
        arena.behave(model, slow)
    hasty = {model: arena.submit(model, 1.0, 2.0, deadline_s=2.0) for model in SLOW}
    for model, handles in hasty.items():
        ends = outcomes(handles)
        assert all(isinstance(each, DeadlineExceeded) for each in ends), (model, ends)
    arena.is_well()
    # No deadline: the call ends after HEADRACE_SERVER_TIMEOUT_S, and the request is asked for again.
    before = {model: len(arena.calls(model)) for model in SLOW}
    patient = {model: arena.submit(model, 7.0) for model in SLOW}
    for model, calls in before.items():
        arena.is_called(model, calls + 1)
    arena.mend(*SLOW)
    for model, handles in patient.items():
        assert outcomes(handles) == [14.0], model
    arena.is_well(*SLOW)


def test_an_answer_that_comes_too_late_is_given_to_nobody(arena: Arena) -> None:
    model = arena.http.models["h-late"]
    answered = threading.Semaphore(0)

    def late(call: Call) -> None:
        body = _good(call)
        time.sleep(1.5)
        try:
            call.respond(body)
        finally:
            answered.release()

    model.infer = late
    ends = arena.ends("h-late", *range(1, 9), deadline_s=0.7)
    assert all(isinstance(each, DeadlineExceeded) for each in ends), ends
    model.infer = http_peer.well
    for start in range(100, 300, 10):
        arena.hears("h-late", *range(start, start + 10))
    assert answered.acquire(timeout=PATIENCE_S)
    for start in range(300, 400, 10):
        arena.hears("h-late", *range(start, start + 10))
    arena.is_well("h-late")


def _memory_mib(pid: int) -> float:
    """The most memory that the process has had."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def test_answers_without_end_do_not_fill_the_memory(arena: Arena, ordeal: Ordeal) -> None:
    arena.behave("h-endless", _endless)
    ends = {**ordeal.ends, "h-endless": arena.ends("h-endless", 1.0, deadline_s=8.0)}
    for model in FLOODS:
        assert _is_a_wait_or_named(ends[model]), (model, ends[model])
    # Messages of up to 1 GiB are read, and may be held twice while they are put together.
    assert _memory_mib(arena.worker.pid) < 2600
    arena.mend("h-endless")
    arena.hears("h-endless", 1.0, 2.0)
    assert all(ordeal.is_over(model) for model in ("h-endless-head", "h-bomb"))
    arena.is_well(*FLOODS)
