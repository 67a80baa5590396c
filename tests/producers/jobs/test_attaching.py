"""The same command again: which step is taken, and what is said when something has moved."""

from __future__ import annotations

import datetime as dt
import uuid

import pytest

from headrace.contracts.jobs import JobOptions, JobState, ScoreSpec
from headrace.contracts.package.signature import Signature
from headrace.producers.jobs.attaching import Step, next_step, short, why_failed
from headrace.producers.jobs.errors import JobMoved
from headrace.producers.jobs.order import Wishes
from headrace.producers.jobs.pinning import Pin
from headrace.results_store.jobs.records import JobRow


def job(state: JobState, *, version: str = "2", checksum: str = "c" * 64, name: str = "") -> JobRow:
    return JobRow(
        id=uuid.UUID(int=0x1234ABCD),
        name=name,
        spec=ScoreSpec(model="digits", inputs=("/a",), output="/b"),
        options=JobOptions(),
        version=version,
        package_sha256=checksum,
        state=state,
        plan_done=False,
        created_at=dt.datetime.now(dt.UTC),
        finished_at=None,
    )


def pin(version: str = "2", checksum: str = "c" * 64) -> Pin:
    return Pin(version, checksum, Signature(inputs=(), outputs=()))


@pytest.mark.parametrize(
    ("state", "step"),
    [
        (JobState.PLANNING, Step.ATTACH),
        (JobState.RUNNING, Step.ATTACH),
        (JobState.FINALIZING, Step.ATTACH),
        (JobState.SUCCEEDED, Step.REPORT),
        (JobState.PAUSED, Step.RESUME),
        (JobState.FAILED, Step.RESUME),
        (JobState.CANCELLING, Step.RESUME),
        (JobState.CANCELLED, Step.RESUME),
    ],
)
def test_the_state_of_the_job_decides(state: JobState, step: Step) -> None:
    assert next_step(job(state), pin(), Wishes()) is step


@pytest.mark.parametrize("state", JobState)
def test_an_option_decides_in_every_state(state: JobState) -> None:
    assert next_step(job(state), pin(), Wishes(restart=True)) is Step.RESTART
    assert next_step(job(state), pin("3"), Wishes(restart=True)) is Step.RESTART
    assert next_step(job(state), pin(), Wishes(add_new=True)) is Step.ADD_NEW


@pytest.mark.parametrize("state", JobState)
def test_another_version_or_package_is_named_with_the_options_that_decide(state: JobState) -> None:
    with pytest.raises(JobMoved, match=r"version 2 of digits, and 3 is served now: --keep-version .* --restart"):
        next_step(job(state), pin("3"), Wishes())
    with pytest.raises(JobMoved, match="another package of digits 2"):
        next_step(job(state), pin(checksum="d" * 64), Wishes(add_new=True))
    assert next_step(job(state), pin("3"), Wishes(keep_version=True)) is next_step(job(state), pin(), Wishes())


def test_a_checksum_that_nobody_knows_is_no_change() -> None:
    assert next_step(job(JobState.FAILED, checksum=""), pin(), Wishes()) is Step.RESUME
    assert next_step(job(JobState.FAILED), pin(checksum=""), Wishes()) is Step.RESUME


def test_a_problem_comes_with_the_option_that_decides() -> None:
    assert why_failed("InputChanged: a.csv is another file").endswith("--restart scores everything anew")
    assert why_failed("InputChanged: a.csv is another file; --restart").endswith("file; --restart")
    assert why_failed("InputMissing: no a.csv") == "no a.csv"
    assert why_failed("any text") == "any text"


def test_a_job_is_called_by_its_name_or_the_end_of_its_id() -> None:
    assert short(job(JobState.RUNNING)) == "1234abcd"
    assert short(job(JobState.RUNNING, name="reviews")) == "reviews"
