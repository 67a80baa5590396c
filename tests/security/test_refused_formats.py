"""Nothing that executes code when it is read is ever read: not by workers, not by clients, not on the way."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import pytest
from celery import Celery
from kombu import Connection
from kombu.exceptions import ContentDisallowed
from pydantic import SecretStr

from headrace.contracts import InvalidRequest, Settings
from headrace.contracts.message import decode_inputs, decode_replies
from headrace.contracts.tensors.codec import CONTENT_TYPE
from headrace.workers.app import make_app

ROOT = Path(__file__).parents[2]

#: Modules and calls that run what they read.
EXECUTES = re.compile(
    r"^\s*(?:import|from)\s+(?:pickle|cPickle|dill|cloudpickle|joblib|marshal|shelve)\b(?! import UnpicklingError$)"
    r"|(?<!\.)\b(?:eval|exec)\(|\byaml\.(?:unsafe_)?load\(|allow_pickle\s*=\s*True|torch\.load\((?!.*weights_only=True)"
    r"|shell\s*=\s*True|os\.system\(",
    re.MULTILINE,
)


class Bomb:
    """Unpickling it would fail the test."""

    def __reduce__(self) -> tuple[object, ...]:
        return pytest.fail, ("a pickle was read",)


UNSAFE = [
    "application/x-python-serialize",
    "application/x-yaml",
    "application/x-msgpack",
    "application/data",
    "text/plain",
]


@pytest.mark.parametrize("content_type", [*UNSAFE, None, "", "application/JSON", "application/json; pickle"])
def test_only_tensors_and_json_are_read_from_a_request(content_type: str | None) -> None:
    with pytest.raises(InvalidRequest, match="is refused"):
        decode_inputs(pickle.dumps(Bomb()), content_type)


def test_a_pickle_is_no_reply_and_no_body_whatever_it_is_called() -> None:
    body = pickle.dumps(Bomb())
    for read in (
        decode_replies,
        lambda raw: decode_inputs(raw, CONTENT_TYPE),
        lambda raw: decode_inputs(raw, "application/json"),
    ):
        with pytest.raises(InvalidRequest):
            read(body)


def test_a_worker_accepts_json_and_tensors_and_sends_json(tmp_path: Path) -> None:
    settings = Settings(
        broker_url=SecretStr("redis://127.0.0.1:1/0"),
        database_url=SecretStr("postgresql://127.0.0.1:1/x"),
        models=tmp_path,
    )
    conf = make_app(settings).conf
    assert sorted(conf.accept_content) == sorted(["json", CONTENT_TYPE])
    assert (conf.task_serializer, conf.result_serializer, conf.event_serializer) == ("json", "json", "json")
    # None: remote control and results are read with what accept_content says.
    assert (conf.result_accept_content, conf.control_queue_expires > 0) == (None, True)


@pytest.mark.parametrize("content_type", ["application/x-python-serialize", "application/x-yaml"])
def test_the_transport_reads_no_unsafe_message_even_for_plain_kombu_consumers(
    broker_url: str, content_type: str
) -> None:
    """A consumer that names no content types gets kombu's safe ones, through our transport as through any."""
    with Connection(broker_url.replace("redis://", "headrace://")) as connection:
        queue = connection.SimpleQueue("unsafe")
        queue.producer.publish(pickle.dumps(Bomb()), content_type=content_type, content_encoding="binary")
        with pytest.raises(ContentDisallowed):
            queue.get(timeout=10)
        queue.close()


def test_remote_control_reads_no_pickle(broker_url: str) -> None:
    with Celery(broker=broker_url.replace("redis://", "headrace://"), set_as_current=False) as app:
        assert "pickle" not in app.control.mailbox.accept  # type: ignore[attr-defined]


def test_no_code_of_ours_runs_what_it_reads() -> None:
    rooms = list(ROOT.glob("*/headrace"))
    found = [
        f"{path.relative_to(ROOT)}: {match.group().strip()}"
        for room in rooms
        for path in room.rglob("*.py")
        for match in EXECUTES.finditer(path.read_text("utf-8"))
    ]
    assert found == []
