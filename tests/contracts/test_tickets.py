"""Tickets of bulk jobs: what a worker and Flower read is what was sent."""

from __future__ import annotations

import base64
import json
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.contracts.errors import InvalidRequest
from headrace.contracts.jobs import JobProblem, ScoreSpec, Ticket, shard_id
from headrace.contracts.tickets import decode_ticket, encode_ticket

JOB = str(uuid.UUID(int=7))


@given(shard=st.integers(-1, 2**62), note=st.text(max_size=50))
def test_a_ticket_is_a_celery_call_that_comes_back_as_it_was(shard: int, note: str) -> None:
    message = json.loads(encode_ticket("digits", Ticket(JOB, shard), note.encode("utf-8", "replace").decode()))
    assert message["headers"]["task"] == message["properties"]["delivery_info"]["routing_key"] == "score.digits"
    assert message["headers"]["id"] == str(shard_id(JOB, shard))
    assert decode_ticket(base64.b64decode(message["body"])) == Ticket(JOB, shard)


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"[[],{}]", b'[[],{"job":1,"shard":2}]', b"[" * 5000])
def test_another_body_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest, match="no ticket"):
        decode_ticket(body)


def test_the_id_of_a_shard_is_the_same_whenever_it_is_sent() -> None:
    assert shard_id(JOB, 3) == shard_id(JOB, 3)
    assert len({shard_id(JOB, n) for n in range(-1, 100)} | {shard_id(str(uuid.UUID(int=8)), 3)}) == 102


@given(type_name=st.from_regex(r"([A-Z][A-Za-z]+)?", fullmatch=True), message=st.text(max_size=60))
def test_a_problem_comes_back_with_its_type(type_name: str, message: str) -> None:
    problem = JobProblem(type_name, message)
    again = JobProblem.parse(problem.text)
    assert again == problem or not type_name
    assert again.text == problem.text


@pytest.mark.parametrize(
    ("inputs", "title"),
    [
        (("/data/reviews.parquet",), "reviews.parquet → embed"),
        (("s3://bucket/2024/", "/b.csv"), "2024 and 1 more → embed"),
        (("sql:SELECT a / b FROM t",), "query → embed"),
    ],
)
def test_a_job_has_a_title_that_people_recognise(inputs: tuple[str, ...], title: str) -> None:
    assert ScoreSpec(model="embed", inputs=inputs, output="/out").title == title
