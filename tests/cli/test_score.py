"""`headrace score` with servers: waiting, leaving, failing, dry runs; the worker is played."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.eventually import eventually
from tests.producers.jobs.player import MODEL, ROWS, Player, announce

from headrace.bulk.sinks.output.names import SUCCESS
from headrace.contracts.jobs import DryRun, JobProblem
from headrace.queueing import ClaimingConsumer, connect
from headrace.results_store.jobs.ledger import Ledger
from headrace.testing import TemporaryStack

Run = Callable[..., Any]


@pytest.fixture
def store_url(headrace_stack: TemporaryStack) -> Iterator[str]:
    with headrace_stack.results_store() as url:
        yield url


@pytest.fixture
def consumer(home: Path, broker_url: str, store_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A worker that is known to serve the model, with the settings of whom the commands run."""
    monkeypatch.setenv("HEADRACE_BROKER_URL", broker_url)
    monkeypatch.setenv("HEADRACE_DATABASE_URL", store_url)
    with connect(broker_url) as connection:
        consumer = ClaimingConsumer(connection, lease_s=60)
        consumer.queues.add(f"infer.{MODEL}")
        announce(consumer)
        yield consumer


@pytest.fixture
def play(consumer: Any, store_url: str) -> Run:
    """Play a worker in the background while a block runs; errors of it are those of the test."""

    @contextmanager
    def playing(act: Callable[[Player], None]) -> Iterator[None]:
        failed: list[BaseException] = []

        def run() -> None:
            try:
                with Ledger(store_url) as ledger:
                    eventually(lambda: [one for one in ledger.jobs.newest(1) if one.state == "planning"], 30, "a job")
                    act(Player(ledger))
            except BaseException as exc:  # noqa: BLE001 — it is raised again below
                failed.append(exc)
                signal.raise_signal(signal.SIGINT)

        thread = threading.Thread(target=run)
        thread.start()
        yield
        thread.join()
        assert not failed, failed

    return playing


def complete(player: Player, *bad: int) -> None:
    player.plan(2)
    assert player.run(*bad)
    assert player.run()
    output = Path(player.ledger.jobs.newest(1)[0].spec.output)
    output.mkdir()
    (output / SUCCESS).touch()  # the client looks whether the output is still there
    player.finish()


def test_it_waits_and_says_where_the_output_and_the_bad_rows_are(home: Path, headrace: Run, play: Run) -> None:
    with play(lambda player: complete(player, 3)):
        found = headrace("score", MODEL, "a b.parquet")
    assert found.code == 0, found.err
    assert f"output: {home}/a-b-digits.scores" in found.line
    assert f"{2 * ROWS - 1} rows scored" in found.line
    assert "1 bad rows, which are listed in" in found.line
    again = headrace("score", MODEL, home / "a b.parquet", "--json")
    assert again.code == 0
    assert again.json()["job"]["state"] == "succeeded"
    assert "has succeeded before" in again.line


def test_mistakes_are_said_at_once_even_if_nobody_waits(headrace: Run, play: Run) -> None:
    problem = JobProblem("InputMissing", "there is no a.parquet on worker w1; check the path")
    with play(lambda player: player.refuse(problem)):
        found = headrace("score", MODEL, "a.parquet", "--detach")
    assert found.code == 1
    assert "there is no a.parquet on worker w1; check the path" in found.line
    assert "InputMissing" not in found.line


def test_a_job_is_left_to_its_workers_when_its_first_shard_is_done(headrace: Run, play: Run) -> None:
    def begin(player: Player) -> None:
        player.plan(3)
        player.run()

    with play(begin):
        found = headrace("score", MODEL, "a.parquet", "--detach", "--name", "left")
    assert found.code == 0
    assert "headrace jobs watch left" in found.line
    assert headrace("jobs", "show", found.out.strip(), "--json").json()["job"]["name"] == "left"


def test_what_was_chosen_because_nobody_said_it_is_told_once_and_shown_with_the_job(headrace: Run, play: Run) -> None:
    note = "column 'f0' is taken for 'image', as no other fits so well"

    def run(player: Player) -> None:
        player.plan(1, note)
        player.run()
        player.finish()

    with play(run):
        found = headrace("score", MODEL, "a.parquet", "--name", "noted")
    assert found.line.count(f"note: {note}") == 1
    assert note in headrace("jobs", "show", "noted").out
    assert headrace("jobs", "show", "noted", "--json").json()["job"]["notes"] == [note]


def test_a_version_that_moved_is_named_with_its_options(headrace: Run, play: Run, consumer: Any) -> None:
    with play(complete):
        headrace("score", MODEL, "a.parquet")
    announce(consumer, "3", "cd" * 32)
    found = headrace("score", MODEL, "a.parquet")
    assert found.code == 1
    assert "--keep-version" in found.line
    assert "--restart" in found.line
    assert headrace("score", MODEL, "a.parquet", "--keep-version").code == 0


def test_a_dry_run_shows_time_size_memory_and_rows(headrace: Run, play: Run) -> None:
    sample = DryRun(
        rows=100,
        bad=1,
        seconds=0.5,
        total_rows=1_000_000,
        total_bytes=64 << 20,
        workers=2,
        seconds_low=60,
        seconds_high=125,
        output_bytes=8 << 20,
        memory_bytes=300 << 20,
        columns={"label": "int64", "vector": "fixed_size_list<float>[384]"},
        preview=[{"label": n, "vector": [0.25] * 384} for n in range(5)],
        problems=["row 7: not a JPEG"],
        notes=["column 'f0' is taken for 'image', as no other fits so well"],
    )

    def answer(player: Player) -> None:
        assert player.ledger.dry_runs.keep(player.ledger.jobs.newest(1)[0].id, sample)

    with play(answer):
        found = headrace("score", MODEL, "a.parquet", "--dry-run")
    assert found.code == 0, found.err
    for part in (
        "1,000,000 rows, 64.0 MiB",
        "1 min 00 s to 2 min 05 s on 2 worker processes",
        "300.0 MiB",
        "label int64",
    ):
        assert part in found.out
    assert "row 7: not a JPEG" in found.out
    assert "column 'f0' is taken for 'image'" in found.out
    assert not list(Path().glob("*.scores"))
    with play(answer):
        assert headrace("score", MODEL, "b.parquet", "--dry-run", "--json").json()["total_rows"] == 1_000_000


def test_ctrl_c_stops_watching_and_not_the_job(headrace: Run, consumer: Any, store_url: str) -> None:
    def interrupt() -> None:
        with Ledger(store_url) as ledger:
            eventually(lambda: ledger.jobs.newest(1), 30, "a job")
        signal.raise_signal(signal.SIGINT)

    main = threading.Timer(0.0, interrupt)
    main.start()
    found = headrace("score", MODEL, "a.parquet", "--name", "mine")
    main.join()
    assert found.code == 130
    assert "`headrace jobs cancel mine` cancels it" in found.line
    assert headrace("jobs", "show", "mine", "--json").json()["job"]["state"] == "planning"


def test_jobs_are_listed_shown_and_steered(headrace: Run, play: Run) -> None:
    def half(player: Player) -> None:
        player.plan(2)
        player.run(3)

    with play(half):
        headrace("score", MODEL, "a.parquet", "--detach", "--name", "mine")
    assert headrace("jobs", "pause", "mine").code == 0
    assert headrace("jobs", "pause", "mine", "--json").json()["state"] == "paused"
    listed = headrace("jobs", "list")
    assert "mine" in listed.out
    assert "50.0 %" in listed.out
    shown = headrace("jobs", "show", "mine")
    for part in (
        "w1@host",
        "a.parquet  ",
        "InvalidImage",
        "99 ok, 1 bad, 0 skipped",
        "1 done, 0 running, 1 waiting",
        "900 B",
    ):
        assert part in shown.out
    document = headrace("jobs", "show", "mine", "--json").json()
    assert document["errors"][0]["row"] == 3
    assert document["errors"][0]["file"] == "/in/a.parquet"
    assert headrace("jobs", "list", "--json").json()[0]["job"]["name"] == "mine"
    assert headrace("jobs", "resume", "mine").code == 0
    assert headrace("jobs", "cancel", "mine").code == 0
    watched = headrace("jobs", "watch", "mine", "--json")
    assert watched.code == 1
    assert json.loads(watched.out.splitlines()[-1])["job"]["state"] == "cancelled"
    assert "which are kept" in watched.line
    assert "runs 1 bad rows again" in headrace("jobs", "retry", "mine").line
    refused = headrace("jobs", "retry", "mine")
    assert refused.code == 1
    assert "running" in refused.line
    assert "headrace jobs list" in headrace("jobs", "show", "nobody").line


def test_nobody_who_works_on_a_job_is_said(
    headrace: Run, home: Path, consumer: Any, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.cli.commands.jobs.watching._STANDSTILL_S", 0.0)
    headrace("score", MODEL, "a.parquet", "--detach", "--name", "mine", "--max-errors", "1%")
    consumer.queues.close()
    thread = threading.Timer(1.5, signal.raise_signal, [signal.SIGINT])
    thread.start()
    found = headrace("jobs", "watch", "mine")
    thread.join()
    assert found.code == 130
    assert "no worker takes bulk jobs of model 'digits' at present" in found.line
