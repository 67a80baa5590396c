"""`headrace demo`: what it reads from real rows, and the whole of it as a user runs it."""

from __future__ import annotations

import errno
import io
import os
import pty
import re
import signal
import subprocess
import sys
import tempfile
import termios
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import msgspec
import psutil
import pytest
from rich.console import Console

from headrace.cli.demo.clients import Answer, Run
from headrace.cli.demo.figures import (
    EXAMPLE_SQL,
    Rows,
    read_rows,
    show_example,
    show_figures,
    show_mistakes,
    verdict,
)
from headrace.cli.demo.images import Digits, ModelVersion, held_out
from headrace.contracts.ids import new_id
from headrace.results_store import BatchRows, Row, StoreWriter, migrate
from headrace.results_store.database.address import connect

#: Of two images each package says that one is found; int8 may find both.
VERSIONS = (
    ModelVersion(version="1", title="fp32", stated=1, least=1, most=1, recipe="", size_bytes=150_000),
    ModelVersion(version="2", title="int8", stated=1, least=1, most=2, recipe="int8-static", size_bytes=14_000),
)


@pytest.fixture
def digits() -> Digits:
    whole = held_out()
    return Digits(pixels=whole.pixels[:2], inputs=whole.inputs[:2], labels=[8, 4], versions=VERSIONS)


@pytest.fixture
def finished(digits: Digits) -> Run:
    """Two passes by one client with each version; the 4 was taken for a 9 every time."""
    answers = [
        Answer(new_id(), version, number % 2, 8 if number % 2 == 0 else 9, 0.01 * (number + 1))
        for version in ("1", "2")
        for number in range(4)
    ]
    return Run(digits, clients=1, repeat=2, answers=answers, seconds={"1": 1.0, "2": 0.5})


@pytest.fixture
def store(database_url: str) -> str:
    migrate(database_url)
    return database_url


def write(database_url: str, run: Run) -> None:
    """Store what each version said as batches of three rows and of one, finished 20 ms after each was submitted."""
    now = time.time()
    with StoreWriter(database_url) as writer:
        for answers in (run.answers[:3], run.answers[3:4], run.answers[4:7], run.answers[7:]):
            rows = [
                Row(
                    id=uuid.UUID(answer.id),
                    state="succeeded",
                    outputs=b'{"label":[%d],"scores":[[0.25,0.75]]}' % answer.label,
                    datatypes="label:INT64,scores:FP32",
                    submitted_at=now,
                )
                for answer in answers
            ]
            writer.write(
                [
                    BatchRows(
                        model="digits",
                        version=answers[0].version,
                        rows=rows,
                        started_at=now + 0.005,
                        finished_at=now + 0.02,
                        batch_id=uuid.uuid4(),
                        batch_rows=len(rows),
                    )
                ]
            )


def test_the_rows_of_a_run_give_hits_latency_and_batches(store: str, finished: Run) -> None:
    write(store, finished)
    with connect(store) as connection:
        rows = read_rows(connection, finished)
    assert (rows.succeeded, rows.hits, rows.batches) == (8, {"1": 2, "2": 2}, {3: 2, 1: 2})
    assert rows.model_s == pytest.approx({"1": 0.0075, "2": 0.0075}, abs=1e-4)
    assert rows.latency_s == pytest.approx((0.02, 0.02), abs=1e-4)
    assert rows.queue_s == pytest.approx((0.005, 0.005), abs=1e-4)
    assert verdict(finished, rows) is None


def test_a_run_without_rows_is_read_and_refused(store: str, finished: Run) -> None:
    with connect(store) as connection:
        rows = read_rows(connection, finished)
    assert verdict(finished, rows) == "of 8 requests 8 were answered and 0 have a row"


def test_rows_of_another_version_than_was_asked_for_are_none(store: str, finished: Run) -> None:
    mixed = [msgspec.structs.replace(answer, version="1") for answer in finished.answers]
    write(store, msgspec.structs.replace(finished, answers=mixed))
    with connect(store) as connection:
        rows = read_rows(connection, finished)
    assert verdict(finished, rows) == "of 8 requests 8 were answered and 4 have a row"


def counted(fp32: int, int8: int) -> Rows:
    return Rows(succeeded=8, hits={"1": fp32, "2": int8}, model_s={}, latency_s=(0, 0), queue_s=(0, 0), batches={4: 2})


def with_int8_right(run: Run, hits: int) -> Run:
    """Let the compressed version find so many of its four images."""
    answers = [
        msgspec.structs.replace(answer, label=run.digits.labels[answer.image] if number - 4 < hits else 0)
        if answer.version == "2"
        else answer
        for number, answer in enumerate(run.answers)
    ]
    return msgspec.structs.replace(run, answers=answers)


def test_one_hit_more_or_less_than_stated_is_refused_of_the_trained_version(finished: Run) -> None:
    for hits in (1, 3):
        said = verdict(finished, counted(hits, 2))
        assert said == f"2 right answers of version 1 are promised, but the clients got 2 and the rows hold {hits}"


def test_the_compressed_version_may_find_more_or_fewer_within_its_bound(finished: Run) -> None:
    for hits in (2, 3, 4):
        assert verdict(with_int8_right(finished, hits), counted(2, hits)) is None
    said = verdict(with_int8_right(finished, 1), counted(2, 1))
    assert said == "2 to 4 right answers of version 2 are promised, but the clients got 1 and the rows hold 1"


def test_rows_and_answers_of_the_compressed_version_must_agree(finished: Run) -> None:
    said = verdict(with_int8_right(finished, 3), counted(2, 4))
    assert said == "2 to 4 right answers of version 2 are promised, but the clients got 3 and the rows hold 4"


def test_the_shipped_versions_promise_what_their_packages_say() -> None:
    trained, compressed = held_out().versions
    assert (trained.version, trained.title, trained.least, trained.most) == ("1", "fp32", 889, 889)
    assert (compressed.version, compressed.title, compressed.most) == ("2", "int8", 899)
    # Half a point of 899 images below the original's 889.
    assert compressed.least == 885 <= compressed.stated
    assert compressed.size_bytes * 8 < trained.size_bytes


@pytest.mark.parametrize("terminal", [True, False])
def test_the_figures_fit_into_80_columns(store: str, finished: Run, terminal: bool) -> None:
    write(store, finished)
    shown = io.StringIO()
    console = Console(
        file=shown,
        force_terminal=terminal,
        width=80,
        markup=False,
        highlight=False,
        _environ={"TERM": "xterm-256color"},
    )
    with connect(store) as connection:
        show_figures(console, finished, read_rows(connection, finished))
        show_mistakes(console, finished)
        show_example(console, connection, finished)
    text = shown.getvalue()
    assert ("\x1b" in text) is terminal
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    assert "fp32      50.00%: 1 of 2 images right by version 1" in plain
    assert "int8      50.00%: 1 of 2 images right by version 2" in plain
    assert "fp32 took a 4 for 9." in plain
    assert "int8 took a 4 for 9." in plain
    assert ("4: 9, 9" in plain) is terminal
    assert EXAMPLE_SQL % finished.answers[0].id in plain
    assert max(map(len, plain.splitlines())) <= 80


@pytest.fixture
def folder() -> Iterator[Path]:
    """An empty folder; not pytest's, which another session may close to the user that Postgres becomes under root."""
    with tempfile.TemporaryDirectory(prefix="headrace-demo-") as path:
        yield Path(path)


def environment(home: Path) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
    return {**clean, "HEADRACE_HOME": str(home), "PYTHONUNBUFFERED": "1", "FORCE_COLOR": "1"}


def demo_command(*words: str) -> list[str]:
    return [sys.executable, "-m", "headrace.cli", "demo", "--repeat", "1", *words]


def processes_of(home: Path) -> list[psutil.Process]:
    """Every process that works in this home: by its environment, its arguments or its folder."""
    found = []
    for process in psutil.process_iter():
        try:
            told = [*process.cmdline(), process.cwd(), process.environ().get("HEADRACE_HOME", "")]
        except psutil.Error:
            continue
        if process.pid != os.getpid() and any(str(home) in word for word in told):
            found.append(process)
    return found


@contextmanager
def running(home: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        demo_command(*words), cwd=home.parent, env=environment(home), stdout=subprocess.PIPE, text=True
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def read_until(process: subprocess.Popen[str], words: str) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        if words in line:
            return line
    raise AssertionError(f"the demo ended without saying {words!r}")


def test_the_demo_scores_every_image_says_so_in_plain_text_and_leaves_nothing_running(folder: Path) -> None:
    home = folder / "home"
    # Twice in the same home: what the first run left is no obstacle, and is not counted again.
    for _ in range(2):
        done = subprocess.run(
            demo_command("--exit", "--clients", "3"),
            cwd=folder,
            env=environment(home),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        text = " ".join(done.stdout.split())
        assert "\x1b" not in done.stdout
        assert "\r" not in done.stdout
        assert "fp32 98.89%: 889 of 899 images right by version 1" in text
        assert "the package states 889 of 899" in text
        hits = re.search(r"int8 9\d\.\d\d%: (\d+) of 899 images right by version 2", text)
        assert hits is not None
        assert 885 <= int(hits[1]) <= 899
        assert len(re.findall(r"[\d,]+ requests/s; \d+ µs an image in the model", text)) == 2
        assert "Requests 1,798 of one image each" in text
        assert re.search(r"p50 [\d.]+ ms, p99 [\d.]+ ms from submit\(\)", text)
        assert "FROM predictions" in text
        assert "http://127.0.0.1:" in text
        answers = re.findall(r"^ *\d +(\d+) +[01]\.\d+ +[01]\.\d+ *$", done.stdout, re.MULTILINE)
        assert (len(answers), sum(map(int, answers))) == (10, 1798)
        assert processes_of(home) == []
    assert not (home / "stack.json").exists()


def test_a_demo_beside_another_in_the_same_home_is_a_clear_error_and_does_not_disturb_it(folder: Path) -> None:
    home = folder / "home"
    with running(home) as first:
        read_until(first, "starting Postgres")
        second = subprocess.run(
            demo_command("--exit"), cwd=folder, env=environment(home), capture_output=True, text=True, check=False
        )
        assert second.returncode == 1
        assert f"a local stack already runs in {home} (pid {first.pid})" in " ".join(
            (second.stdout + second.stderr).split()
        )
        assert "Traceback" not in second.stderr
        read_until(first, "fp32 ")
        first.stdout.read()  # type: ignore[union-attr]
        assert first.wait() == 0
    assert processes_of(home) == []


@pytest.mark.parametrize(
    ("moment", "number"),
    [("starting Postgres", signal.SIGINT), ("starting Flower", signal.SIGTERM), ("clients submit", signal.SIGINT)],
)
def test_a_demo_stopped_at_any_moment_leaves_nothing_running(folder: Path, moment: str, number: signal.Signals) -> None:
    home = folder / "home"
    with running(home, "--repeat", "500") as process:
        assert process.stdout is not None
        read_until(process, moment)
        process.send_signal(number)
        process.stdout.read()
        assert process.wait() == 130
    assert processes_of(home) == []


def test_on_a_terminal_the_demo_draws_and_stays_up_until_it_is_told_to_stop(folder: Path) -> None:
    home = folder / "home"
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(ours, (24, 80))
    env = {**environment(home), "TERM": "xterm-256color"}
    with (
        os.fdopen(ours, encoding="utf-8", newline="") as screen,
        subprocess.Popen(demo_command(), cwd=folder, env=env, stdout=theirs, start_new_session=True) as process,
    ):
        os.close(theirs)
        try:
            drawn = drawn_until(screen, "stays up until Ctrl-C")
            assert (home / "stack.json").exists()
            process.send_signal(signal.SIGINT)
            drawn += drawn_until(screen, None)
            assert process.wait() == 0
        finally:
            process.kill()
    assert processes_of(home) == []
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", drawn)
    assert len(re.findall("899/899", plain)) >= 2
    assert "889 of 899 images right" in plain
    assert max(map(len, re.split(r"[\r\n]+", plain))) <= 80


def drawn_until(screen: TextIO, words: str | None) -> str:
    """Read what appears on a terminal until a line holds these words, or until its program ends."""
    drawn = ""
    try:
        for line in screen:
            drawn += line
            if words is not None and words in line:
                return drawn
    except OSError as exc:
        # So Linux says that nobody has the terminal open any more.
        if exc.errno != errno.EIO:
            raise
    assert words is None, drawn
    return drawn
