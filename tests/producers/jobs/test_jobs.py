"""Bulk jobs of a client, against the real ledger and broker; the worker is played."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import redis
from tests.producers.jobs.player import CHECKSUM, MODEL, ROWS, Player, announce, served

from headrace.contracts import Settings
from headrace.contracts.errors import ConfigurationError, HeadraceError, SignatureMismatch, UnknownModel
from headrace.contracts.jobs import DryRun, JobProblem, JobState
from headrace.contracts.tickets import decode_ticket
from headrace.producers import AsyncClient, Client, JobCancelled, JobFailed, JobMoved, JobTimeout
from headrace.producers.jobs.attaching import Step
from headrace.queueing import ClaimingConsumer


def waiting_tickets(url: str) -> list[str]:
    with redis.Redis.from_url(url) as client:
        messages = [json.loads(raw) for raw in client.lrange(f"score.{MODEL}", 0, -1)]
    return [decode_ticket(base64.b64decode(each["body"])).job for each in messages]


def test_a_job_waits_in_the_ledger_and_a_ticket_wakes_a_worker(scorer: Client, broker_url: str) -> None:
    job = scorer.score(MODEL, "a.parquet", keep=["id"], priority=3)
    assert job.step is None
    assert job.status() == JobState.PLANNING
    assert job.version == "2"
    assert job.spec.inputs == (str(Path.cwd() / "a.parquet"),)
    assert job.output == str(Path.cwd() / "a-digits.scores")
    assert job.options.priority == 3
    assert waiting_tickets(broker_url) == [job.id]


def test_a_job_is_watched_to_its_end(scorer: Client, player: Player) -> None:
    job = scorer.score(MODEL, "a.parquet", "out")
    assert job.progress().share is None
    player.plan(2)
    shares = []
    for progress in job.watch(every_s=0):
        shares.append(progress.share or 0.0)
        if not player.run(3) and progress.job.state is JobState.FINALIZING:
            player.finish()
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert all(share < 1 for share in shares[:-1])
    done = job.wait()
    assert (done.rows_ok, done.rows_bad) == (2 * ROWS - 2, 2)
    assert [row.row for row in job.errors()] == [3, ROWS + 3]
    assert len(job.errors(limit=1)) == 1
    assert job.files([0, 7]) == {0: "/in/a.parquet"}


def test_the_same_call_again_is_the_same_job(
    scorer: Client, player: Player, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "_SUCCESS").touch()
    first = scorer.score(MODEL, "a.parquet", "out", priority=3)
    again = scorer.score(MODEL, ["./a.parquet"], "out/", weight=2.0)
    assert (again.id, again.step) == (first.id, Step.ATTACH)
    assert (again.options.priority, again.options.weight) == (3, 2.0)
    player.plan(1)
    player.run()
    player.finish()
    assert scorer.score(MODEL, "a.parquet", "out").step is Step.REPORT
    assert scorer.score(MODEL, "a.parquet", "other").id != first.id


def test_two_people_who_start_the_same_job_at_once_share_it(job_settings: Settings, scorer: Client) -> None:
    found: list[str] = []
    with Client(job_settings) as other:
        threads = [
            threading.Thread(target=lambda who=who: found.append(who.score(MODEL, "a.csv", "out").id))
            for who in (scorer, other, scorer, other)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(found) == 4
    assert len(set(found)) == 1


def test_a_job_is_paused_cancelled_and_taken_up_again(scorer: Client, player: Player, broker_url: str) -> None:
    job = scorer.score(MODEL, "a.parquet", "out")
    player.plan(2)
    job.pause()
    assert not player.run()
    job.resume()
    assert player.run()
    job.cancel()
    with pytest.raises(JobCancelled, match=f"after {ROWS} rows"):
        job.wait(timeout_s=5)
    again = scorer.score(MODEL, "a.parquet", "out")
    assert (again.id, again.step, again.status()) == (job.id, Step.RESUME, JobState.RUNNING)
    player.run()
    player.finish()
    again.wait()
    assert set(waiting_tickets(broker_url)) == {job.id}


def test_bad_rows_run_once_more(scorer: Client, player: Player) -> None:
    job = scorer.score(MODEL, "a.parquet", "out")
    player.plan(1)
    player.run(1, 2)
    player.finish()
    assert job.retry() == 2
    assert job.status() == JobState.RUNNING


def test_what_a_probe_finds_is_said_with_the_option_that_decides(scorer: Client, player: Player) -> None:
    job = scorer.score(MODEL, "a.parquet", "out")
    player.refuse(JobProblem("InputChanged", "a.parquet is another file than when the job was planned"))
    with pytest.raises(JobFailed, match=r"another file .*; --restart scores everything anew"):
        job.wait()
    assert scorer.score(MODEL, "a.parquet", "out").step is Step.RESUME


def test_a_job_that_takes_longer_goes_on(scorer: Client) -> None:
    job = scorer.score(MODEL, "a.parquet", "out")
    with pytest.raises(JobTimeout, match="is planning after 0 s; it goes on"):
        job.wait(timeout_s=0)


def test_another_version_is_said_and_an_option_decides(
    scorer: Client, player: Player, serving_worker: ClaimingConsumer
) -> None:
    job = scorer.score(MODEL, "a.parquet", "out")
    announce(serving_worker, "3", "cd" * 32)
    with pytest.raises(JobMoved, match="version 2 of digits, and 3 is served now"):
        scorer.score(MODEL, "a.parquet", "out")
    kept = scorer.score(MODEL, "a.parquet", "out", keep_version=True)
    assert (kept.id, kept.version) == (job.id, "2")
    anew = scorer.score(MODEL, "a.parquet", "out", restart=True)
    assert (anew.step, anew.version) == (Step.RESTART, "3")
    assert anew.id != job.id
    assert player.ledger.jobs.get(anew.uuid).replaces == (job.uuid,)
    assert job.status() == JobState.CANCELLED
    assert scorer.score(MODEL, "a.parquet", "out").id == anew.id


def test_another_package_of_the_same_version_is_said(scorer: Client, serving_worker: ClaimingConsumer) -> None:
    scorer.score(MODEL, "a.parquet", "out")
    announce(serving_worker, "2", "cd" * 32)
    with pytest.raises(JobMoved, match=f"another package of digits 2 .*{CHECKSUM[:12]}"):
        scorer.score(MODEL, "a.parquet", "out")


def test_new_files_are_looked_for_when_that_is_asked_for(scorer: Client, player: Player) -> None:
    job = scorer.score(MODEL, "folder", "out")
    player.plan(1)
    player.run()
    player.finish()
    again = scorer.score(MODEL, "folder", "out", add_new=True)
    assert (again.id, again.step, again.status()) == (job.id, Step.ADD_NEW, JobState.PLANNING)


def test_a_dry_run_is_no_other_job(scorer: Client, player: Player) -> None:
    job = scorer.score(MODEL, "a.parquet", "out")
    dry = scorer.score(MODEL, "a.parquet", "out", dry_run=True)
    assert len({job.id, dry.id, scorer.score(MODEL, "a.parquet", "out", dry_run=True).id}) == 3
    assert dry.options.dry_run
    assert dry.sample() is None
    found = DryRun(
        rows=5,
        bad=0,
        seconds=0.1,
        total_rows=100,
        total_bytes=1000,
        workers=1,
        seconds_low=1.0,
        seconds_high=2.0,
        output_bytes=500,
        memory_bytes=1 << 20,
        columns={"label": "int64"},
        preview=[{"label": 7, "text": "a\0b"}],
    )
    assert player.ledger.dry_runs.keep(dry.uuid, found)
    assert not player.ledger.dry_runs.keep(job.uuid, found)
    dry.wait(timeout_s=5)
    sample = dry.sample()
    assert sample is not None
    assert sample.preview == [{"label": 7, "text": "a\ufffdb"}]


def test_a_job_is_found_by_name_and_by_a_part_of_its_id(scorer: Client) -> None:
    job = scorer.score(MODEL, "a.parquet", "out", name="reviews")
    other = scorer.score(MODEL, "b.parquet", "out-b")
    assert scorer.job("reviews").id == job.id
    assert scorer.job(other.name).id == other.id
    assert scorer.job(other.id).id == other.id
    assert [each.id for each in scorer.jobs()] == [other.id, job.id]


def test_a_model_that_nobody_serves_makes_no_job(scorer: Client) -> None:
    with pytest.raises(UnknownModel, match="no worker serves model 'digts'"):
        scorer.score("digts", "a.parquet")
    with pytest.raises(SignatureMismatch, match="did you mean 'image'"):
        scorer.score(MODEL, "a.parquet", mapping={"pixels": "imge"})
    assert scorer.jobs() == []


def test_without_a_database_there_are_no_jobs(settings: Settings, serving_worker: ClaimingConsumer) -> None:
    with Client(settings) as client, pytest.raises(ConfigurationError, match="HEADRACE_DATABASE_URL"):
        client.score(MODEL, "a.parquet")


def test_the_asyncio_client_does_the_same(job_settings: Settings, scorer: Client, player: Player) -> None:
    async def scored() -> None:
        client = AsyncClient(job_settings)
        job = await client.score(MODEL, "a.parquet", "out", name="async")
        assert await job.status() == JobState.PLANNING
        player.plan(2)
        async for progress in job.watch(every_s=0):
            if not player.run(1) and progress.job.state is JobState.FINALIZING:
                player.finish()
        assert (await job.wait()).rows_bad == 2
        assert [row.row for row in await job.errors()] == [1, ROWS + 1]
        assert await job.retry() == 2
        await job.pause()
        await job.resume()
        await job.cancel()
        with pytest.raises(JobCancelled):
            await job.wait()
        assert (await client.job("async")).id == job.id
        assert [each.id for each in await client.jobs()] == [job.id]
        assert await job.sample() is None
        await client.close()

    asyncio.run(scored())


def test_without_the_extra_the_error_names_it() -> None:
    code = """
import sys
sys.modules["psycopg"] = None
from headrace.producers.jobs.desk import JobDesk
from headrace.contracts import Settings
try:
    JobDesk(Settings(database_url="postgresql://h/d")).newest(1)
except Exception as exc:
    print(type(exc).__name__, exc)
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "ConfigurationError" in done.stdout
    assert "headrace[store]" in done.stdout


def test_the_same_call_waits_for_shards_that_a_cancellation_stops(scorer: Client, player: Player) -> None:
    job = scorer.score(MODEL, "a.parquet", "out")
    player.plan(2)
    claim = player.claim()
    job.cancel()
    assert job.status() == JobState.CANCELLING
    stopping = threading.Timer(0.3, player.give_back, [claim])
    stopping.start()
    again = scorer.score(MODEL, "a.parquet", "out")
    stopping.join()
    assert (again.step, again.status()) == (Step.RESUME, JobState.RUNNING)
    assert player.run()
    assert player.run()


def test_the_version_of_workers_that_take_bulk_jobs_counts(
    job_settings: Settings, serving: Callable[[str], ClaimingConsumer]
) -> None:
    online = serving(f"infer.{MODEL}")
    online.queues.serve({f"infer.{MODEL}": served("2"), f"score.{MODEL}": served("2")})
    with Client(job_settings) as client:
        job = client.score(MODEL, "a.parquet", "out")
        assert (job.version, job.is_served()) == ("2", False)
        bulk = serving(f"score.{MODEL}")
        bulk.queues.serve({f"infer.{MODEL}": served("3"), f"score.{MODEL}": served("3")})
        job = client.score(MODEL, "b.parquet", "out-b")
        assert (job.version, job.is_served()) == ("3", True)


def test_a_store_without_the_tables_of_jobs_names_the_command_that_makes_them(
    broker_url: str, database_url: str, serving_worker: ClaimingConsumer, tmp_path: Path
) -> None:
    settings = Settings(broker_url=broker_url, database_url=database_url, models=tmp_path)
    with Client(settings) as client, pytest.raises(HeadraceError, match="headrace store migrate"):
        client.score(MODEL, "a.parquet", "out")
