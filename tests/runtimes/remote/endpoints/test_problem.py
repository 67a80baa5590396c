"""Why endpoints give no answers: known from the first call that fails to the first answer, and no longer."""

from __future__ import annotations

import time
from collections.abc import Iterator

import msgspec
import pytest
from tests.eventually import eventually
from tests.runtimes.remote.endpoints.scripted import SIGNATURE, Scripted, remote_model, rows, works

from headrace.contracts import PackageError, TensorSpec
from headrace.runtimes.base import Unavailable, problem_of
from headrace.runtimes.remote.base import Misconfigured, Refused, ServerAway, ServerBusy
from headrace.runtimes.remote.endpoints import endpoint, keeper
from headrace.runtimes.remote.endpoints.remote_model import RemoteModel

FORBIDDEN = Misconfigured("m at server-0: the token is wrong; set HEADRACE_SERVER_CREDENTIALS_<NAME>")


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Endpoints where a person must act are asked again after a moment."""
    monkeypatch.setattr(endpoint, "MISCONFIGURED_S", 0.05)
    monkeypatch.setattr(keeper, "MISCONFIGURED_S", 0.05)


@pytest.fixture
def server() -> Scripted:
    return Scripted()


@pytest.fixture
def model(server: Scripted) -> Iterator[RemoteModel]:
    model = remote_model(server)
    yield model
    model.close()


def text(model: RemoteModel) -> str:
    problem = problem_of(model)
    return problem.text if problem else ""


def test_a_model_that_answers_has_none(model: RemoteModel) -> None:
    assert problem_of(model) is None
    assert works(model)
    assert problem_of(model) is None
    assert problem_of(object()) is None  # type: ignore[arg-type]  # a model of another runtime


def test_a_misconfiguration_is_told_with_its_time_until_a_batch_is_answered(
    server: Scripted, model: RemoteModel
) -> None:
    # It shows with batches only; the server is ready all the time.
    before = time.time()
    server.error = FORBIDDEN
    assert not works(model)
    problem = problem_of(model)
    assert problem is not None
    assert problem.text == FORBIDDEN.message
    assert before <= problem.since <= time.time()
    calls = server.calls

    def fails_again() -> bool:
        assert not works(model)
        assert problem_of(model) == problem
        return server.calls > calls

    eventually(fails_again, 10, "another batch that is refused")
    server.error = None
    eventually(lambda: works(model), 10, "an answer")
    assert problem_of(model) is None


def test_an_endpoint_that_is_away_is_told_until_it_says_that_it_is_back(server: Scripted, model: RemoteModel) -> None:
    server.error = ServerAway("connection refused")
    assert not works(model)
    assert text(model) == "connection refused"
    server.error = None
    eventually(lambda: problem_of(model) is None, 10, "an endpoint that is back")


@pytest.mark.parametrize("error", [ServerBusy("all batch threads are busy"), Refused("the value 13 is out of range")])
def test_a_server_that_is_busy_or_refuses_values_has_no_problem(
    server: Scripted, model: RemoteModel, error: Exception
) -> None:
    server.error = error
    with pytest.raises(type(error)):
        model.infer(rows())
    assert problem_of(model) is None


def test_another_signature_is_told_until_the_model_fits_again(server: Scripted, model: RemoteModel) -> None:
    assert works(model)
    server.tensors = msgspec.structs.replace(SIGNATURE, inputs=(TensorSpec(name="x", datatype="FP64", shape=(1,)),))
    server.error = Refused("unexpected datatype")
    eventually(lambda: "input x FP64 [rows, 1], but model.toml says x FP32" in refusal(model), 10, "a look")
    assert "input x FP64 [rows, 1], but model.toml says x FP32 [rows, 1]; add it anew" in text(model)
    server.tensors, server.error = SIGNATURE, None
    eventually(lambda: problem_of(model) is None, 10, "a model that fits")
    eventually(lambda: works(model), 10, "an answer")


def refusal(model: RemoteModel) -> str:
    try:
        model.infer(rows())
    except (Refused, Unavailable, PackageError) as exc:
        return str(exc)
    return ""


def test_of_several_endpoints_the_problem_of_one_is_told_as_such() -> None:
    broken, fine = Scripted(), Scripted()
    broken.error = FORBIDDEN
    model = remote_model(broken, fine)
    try:
        eventually(lambda: works(model) and broken.calls > 0, 10, "a batch that went to the broken one first")
        assert text(model) == f"1 of 2 endpoints: {FORBIDDEN.message}"
    finally:
        model.close()
