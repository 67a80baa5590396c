"""The demo's clients: threads that submit images and collect the answers."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Final

import msgspec

from headrace.cli.demo.images import MODEL, Digits, ModelVersion
from headrace.contracts import HeadraceError, Settings

if TYPE_CHECKING:
    from rich.console import Console

    from headrace.producers import Client, Handle

#: Requests that one client keeps unanswered at most. With everything submitted at once, latency would only tell how
#: long the queue was; with one at a time, no batch could be larger than the number of clients.
IN_FLIGHT: Final = 16

#: A request that takes longer has been lost, which must never happen; the demo then fails instead of waiting on.
ANSWER_S: Final = 60.0

#: How often the progress bar is drawn again.
_REDRAW_S: Final = 0.1


class Answer(msgspec.Struct, frozen=True, gc=False):
    """One request: its id, the version it asked for, the image it held, the label found, and the client's seconds."""

    id: str
    version: str
    image: int
    label: int
    seconds: float


class User(threading.Thread):
    """One concurrent client: submits its share of the images one by one, at most IN_FLIGHT of them unanswered."""

    def __init__(self, settings: Settings, digits: Digits, version: str, share: range, leave: threading.Event) -> None:
        """share: numbers of its requests; request n holds image n modulo the number of images. leave: end early."""
        super().__init__(name=f"demo-client-{share.start}", daemon=True)
        self.answers: list[Answer] = []
        self.hits = 0
        self.error: HeadraceError | None = None
        self._settings = settings
        self._digits = digits
        self._version = version
        self._share = share
        self._leave = leave
        self._waiting: deque[tuple[Handle, int, float]] = deque()

    def run(self) -> None:
        """Submit and collect until the share is done, or the first error, or `leave`."""
        from headrace.producers import Client

        try:
            with Client(self._settings) as client:
                for number in self._share:
                    if self._leave.is_set():
                        return
                    if len(self._waiting) == IN_FLIGHT:
                        self._collect()
                    self._submit(client, number % len(self._digits.labels))
                    # An answer that came meanwhile is taken now: lying about until the window is full would count
                    # as latency.
                    while self._waiting and self._waiting[0][0].done():
                        self._collect()
                while self._waiting and not self._leave.is_set():
                    self._collect()
        except HeadraceError as exc:
            self.error = exc
            self._leave.set()

    def _submit(self, client: Client, image: int) -> None:
        started = time.perf_counter()
        handle = client.submit(MODEL, {"image": self._digits.inputs[image : image + 1]}, version=self._version)
        self._waiting.append((handle, image, started))

    def _collect(self) -> None:
        handle, image, started = self._waiting.popleft()
        label = int(handle.result(timeout_s=ANSWER_S)["label"][0])
        self.answers.append(Answer(handle.id, self._version, image, label, time.perf_counter() - started))
        self.hits += label == self._digits.labels[image]


class Run(msgspec.Struct, frozen=True):
    """Results of the clients: every answer, and by version the seconds from the first submit to the last answer."""

    digits: Digits
    clients: int
    repeat: int
    answers: list[Answer]
    seconds: dict[str, float]

    @property
    def requests(self) -> int:
        """Number of requests that should have been answered."""
        return self.repeat * len(self.digits.labels) * len(self.digits.versions)


def score(console: Console, settings: Settings, digits: Digits, clients: int, repeat: int) -> Run:
    """Let the clients submit every image `repeat` times to each version, one version after the other.

    Shows their progress. Raises a client's error.
    """
    load(settings, digits)
    answers: list[Answer] = []
    seconds: dict[str, float] = {}
    for model in digits.versions:
        started = time.perf_counter()
        answers += _score(console, settings, digits, model, (clients, repeat))
        seconds[model.version] = time.perf_counter() - started
    return Run(digits, clients, repeat, answers, seconds)


def load(settings: Settings, digits: Digits) -> None:
    """Ask every version once: a worker loads the newest when it starts, and others when they are first asked for."""
    from headrace.producers import Client

    with Client(settings) as client:
        for model in digits.versions:
            client.predict(MODEL, {"image": digits.inputs[:1]}, version=model.version, timeout_s=ANSWER_S)


def _score(
    console: Console, settings: Settings, digits: Digits, model: ModelVersion, load: tuple[int, int]
) -> list[Answer]:
    """Score with one version. load: clients, and how often each image is submitted."""
    clients, repeat = load
    leave = threading.Event()
    total = repeat * len(digits.labels)
    users = [User(settings, digits, model.version, range(first, total, clients), leave) for first in range(clients)]
    try:
        for user in users:
            user.start()
        _watch(console, users, total, f"Scoring, {model.title}")
    finally:
        # Ctrl-C finds clients at work: they leave with the answer they wait for, or with this process.
        leave.set()
    for user in users:
        if user.error is not None:
            raise user.error
    return [answer for user in users for answer in user.answers]


def _watch(console: Console, users: list[User], total: int, title: str) -> None:
    """Return when all clients have ended; on a terminal, show their progress meanwhile."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    speed = TextColumn("{task.fields[per_s]:,.0f} req/s, {task.fields[right]:.2%} right")
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=None), MofNCompleteColumn(), speed)
    started = time.perf_counter()
    progress = Progress(*columns, console=console, auto_refresh=False, expand=True, disable=not console.is_terminal)
    with progress:
        task = progress.add_task(title, total=total, per_s=0.0, right=0.0)
        working = True
        while working:
            # Looked at before the answers are counted, so that the last drawing has them all.
            working = any(user.is_alive() for user in users)
            done, hits = sum(len(user.answers) for user in users), sum(user.hits for user in users)
            per_s = done / (time.perf_counter() - started)
            progress.update(task, completed=done, per_s=per_s, right=hits / max(done, 1), refresh=True)
            next((user for user in users if user.is_alive()), users[0]).join(_REDRAW_S)
