"""Jobs whose workers are killed, told to stop, paused or cancelled: nothing is lost or doubled."""

from __future__ import annotations

import resource
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from celery import Celery
from tests.eventually import eventually
from tests.workers.bulk.gated_runtime import DEADLY
from tests.workers.bulk.sites import (
    END_S,
    SHARD_ROWS,
    Site,
    check_doubled,
    errors_of,
    is_finished,
    output_of,
)

from headrace.contracts.jobs import shard_id
from headrace.producers import Client
from headrace.producers.jobs.errors import JobCancelled, JobFailed
from headrace.producers.jobs.job import Job


@pytest.fixture
def client(site: Site) -> Iterator[Client]:
    with site.client() as client:
        yield client


def submitted(site: Site, client: Client, rows: int, **options: Any) -> Job:
    """Submit a job; a worker knows the model before the first one."""
    return client.score("gated", site.rows(rows), site.new(), keep=["id"], **options)


def until_run(site: Site, rows: int) -> None:
    eventually(lambda: sum(map(len, site.runs())) >= rows, 30, f"{rows} rows that ran")


def shards(site: Site, job: Job, columns: str = "state, deaths") -> list[tuple[Any, ...]]:
    with psycopg.connect(site.settings.require_database_url()) as connection:
        query = f"SELECT {columns} FROM headrace_job_shards WHERE job_id = %s ORDER BY shard_no"
        return connection.execute(query, [job.uuid]).fetchall()


@pytest.fixture
def served(site: Site) -> None:
    """Some worker has been there, so that clients know the models."""
    with site.worker():
        pass


def test_after_kill_9_only_the_shard_that_ran_runs_again(site: Site, client: Client) -> None:
    job = submitted(site, client, 1_000)
    site.hold(1_500)
    with site.worker() as worker:
        until_run(site, 3 * SHARD_ROWS)  # a shard that is held is claimed when three before it have ended
        worker.kill()
        worker.wait()
    done = sum(row[1] for row in shards(site, job, "shard_no, CASE WHEN state = 2 THEN rows ELSE 0 END"))
    site.let_go()
    ran = sum(map(len, site.runs()))
    again = client.score("gated", job.spec.inputs[0], job.output, keep=["id"])
    assert again.id == job.id
    with site.worker():
        job.wait(END_S)
    check_doubled(job, range(1000, 2000))
    assert sum(map(len, site.runs())) - ran == 1_000 - done


@pytest.mark.parametrize("kills", [3])
def test_unrelated_kills_of_the_same_shard_bury_no_row(site: Site, client: Client, kills: int) -> None:
    """Each time another row runs when the worker is killed; none of them is to blame."""
    job = submitted(site, client, 128)
    for at in range(kills):
        site.hold(1_040)
        with site.worker() as worker:
            eventually(partial(_is_held, site, at), 30, "the held batch")
            time.sleep(0.5)
            worker.kill()
            worker.wait()
    site.let_go()
    with site.worker():
        job.wait(END_S)
    check_doubled(job, range(1000, 1128))


def _has_run(site: Site, before: int, value: float) -> bool:
    """Whether a row has run since there were so many runs."""
    return any(value in values for values in site.runs()[before:])


def _is_held(site: Site, deaths: int) -> bool:
    """Whether the batch that is held runs, after so many deaths: its mark tells."""
    if not deaths:
        return sum(map(len, site.runs())) >= 40
    query = "SELECT deaths, suspect_from, suspect_to FROM headrace_job_shards WHERE state = 1"
    with psycopg.connect(site.settings.require_database_url()) as connection:
        rows = connection.execute(query).fetchall()
    return rows == [(deaths, *{1: (40, 48), 2: (40, 41)}[deaths])]


def test_a_row_that_kills_its_worker_is_found_alone_and_its_neighbours_succeed(site: Site, client: Client) -> None:
    values = [float(at) for at in range(1, 201)]
    values[77] = DEADLY
    job = client.score("gated", site.values(values), site.new(), keep=["id"])
    deaths = 0
    while deaths < 8:
        with site.worker() as worker:
            ended = eventually(lambda: worker.poll() is not None or job.status() == "succeeded", 40, "an end")
            assert ended
            if worker.poll() is None:
                break
            deaths += 1
    check_doubled(job, values, bad=(77,))
    (error,) = errors_of(job)
    assert (error["type"], error["stage"]) == ("PoisonRow", "infer")
    assert deaths <= 5


def test_sigterm_in_the_middle_of_a_shard_publishes_what_is_done_and_the_rest_goes_on_elsewhere(
    site: Site, client: Client
) -> None:
    job = submitted(site, client, 128)
    site.hold(1_064)
    with site.worker() as worker:
        until_run(site, 64)
        worker.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        site.let_go()
        assert worker.wait(60) == 0
    published = {1000.0 + at for at in output_of(job)["id"].to_pylist()}
    assert published
    with site.worker():
        job.wait(END_S)
    check_doubled(job, range(1000, 1128))
    ran = Counter(value for run in site.runs() for value in run)
    assert {ran[value] for value in published} == {1}


def test_a_paused_job_publishes_what_is_done_and_goes_on_where_it_was(site: Site, client: Client) -> None:
    site.hold(1_064)
    with site.worker():
        job = submitted(site, client, 128)
        until_run(site, 40)
        job.pause()
        site.let_go()
        eventually(lambda: all(state != 1 for (state,) in shards(site, job, "state")), 30, "the pause")
        assert job.status() == "paused"
        ran = sum(map(len, site.runs()))
        time.sleep(1)
        assert sum(map(len, site.runs())) == ran
        job.resume()
        job.wait(END_S)
    check_doubled(job, range(1000, 1128))
    assert Counter(value for run in site.runs() for value in run).most_common(1)[0][1] == 1


def test_a_bound_of_rows_a_second_holds_from_the_first_row_on_until_it_is_lifted(site: Site, client: Client) -> None:
    with site.worker():
        job = submitted(site, client, 40, max_rows_per_s=0.001)
        eventually(lambda: any(seen > 2 for (seen,) in shards(site, job, "wall_s")), 30, "a shard that waits")
        assert site.runs() == []
        job.pause()
        eventually(lambda: all(state != 1 for (state,) in shards(site, job, "state")), 30, "the pause")
        assert site.runs() == []
        job = client.score("gated", job.spec.inputs[0], job.output, keep=["id"], max_rows_per_s=0.0)
        job.wait(END_S)
    check_doubled(job, range(1000, 1040))


def test_no_run_of_a_bounded_job_has_more_rows_than_half_a_second_of_the_bound(site: Site, client: Client) -> None:
    with site.worker():
        job = submitted(site, client, 8, max_rows_per_s=7.0)
        job.wait(END_S)
    check_doubled(job, range(1000, 1008))
    assert [len(run) for run in site.runs()] == [3, 3, 2]


def test_a_cancelled_job_ends_keeps_its_parts_and_can_go_on(site: Site, client: Client) -> None:
    site.hold(1_064)
    with site.worker():
        job = submitted(site, client, 128)
        until_run(site, 40)
        job.cancel()
        site.let_go()
        with pytest.raises(JobCancelled):
            job.wait(END_S)
        assert not is_finished(job)
        again = client.score("gated", job.spec.inputs[0], job.output, keep=["id"])
        assert again.id == job.id
        again.wait(END_S)
    check_doubled(job, range(1000, 1128))


def test_an_input_that_changed_after_planning_is_named_and_nothing_is_finished(site: Site, client: Client) -> None:
    site.hold()
    with site.worker():
        job = submitted(site, client, 300)
        eventually(lambda: shards(site, job, "state"), 30, "a plan")
        path = job.spec.inputs[0]
        site.rows(300, 5).replace(path)
        site.let_go()
        # What has been read before is right; a shard that is opened later finds another file.
        try:
            job.wait(END_S)
        except JobFailed as exc:
            assert path in str(exc)  # noqa: PT017
            assert "--restart" in str(exc)  # noqa: PT017
            assert not is_finished(job)
        else:
            check_doubled(job, range(1000, 1300))


def test_an_input_that_changed_while_no_worker_was_there_is_named(site: Site, client: Client) -> None:
    job = submitted(site, client, 300)
    site.hold()
    with site.worker() as worker:
        eventually(lambda: shards(site, job, "state"), 30, "a plan")
        worker.kill()
        worker.wait()
    path = job.spec.inputs[0]
    site.rows(300, 5).replace(path)
    site.let_go()
    with site.worker(), pytest.raises(JobFailed, match="changed") as failed:
        job.wait(END_S)
    assert path in str(failed.value)
    assert not is_finished(job)


def test_a_revoked_shard_is_cancelled_alone_and_the_same_call_runs_it(site: Site, client: Client) -> None:
    app = Celery(broker=site.settings.require_broker_url(), set_as_current=False)
    site.hold(1_000)
    with site.worker():
        job = submitted(site, client, 1_000)
        eventually(lambda: any(state == 1 for (state,) in shards(site, job, "state")), 30, "a shard that runs")
        running = next(at for at, (state,) in enumerate(shards(site, job, "state")) if state == 1)
        identity = str(shard_id(job.id, running, 1))

        def is_revoked() -> bool:
            app.control.revoke(identity)  # again, as a worker that has just started may not listen yet
            return f"revoked: {identity}" in site.log()

        eventually(is_revoked, 30, "the revocation")
        site.let_go()
        with pytest.raises(JobFailed, match=r"revoked|cancelled|dropped"):
            job.wait(END_S)
        assert not is_finished(job)
        found = shards(site, job, "state")
        assert [at for at, (state,) in enumerate(found) if state == 3] == [running]
        again = client.score("gated", job.spec.inputs[0], job.output, keep=["id"])
        again.wait(END_S)
    app.close()
    check_doubled(job, range(1000, 2000))


def test_shards_are_seen_as_celery_tasks_with_a_readable_line(site: Site, client: Client) -> None:
    app = Celery(broker=site.settings.require_broker_url(), set_as_current=False)
    seen: list[dict[str, Any]] = []
    with site.worker(), app.connection_for_read() as connection:
        eventually(lambda: app.control.broadcast("enable_events", reply=True, timeout=1), 30, "a worker that listens")
        receiver = app.events.Receiver(connection, handlers={"*": seen.append})
        thread = threading.Thread(target=receiver.capture, kwargs={"timeout": 60, "wakeup": True}, daemon=True)
        thread.start()
        eventually(lambda: seen, 30, "an event of the worker")
        job = submitted(site, client, 50)
        job.wait(END_S)
        eventually(lambda: [event for event in seen if event["type"] == "task-succeeded"], 30, "the shard's success")
        receiver.should_stop = True
        thread.join(30)
    app.close()
    mine = [event for event in seen if event.get("uuid") == str(shard_id(job.id, 0, 1))]
    assert [event["type"] for event in mine] == ["task-received", "task-started", "task-succeeded"]
    assert "gated 1, shard 0" in mine[0]["args"]
    assert ".parquet" in mine[0]["args"]
    assert mine[2]["result"] == "50 rows"


def test_a_worker_without_the_version_of_a_job_leaves_it_to_those_that_have_it(
    site: Site, client: Client, tmp_path: Path
) -> None:
    """A rolling deployment: one worker has another version of the model only."""
    other = tmp_path / "models"
    (other / "gated" / "2").mkdir(parents=True)
    package = site.settings.models / "gated" / "1"
    (other / "gated" / "2" / "model.bin").write_bytes((package / "model.bin").read_bytes())
    manifest = (package / "model.toml").read_text().replace('version = "1"', 'version = "2"')
    (other / "gated" / "2" / "model.toml").write_text(manifest)
    site.hold()
    job = submitted(site, client, 200, version="1")
    with site.worker("new@%h", HEADRACE_MODELS=str(other)):
        time.sleep(2)
        assert job.status() in {"planning", "running"}
        site.let_go()
        with site.worker("old@%h"):
            job.wait(END_S)
    check_doubled(job, range(1000, 1200))


def test_a_frozen_worker_that_wakes_up_changes_nothing(site: Site, client: Client) -> None:
    site.hold(1_040)
    job = submitted(site, client, 128)
    with site.worker("frozen@%h") as frozen:
        until_run(site, 40)
        frozen.send_signal(signal.SIGSTOP)
        try:
            with site.worker("other@%h"):
                eventually(lambda: max(deaths for _, deaths in shards(site, job)) == 1, 30, "the lease to lapse")
                site.let_go()
                job.wait(END_S)
                before = {path: path.stat().st_mtime_ns for path in sorted(site.data.rglob("part-*"))}
                frozen.send_signal(signal.SIGCONT)
                time.sleep(2)
        finally:
            frozen.send_signal(signal.SIGCONT)
    assert {path: path.stat().st_mtime_ns for path in sorted(site.data.rglob("part-*"))} == before
    check_doubled(job, range(1000, 1128))


def test_a_full_disk_is_waited_for_and_leaves_nothing_half_written(site: Site, client: Client) -> None:
    """The worker may write no file of more than 300 kB, as if the disk were full; then another one goes on."""
    rows = 900
    noise = np.random.default_rng(1).bytes(rows * 4_000)
    table = pa.table(
        {
            "id": range(rows),
            "x": pa.array(np.arange(1_000, 1_000 + rows), pa.float32()),
            "more": [noise[at * 4_000 : (at + 1) * 4_000] for at in range(rows)],
        }
    )
    source = site.new(".parquet")
    pq.write_table(table, source)
    with site.worker() as worker:
        eventually(lambda: " ready." in site.log(), 60, "a worker")
        limit = resource.prlimit(worker.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, (300_000, limit[1]))
        job = client.score("gated", source, site.new(), keep=["id", "more"])
        eventually(lambda: "is full" in site.log(), 30, "a word about the disk")
        assert job.status() in {"planning", "running"}
        assert not is_finished(job)
        assert worker.poll() is None
    with site.worker():
        job.wait(END_S)
    check_doubled(job, range(1_000, 1_000 + rows))
    assert output_of(job)["more"].combine_chunks().equals(table["more"].combine_chunks())


def test_two_workers_of_one_name_leave_each_other_their_shards(site: Site, client: Client) -> None:
    """Celery warns of that, and people do it all the same: containers may share a host name."""
    site.hold(1_064)
    job = submitted(site, client, 128)
    with site.worker("same@%h"):
        until_run(site, 40)
        begun = site.log().count("bulk.begun")
        with site.worker("same@%h"):
            eventually(lambda: site.log().count("bulk.begun") > begun, 30, "the second to look for its predecessor")
            site.let_go()
            job.wait(END_S)
    check_doubled(job, range(1000, 1128))
    assert all(deaths == 0 for (deaths,) in shards(site, job, "deaths"))


def test_a_worker_takes_over_from_a_dead_one_of_its_name_before_the_lease_has_passed(
    site: Site, client: Client
) -> None:
    site.hold(1_008)
    job = submitted(site, client, 128)
    with site.worker("same@%h", HEADRACE_LEASE_S="600") as worker:
        until_run(site, 8)
        worker.send_signal(signal.SIGKILL)
        worker.wait()
    site.let_go()
    with site.worker("same@%h"):
        job.wait(END_S)
    check_doubled(job, range(1000, 1128))


def test_a_job_whose_workers_die_more_often_than_a_shard_may_fail_still_ends(site: Site, client: Client) -> None:
    """As on spot machines. Each time other rows run, so that none of them is to blame."""
    job = submitted(site, client, SHARD_ROWS)
    for held in (1_096, 1_064, 1_032, 1_008):
        site.hold(held)
        ran = len(site.runs())
        with site.worker() as worker:
            eventually(partial(_has_run, site, ran, held - 1), 30, "all rows before those that are held")
            worker.kill()
            worker.wait()
    site.let_go()
    with site.worker():
        job.wait(END_S)
    check_doubled(job, range(1000, 1000 + SHARD_ROWS))


def test_a_worker_that_is_told_to_stop_while_it_is_frozen_and_one_that_takes_over_agree(
    site: Site, client: Client
) -> None:
    site.hold(1_040)
    job = submitted(site, client, 128)
    with site.worker("first@%h") as first:
        until_run(site, 40)
        first.send_signal(signal.SIGSTOP)
        first.send_signal(signal.SIGTERM)
        with site.worker("second@%h"):
            eventually(lambda: max(deaths for _, deaths in shards(site, job)) == 1, 30, "the lease to lapse")
            first.send_signal(signal.SIGCONT)
            site.let_go()
            job.wait(END_S)
        assert first.wait(60) == 0
    check_doubled(job, range(1000, 1128))


def test_a_cancelled_job_whose_worker_is_dead_ends_all_the_same(site: Site, client: Client) -> None:
    site.hold(1_040)
    job = submitted(site, client, 128)
    with site.worker() as worker:
        until_run(site, 40)
        worker.kill()
        worker.wait()
    job.cancel()
    site.let_go()
    with site.worker(), pytest.raises(JobCancelled):
        job.wait(END_S)
    assert not is_finished(job)
