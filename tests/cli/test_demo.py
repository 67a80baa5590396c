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

import psutil
import pytest
from rich.console import Console

from headrace.cli.demo import (
    EXAMPLE_SQL,
    Answer,
    Digits,
    Rows,
    Run,
    held_out,
    read_rows,
    show_example,
    show_figures,
    show_mistakes,
    verdict,
)
from headrace.contracts.ids import new_id
from headrace.results_store import BatchRows, Row, StoreWriter, migrate
from headrace.results_store.address import connect

#: Two images, of which the package says that one is found.
HITS = 1


@pytest.fixture
def digits() -> Digits:
    whole = held_out()
    return Digits(pixels=whole.pixels[:2], inputs=whole.inputs[:2], labels=[8, 4], hits=HITS)


@pytest.fixture
def finished(digits: Digits) -> Run:
    """Two passes by one client; the 4 was taken for a 9 both times."""
    answers = [Answer(new_id(), number % 2, 8 if number % 2 == 0 else 9, 0.01 * (number + 1)) for number in range(4)]
    return Run(digits, clients=1, repeat=2, answers=answers, seconds=2.0)


@pytest.fixture
def store(database_url: str) -> str:
    migrate(database_url)
    return database_url


def write(database_url: str, run: Run) -> None:
    """Store the run as a batch of three rows and a batch of one, finished 20 ms after each was submitted."""
    now = time.time()
    with StoreWriter(database_url) as writer:
        for answers in (run.answers[:3], run.answers[3:]):
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
                        version="1",
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
    assert (rows.succeeded, rows.hits, rows.batches) == (4, 2, {3: 1, 1: 1})
    assert rows.latency_s == pytest.approx((0.02, 0.02), abs=1e-4)
    assert rows.queue_s == pytest.approx((0.005, 0.005), abs=1e-4)
    assert verdict(finished, rows) is None


def test_a_run_without_rows_is_read_and_refused(store: str, finished: Run) -> None:
    with connect(store) as connection:
        rows = read_rows(connection, finished)
    assert verdict(finished, rows) == "of 4 requests 4 were answered and 0 have a row"


def test_one_hit_more_or_less_than_stated_is_refused(finished: Run) -> None:
    for hits in (1, 3):
        said = verdict(finished, Rows(succeeded=4, hits=hits, latency_s=(0, 0), queue_s=(0, 0), batches={4: 1}))
        assert said == f"2 right answers are stated, but the clients got 2 and the rows hold {hits}"


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
    assert "50.00%: 1 of 2 images right" in plain
    assert "it took a 4 for 9." in plain
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
    return [sys.executable, "-m", "headrace.cli", "demo", "--repeat", "2", *words]


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
        assert "Accuracy 98.89%: 889 of 899 images right" in text
        assert "the package states 889 of 899" in text
        assert "1,798 requests of one image each" in text
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
        read_until(first, "Accuracy")
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
    assert "1798/1798" in plain
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
