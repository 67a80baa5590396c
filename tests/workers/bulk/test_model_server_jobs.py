"""Bulk jobs of a model on a server: batches side by side, and a server that dies in between."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from tests.eventually import eventually
from tests.workers.bulk.sites import END_S, Site, output_of
from tests.workers.servers.conftest import ModelServer, write_package


@pytest.fixture
def server(site: Site, tmp_path: Path) -> Iterator[ModelServer]:
    server = ModelServer(tmp_path / "server")
    server.start()
    write_package(site.settings.models, server.address)
    yield server
    server.kill()


def _has_more_calls(server: ModelServer, than: int) -> bool:
    return len(server.calls) > than


def test_every_row_is_scored_though_the_server_is_killed_in_between(site: Site, server: ModelServer) -> None:
    server.does(run_s=0.02)
    with site.worker(), site.client() as client:
        job = client.score("m", site.rows(4_000, first=0), site.new(), keep=["id"])
        for _ in range(2):
            calls = len(server.calls)
            eventually(partial(_has_more_calls, server, calls + 20), 60, "batches of the job")
            server.kill()
            server.start()
        progress = job.wait(2 * END_S)
    found = output_of(job)
    assert (progress.rows_ok, progress.rows_bad) == (4_000, 0)
    assert [value[0] if isinstance(value, list) else value for value in found["y"].to_pylist()] == [
        2.0 * number for number in found["id"].to_pylist()
    ]


def test_another_model_fails_the_job_by_name_and_not_its_rows(site: Site, server: ModelServer) -> None:
    from headrace.producers.jobs.errors import JobFailed

    server.does(datatype="FP64")
    with site.worker(), site.client() as client:
        job = client.score("m", site.rows(100), site.new())
        with pytest.raises(JobFailed, match="input x FP64"):
            job.wait(2 * END_S)
