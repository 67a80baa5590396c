"""Models with several endpoints, one of which is dead, mute or a liar; and servers that come and go."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import grpc
import pytest
from tests.eventually import eventually
from tests.runtimes.remote.wrong_answers import json_answer, message
from tests.workers.servers.hostile import grpc_peer, http_peer
from tests.workers.servers.hostile.conftest import PATIENCE_S, Arena, End, doubled, outcomes
from tests.workers.servers.hostile.grpc_peer import refusing, x_of
from tests.workers.servers.hostile.http_peer import Call, Hangup

from headrace.contracts import DeadlineExceeded, HeadraceError, OutputMismatch
from headrace.producers import Handle


def _mute() -> socket.socket:
    """A port that takes connections and never answers."""
    return socket.create_server(("127.0.0.1", 0), backlog=64)


def _closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


MUTE = _mute()
LIAR, LIAR_GRPC = http_peer.HttpPeer(), grpc_peer.GrpcPeer()
WRONG = http_peer.HttpPeer()
GOOD, GOOD_GRPC = http_peer.HttpPeer(), grpc_peer.GrpcPeer()
_PORT = _closed_port()
BAD = {
    "dead": f"127.0.0.1:{_PORT}",
    "mute": f"127.0.0.1:{MUTE.getsockname()[1]}",
    "unknown-host": "no-such-host.invalid:8500",
    "other-protocol": "",
}
#: Models with a good endpoint and one of `BAD`.
BESIDE = [f"{protocol}-{name}" for protocol in "hg" for name in BAD]
PLAIN_ON_TLS = ["h-plain-on-tls", "g-plain-on-tls"]
PACKAGES: dict[str, dict[str, Any]] = {
    **{f"h-{name}": {"endpoints": (GOOD.address, f"http://{bad}")} for name, bad in BAD.items() if bad},
    **{f"g-{name}": {"endpoints": (GOOD_GRPC.address, f"grpc://{bad}")} for name, bad in BAD.items() if bad},
    # Each port speaks the other's protocol.
    "h-other-protocol": {"endpoints": (GOOD.address, GOOD_GRPC.address.replace("grpc:", "http:"))},
    "g-other-protocol": {"endpoints": (GOOD_GRPC.address, GOOD.address.replace("http:", "grpc:"))},
    "h-plain-on-tls": {"endpoints": (GOOD.address.replace("http:", "https:"),)},
    "h-wrong-server": {"endpoints": (GOOD.address, WRONG.address)},
    "h-wrong-server-alone": {"endpoints": (WRONG.address,)},
    "g-plain-on-tls": {"endpoints": (GOOD_GRPC.address.replace("grpc:", "grpcs:"),)},
    "h-liar": {"endpoints": (GOOD.address, LIAR.address)},
    "g-liar": {"endpoints": (GOOD_GRPC.address, LIAR_GRPC.address)},
    "h-gone": {},
    "g-gone": {},
    "h-blinks": {},
    "g-blinks": {},
    "h-flaps": {},
    "h-reloads": {},
    "h-alone-dead": {"endpoints": (f"http://127.0.0.1:{_PORT}",)},
    "h-secret": {"credentials": "LAB"},
}
ENVIRONMENT = {"HEADRACE_SERVER_TIMEOUT_S": "3", "HEADRACE_SERVER_CREDENTIALS_LAB": "bearer right"}


@pytest.fixture(scope="module", autouse=True)
def _peers() -> Iterator[None]:
    yield
    for peer in (LIAR, LIAR_GRPC, WRONG, GOOD, GOOD_GRPC, MUTE):
        peer.close()


@pytest.fixture(scope="module")
def beside(arena: Arena) -> dict[str, list[End]]:
    ends: dict[str, list[End]] = {model: [] for model in BESIDE}
    for start in range(0, 120, 40):
        handles = {model: arena.submit(model, *range(start, start + 40)) for model in BESIDE}
        for model, each in handles.items():
            ends[model] += outcomes(each)
    arena.is_well()
    return ends


@pytest.mark.parametrize("model", BESIDE)
def test_a_bad_endpoint_beside_a_good_one_fails_nothing(arena: Arena, beside: dict[str, list[End]], model: str) -> None:
    assert beside[model] == doubled(range(120))
    arena.has_done_all_of(model)


def _no_model_server(model: str) -> None:
    """As a web server or an ingress without a backend answers."""

    def not_found(call: Call) -> None:
        call.respond("<html>404 Not Found</html>", "404 Not Found", content_type="text/html")

    WRONG.models[model] = http_peer.Model(not_found, not_found, not_found)
    WRONG.models[""] = http_peer.Model(not_found, not_found, not_found)


def test_an_address_where_no_model_server_is_fails_nothing_beside_a_good_one(arena: Arena) -> None:
    model = "h-wrong-server"
    _no_model_server(model)
    for start in range(0, 120, 40):
        arena.hears(model, *range(start, start + 40))
    arena.is_well(model)


def test_an_address_where_no_model_server_is_makes_requests_wait(arena: Arena) -> None:
    model = "h-wrong-server-alone"
    _no_model_server(model)
    ends = arena.ends(model, 1.0, 2.0, deadline_s=3.0)
    assert all(isinstance(each, DeadlineExceeded) for each in ends), ends
    arena.is_well(model)
    WRONG.models[model] = http_peer.Model()
    arena.hears(model, 1.0, 2.0)


def test_plain_text_on_a_tls_port_is_a_wait_and_a_line_in_the_log(arena: Arena) -> None:
    handles = {model: arena.submit(model, 1.0, 2.0, deadline_s=3.0) for model in PLAIN_ON_TLS}
    for model, each in handles.items():
        ends = outcomes(each)
        assert all(isinstance(end, DeadlineExceeded) for end in ends), ends
        (endpoint,) = PACKAGES[model]["endpoints"]
        lines = [line for line in arena.log.read_text().splitlines() if "server.misconfigured" in line]
        assert any(f"endpoint={endpoint}:" in line and "TLS" in line for line in lines), lines
    arena.is_well(*PLAIN_ON_TLS)


@pytest.mark.parametrize("model", ["h-liar", "g-liar"])
def test_of_a_liar_and_an_honest_server_no_row_gets_a_wrong_value(arena: Arena, model: str) -> None:
    if model == "h-liar":
        LIAR.models[model].infer = lambda call: call.respond(json.dumps(json_answer(9 * call.x[:-1])))
    else:
        LIAR_GRPC.models[model].infer = lambda request, _: message(9 * x_of(request), name="z")
    ends: list[End] = []
    for start in range(0, 120, 40):
        ends += arena.ends(model, *range(start, start + 40), deadline_s=20.0)
    assert all(isinstance(end, OutputMismatch) or end == 2.0 * x for x, end in enumerate(ends)), ends
    arena.is_well(model)


def _absent_http(call: Call) -> None:
    call.refuse("404 Not Found", "Model m not found")


_absent_grpc = refusing(grpc.StatusCode.NOT_FOUND, "Request for unknown model: 'm' is not found")


def _unload(arena: Arena, model: str) -> None:
    if model.startswith("h-"):
        arena.http.models[model] = http_peer.Model(_absent_http, _absent_http, _absent_http)
    else:
        arena.grpc.models[model] = grpc_peer.Model(_absent_grpc, _absent_grpc, lambda: False)


def _load(arena: Arena, model: str) -> None:
    if model.startswith("h-"):
        arena.http.models[model] = http_peer.Model()
    else:
        arena.grpc.models[model] = grpc_peer.Model()


def _unauthorized(call: Call) -> None:
    assert call.headers.get("authorization") == "Bearer right"
    call.refuse("401 Unauthorized", "who are you?", www_authenticate="Bearer")


class Wanting(NamedTuple):
    """What became of requests with a deadline, and of patient ones. early: how many of these ended before it was well.

    log: the worker's, before that.
    """

    hasty: list[End]
    early: int
    patient: list[End]
    attempts: set[int]
    log: str

    def waited(self) -> bool:
        """Return whether a wait was all that came of it."""
        return (
            all(isinstance(end, DeadlineExceeded) for end in self.hasty)
            and self.early == 0
            and self.patient == doubled(range(20))
            and self.attempts == {1}
        )


@pytest.fixture(scope="module")
def wanting(arena: Arena) -> dict[str, Wanting]:
    """Models that have no answers until a person acts: two that are unloaded while they run, one that is protected."""
    for model in ("h-gone", "g-gone"):
        arena.hears(model, 1.0)
        _unload(arena, model)
    arena.http.models["h-secret"] = http_peer.Model(_unauthorized, _unauthorized, _unauthorized)
    models = ("h-gone", "g-gone", "h-secret")
    patient = {model: arena.submit(model, *range(20)) for model in models}
    hasty = {model: outcomes(arena.submit(model, 1.0, deadline_s=2.0)) for model in models}
    early = {model: sum(handle.done() for handle in each) for model, each in patient.items()}
    log = arena.log.read_text()
    for model in models:
        _load(arena, model)
    return {
        model: Wanting(hasty[model], early[model], outcomes(patient[model]), arena.attempts(patient[model]), log)
        for model in models
    }


@pytest.mark.parametrize("model", ["h-gone", "g-gone"])
def test_a_model_that_is_unloaded_while_it_runs_is_waited_for(
    arena: Arena, wanting: dict[str, Wanting], model: str
) -> None:
    assert wanting[model].waited(), wanting[model]
    arena.is_well(model)


def test_wrong_credentials_are_a_wait_and_a_line_in_the_log_until_they_are_right(
    arena: Arena, wanting: dict[str, Wanting]
) -> None:
    found = wanting["h-secret"]
    assert found.waited(), found
    assert any("server.misconfigured" in line and "h-secret" in line for line in found.log.splitlines())
    assert "Bearer right" not in arena.log.read_text()
    arena.is_well("h-secret")


def _flapping() -> http_peer.Behaviour:
    turn = iter(range(10**9))

    def flap(call: Call) -> None:
        match next(turn) % 4:  # so that no two calls in a row are answered well
            case 0:
                raise Hangup
            case 1:
                call.refuse("503 Service Unavailable")
            case 2:
                http_peer.reset(call)
            case _:
                http_peer.well(call)

    return flap


@pytest.fixture(scope="module")
def unsteady(arena: Arena) -> dict[str, list[Handle]]:
    """Requests of models that are reloaded again and again meanwhile, and of one of whose calls most fail."""
    arena.behave("h-flaps", _flapping())
    handles = {"h-flaps": arena.submit("h-flaps", *range(100)), "h-blinks": [], "g-blinks": []}
    stop = threading.Event()

    def blink() -> None:
        while not stop.wait(0.15):
            for change in (_unload, _load):
                for model in ("h-blinks", "g-blinks"):
                    change(arena, model)
                stop.wait(0.05)

    blinking = threading.Thread(target=blink)
    blinking.start()
    try:
        for start in range(0, 600, 10):
            for model in ("h-blinks", "g-blinks"):
                handles[model] += arena.submit(model, *range(start, start + 10))
            time.sleep(0.03)
    finally:
        stop.set()
        blinking.join()
    return handles


@pytest.mark.parametrize("model", ["h-blinks", "g-blinks"])
def test_a_model_that_is_reloaded_again_and_again_under_load_fails_nothing(
    arena: Arena, unsteady: dict[str, list[Handle]], model: str
) -> None:
    ends = outcomes(unsteady[model])
    wrong = [(x, end) for x, end in enumerate(ends) if end != 2.0 * x]
    assert not wrong, (len(wrong), wrong[:3])
    assert arena.attempts(unsteady[model][::50]) == {1}
    arena.is_well(model)


def test_a_server_that_fails_most_calls_fails_nothing(arena: Arena, unsteady: dict[str, list[Handle]]) -> None:
    assert outcomes(unsteady["h-flaps"]) == doubled(range(100))
    assert arena.attempts(unsteady["h-flaps"]) == {1}
    arena.is_well("h-flaps")


def test_another_signature_after_a_reload_is_refused_by_name_until_it_fits_again(arena: Arena) -> None:
    model = "h-reloads"
    arena.hears(model, 1.0, 2.0)
    time.sleep(2.1)  # the tensors are looked at every two seconds at most

    def takes_two(call: Call) -> None:
        call.refuse("400 Bad Request", "unexpected shape for input 'x'")

    described = lambda call: call.respond(json.dumps(http_peer.metadata(size=2)))  # noqa: E731
    arena.http.models[model] = http_peer.Model(takes_two, described)
    ends = arena.ends(model, 1.0, 2.0, 3.0)
    assert all(isinstance(each, HeadraceError) and "x" in each.message for each in ends), ends
    assert not any(isinstance(each, DeadlineExceeded) for each in ends), ends
    arena.is_well(model)
    arena.http.models[model] = http_peer.Model()
    eventually(lambda: arena.ends(model, 5.0) == [10.0], PATIENCE_S, "a model that fits again")


def test_a_server_that_starts_later_answers_what_waited(arena: Arena) -> None:
    handles = arena.submit("h-alone-dead", *range(20))
    ends = arena.ends("h-alone-dead", 1.0, deadline_s=1.5)
    assert all(isinstance(each, DeadlineExceeded) for each in ends), ends
    late = http_peer.HttpPeer(_PORT)
    try:
        assert outcomes(handles) == doubled(range(20))
        for _ in range(3):
            late.close()
            more = arena.submit("h-alone-dead", *range(30))
            time.sleep(0.3)
            late = http_peer.HttpPeer(_PORT)
            assert outcomes(more) == doubled(range(30))
    finally:
        late.close()
    arena.is_well("h-alone-dead")
