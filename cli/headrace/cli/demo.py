"""`headrace demo`: real images scored through Celery, Valkey, ONNX Runtime and Postgres, with Flower beside."""

from __future__ import annotations

import sys
import textwrap
import threading
import time
from collections import Counter, deque
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
import typer
from pydantic import SecretStr

from headrace.cli.errors import StackError
from headrace.cli.stack import LocalStack, stop_signals_interrupt
from headrace.contracts import HeadraceError, ModelDirectory, Settings, load_settings
from headrace.contracts.settings import StackAddress

if TYPE_CHECKING:
    import numpy as np
    import psycopg
    from numpy.typing import NDArray
    from rich.console import Console
    from rich.text import Text

    from headrace.producers import Client, Handle

DATA: Final = Path(__file__).with_name("demo_data")
MODEL: Final = "digits"

#: Requests that one client keeps unanswered at most. With everything submitted at once, latency would only tell how
#: long the queue was; with one at a time, no batch could be larger than the number of clients.
IN_FLIGHT: Final = 16

#: Passes over the held-out images: some seconds of work on a laptop, enough to watch.
REPEAT: Final = 10

#: A request that takes longer has been lost, which must never happen; the demo then fails instead of waiting on.
ANSWER_S: Final = 60.0

#: How often the progress bar is drawn again.
_REDRAW_S: Final = 0.1

#: Batch sizes of the histogram: from each of these up to the next.
_SIZES: Final = (1, 2, 4, 8, 16, 32, 64)
_BAR_WIDTH: Final = 40

#: Longer lines are harder to read, however wide the terminal is.
_MOST_COLUMNS: Final = 100

#: Pictures of 8 characters and a gap that fit into 80 columns.
_PICTURES_A_LINE: Final = 7

#: The exit code of a program that Ctrl-C stopped before it was done (128 + SIGINT), as shells have it.
_INTERRUPTED: Final = 130

#: What the demo shows as an example of asking the store. `%s` stands for the first id of this run: ids are UUIDv7,
#: so they are ordered by time, and Postgres looks only at the partitions from there on.
EXAMPLE_SQL: Final = """\
SELECT outputs->'label'->>0 AS digit, count(*) AS answers,
       round(avg(score), 4) AS mean_score, round(min(score), 4) AS least_score
FROM predictions, LATERAL (
    SELECT max(s::numeric) AS score
    FROM jsonb_array_elements(outputs->'scores'->0) AS s) AS best
WHERE model = 'digits' AND id >= '%s'
GROUP BY digit ORDER BY mean_score;"""


_FOUND_SQL: Final = """\
CREATE TEMPORARY VIEW found AS
SELECT *, extract(epoch FROM finished_at - submitted_at)::float AS latency_s,
       extract(epoch FROM started_at - submitted_at)::float AS queue_s
FROM asked JOIN predictions USING (id) WHERE state = 'succeeded'"""

_FIGURES_SQL: Final = """\
SELECT count(*), count(*) FILTER (WHERE (outputs->'label'->>0)::int = label),
       percentile_disc(ARRAY[0.5, 0.99]) WITHIN GROUP (ORDER BY latency_s),
       percentile_disc(ARRAY[0.5, 0.99]) WITHIN GROUP (ORDER BY queue_s)
FROM found"""


class Digits(msgspec.Struct, frozen=True):
    """The held-out images, and what the model's package says of them.

    pixels: uint8 [rows, 8, 8] in 0..16. inputs: FP32 [rows, 1, 8, 8] in 0..1. labels: [rows]. hits: how many of them
    the package states the model finds.
    """

    pixels: NDArray[np.uint8]
    inputs: NDArray[np.float32]
    labels: list[int]
    hits: int


def held_out() -> Digits:
    """Read the images that the model was not trained on. Raises PackageError when the package is damaged."""
    import numpy as np

    package = ModelDirectory(DATA / "models").get(MODEL)
    package.verify()
    stated = package.manifest.provenance
    with np.load(DATA / "digits.npz") as file:
        pixels, labels = file["images"][stated["train_rows"] :], file["labels"][stated["train_rows"] :]
    inputs = (pixels.astype(np.float32) / np.float32(16))[:, None]
    return Digits(pixels=pixels, inputs=inputs, labels=labels.tolist(), hits=stated["accuracy_hits"])


class Answer(msgspec.Struct, frozen=True, gc=False):
    """One request: its id, the image it held, the label found, and the seconds until its client held the answer."""

    id: str
    image: int
    label: int
    seconds: float


class User(threading.Thread):
    """One concurrent client: submits its share of the images one by one, at most IN_FLIGHT of them unanswered."""

    def __init__(self, settings: Settings, digits: Digits, share: range, leave: threading.Event) -> None:
        """share: numbers of its requests; request n holds image n modulo the number of images. leave: end early."""
        super().__init__(name=f"demo-client-{share.start}", daemon=True)
        self.answers: list[Answer] = []
        self.hits = 0
        self.error: HeadraceError | None = None
        self._settings = settings
        self._digits = digits
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
        handle = client.submit(MODEL, {"image": self._digits.inputs[image : image + 1]})
        self._waiting.append((handle, image, started))

    def _collect(self) -> None:
        handle, image, started = self._waiting.popleft()
        label = int(handle.result(timeout_s=ANSWER_S)["label"][0])
        self.answers.append(Answer(handle.id, image, label, time.perf_counter() - started))
        self.hits += label == self._digits.labels[image]


class Run(msgspec.Struct, frozen=True):
    """What the clients saw: every answer, and the seconds from the first submit to the last answer."""

    digits: Digits
    clients: int
    repeat: int
    answers: list[Answer]
    seconds: float

    @property
    def requests(self) -> int:
        """How many requests there should have been."""
        return self.repeat * len(self.digits.labels)


def score(console: Console, settings: Settings, digits: Digits, clients: int, repeat: int) -> Run:
    """Let the clients submit every image `repeat` times, and draw how far they are. Raises a client's error."""
    leave = threading.Event()
    total = repeat * len(digits.labels)
    users = [User(settings, digits, range(first, total, clients), leave) for first in range(clients)]
    started = time.perf_counter()
    try:
        for user in users:
            user.start()
        _watch(console, users, total)
    finally:
        # Ctrl-C finds clients at work: they leave with the answer they wait for, or with this process.
        leave.set()
    seconds = time.perf_counter() - started
    for user in users:
        if user.error is not None:
            raise user.error
    return Run(digits, clients, repeat, [answer for user in users for answer in user.answers], seconds)


def _watch(console: Console, users: list[User], total: int) -> None:
    """Return when all clients have ended; on a terminal, show their progress meanwhile."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    speed = TextColumn("{task.fields[per_s]:,.0f} req/s, {task.fields[right]:.2%} right")
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=None), MofNCompleteColumn(), speed)
    started = time.perf_counter()
    progress = Progress(*columns, console=console, auto_refresh=False, expand=True, disable=not console.is_terminal)
    with progress:
        task = progress.add_task("Scoring", total=total, per_s=0.0, right=0.0)
        working = True
        while working:
            # Looked at before the answers are counted, so that the last drawing has them all.
            working = any(user.is_alive() for user in users)
            done, hits = sum(len(user.answers) for user in users), sum(user.hits for user in users)
            per_s = done / (time.perf_counter() - started)
            progress.update(task, completed=done, per_s=per_s, right=hits / max(done, 1), refresh=True)
            next((user for user in users if user.is_alive()), users[0]).join(_REDRAW_S)


class Rows(msgspec.Struct, frozen=True):
    """What the store holds of a run. batches: size in rows → how many.

    latency_s: p50 and p99 of finished_at − submitted_at. queue_s: p50 and p99 of started_at − submitted_at.
    """

    succeeded: int
    hits: int
    latency_s: tuple[float, float]
    queue_s: tuple[float, float]
    batches: dict[int, int]


def read_rows(connection: psycopg.Connection, run: Run) -> Rows:
    """Ask Postgres for the rows of exactly these requests."""
    connection.execute("CREATE TEMPORARY TABLE asked (id uuid PRIMARY KEY, label int)")
    with connection.cursor() as cursor, cursor.copy("COPY asked FROM STDIN") as copy:
        for answer in run.answers:
            copy.write_row((answer.id, run.digits.labels[answer.image]))
    connection.execute("ANALYZE asked")
    connection.execute(_FOUND_SQL)
    counts = connection.execute(_FIGURES_SQL).fetchone()
    sizes = connection.execute("SELECT batch_rows, count(DISTINCT batch_id) FROM found GROUP BY batch_rows").fetchall()
    assert counts is not None
    succeeded, hits, latency_s, queue_s = counts
    return Rows(succeeded, hits, tuple(latency_s or (0, 0)), tuple(queue_s or (0, 0)), dict(sizes))


def verdict(run: Run, rows: Rows) -> str | None:
    """Say what is wrong; None when every image was scored and exactly as many are right as the package states."""
    stated = run.repeat * run.digits.hits
    answered = sum(answer.label == run.digits.labels[answer.image] for answer in run.answers)
    if (len(run.answers), rows.succeeded) != (run.requests, run.requests):
        return f"of {run.requests} requests {len(run.answers)} were answered and {rows.succeeded} have a row"
    if (answered, rows.hits) != (stated, stated):
        return f"{stated} right answers are stated, but the clients got {answered} and the rows hold {rows.hits}"
    return None


def _percentiles(seconds: list[float]) -> tuple[float, float]:
    ordered = sorted(seconds)
    return ordered[(len(ordered) - 1) // 2], ordered[(len(ordered) - 1) * 99 // 100]


def show_figures(console: Console, run: Run, rows: Rows) -> None:
    """Print accuracy, speed, latency and batch sizes."""
    images, hits = len(run.digits.labels), rows.hits / run.repeat
    in_hand, in_rows, in_queue = (
        f"p50 {p50 * 1e3:.1f} ms, p99 {p99 * 1e3:.1f} ms"
        for p50, p99 in (_percentiles([answer.seconds for answer in run.answers]), rows.latency_s, rows.queue_s)
    )
    passes = "1 pass" if run.repeat == 1 else f"{run.repeat} passes"
    facts = {
        "Accuracy": f"{hits / images:.2%}: {hits:g} of {images} images right, in the rows of {passes}; the package "
        f"states {run.digits.hits} of {images}.",
        "Speed": f"{len(run.answers) / run.seconds:,.0f} requests/s: {len(run.answers):,} requests of one image each "
        f"in {run.seconds:.1f} s; {rows.succeeded:,} rows in Postgres.",
        "Latency": f"{in_hand} from submit() until the client has the answer. In the rows: {in_rows} from submitted_at "
        f"to finished_at, of which {in_queue} before the model started. This is under load, and the clients share this "
        "machine with all the rest.",
        "Batches": f"{sum(rows.batches.values()):,} in all; how many had how many rows:",
    }
    for name, text in facts.items():
        _fact(console, name, text)
    bar = "#" if console.options.ascii_only else "█"
    counts = Counter[int]()
    for size, count in rows.batches.items():
        counts[max(start for start in _SIZES if start <= size)] += count
    for start, end in zip(_SIZES, [*(size - 1 for size in _SIZES[1:]), None], strict=True):
        span = f"{start}-{end}" if end and end > start else f"{start}" if end else f"{start}+"
        width = -(-counts[start] * _BAR_WIDTH // max(counts.values()))
        console.print(f"  {span:>10}  {counts[start]:>6,}  {bar * width}".rstrip())


def _fact(console: Console, name: str, text: str) -> None:
    from rich.text import Text

    lines = textwrap.wrap(text, min(console.width, _MOST_COLUMNS) - 10)
    console.print(Text.assemble((f"{name:10}", "bold"), "\n          ".join(lines)))


def show_mistakes(console: Console, run: Run) -> None:
    """Print what the model took for what; on a terminal with the images themselves, two pixels a character."""
    from rich.text import Text

    mistakes = {a.image: a.label for a in run.answers if a.label != run.digits.labels[a.image]}
    pairs = Counter((run.digits.labels[image], found) for image, found in mistakes.items())
    words = [f"{truth} for {found}" + (f" ({n} times)" if n > 1 else "") for (truth, found), n in pairs.most_common()]
    _fact(console, "Mistakes", f"it took a {', '.join(words)}." if words else "none.")
    if not console.is_terminal or console.options.ascii_only:
        return
    images = sorted(mistakes)
    for start in range(0, len(images), _PICTURES_A_LINE):
        row = images[start : start + _PICTURES_A_LINE]
        for top in range(0, 8, 2):
            console.print(Text("  ").append_text(Text("  ").join(_half_blocks(run.digits.pixels[i], top) for i in row)))
        console.print("  " + "  ".join(f"{run.digits.labels[i]} not {mistakes[i]} " for i in row), style="dim")


def _half_blocks(pixels: NDArray[np.uint8], top: int) -> Text:
    """Draw two lines of pixels (0 paper, 16 ink) as one line of text."""
    from rich.text import Text

    line = Text()
    for upper, lower in zip(pixels[top].tolist(), pixels[top + 1].tolist(), strict=True):
        above, below = 255 - 15 * upper, 255 - 15 * lower
        line.append("▀", f"rgb({above},{above},{above}) on rgb({below},{below},{below})")
    return line


def show_example(console: Console, connection: psycopg.Connection, run: Run) -> None:
    """Print a query over `predictions` and what Postgres answers."""
    from rich import box
    from rich.table import Table

    query = EXAMPLE_SQL % min(answer.id for answer in run.answers)
    cursor = connection.execute(query.encode())
    _fact(console, "SQL", "which digits is the model least sure of?")
    console.print()
    console.print(query, style="cyan", soft_wrap=True)
    console.print()
    table = Table(box=box.ASCII2 if console.options.ascii_only else box.SIMPLE_HEAD, pad_edge=False)
    for column in cursor.description or ():
        table.add_column(column.name, justify="right")
    for row in cursor:
        table.add_row(*map(str, row))
    console.print(table)


def _settings(address: StackAddress, home: Path) -> Settings:
    """Give the settings of a client of this stack, whatever URLs are set outside."""
    urls = {"broker_url": SecretStr(address.broker_url), "database_url": SecretStr(address.database_url)}
    return load_settings().model_copy(update={**urls, "home": home, "models": Path(address.models)})


def _present(console: Console, stack: LocalStack, clients: int, repeat: int) -> str | None:
    """Score, print everything, and give the verdict."""
    from headrace.results_store.address import connect

    digits = held_out()
    console.print(
        f"\n{clients} clients submit {len(digits.labels)} images {repeat} times, one image a request. Each keeps at "
        f"most {IN_FLIGHT} requests unanswered."
    )
    run = score(console, _settings(stack.address, stack.home), digits, clients, repeat)
    with connect(stack.address.database_url) as connection:
        rows = read_rows(connection, run)
        if rows.succeeded:
            show_figures(console, run, rows)
            show_mistakes(console, run)
            show_example(console, connection, run)
    _fact(console, "Flower", f"{stack.address.flower_url} shows the worker, its queue and its batches.")
    return verdict(run, rows)


def demo(
    exit_: Annotated[bool, typer.Option("--exit", help="Stop everything at the end instead of staying up.")] = False,
    clients: Annotated[int, typer.Option(min=1, max=64, help="Clients that submit at the same time.")] = 4,
    repeat: Annotated[int, typer.Option(min=1, help="How often each image is submitted.")] = REPEAT,
    home: Annotated[Path | None, typer.Option(help="Folder for data and logs.  [default: .headrace]")] = None,
) -> None:
    """Score 899 real handwritten digits through Celery, Valkey, ONNX Runtime and Postgres.

    Starts a Valkey, a Postgres, a worker and Flower of its own, on this machine only, and stops them at the end.
    Stays up until Ctrl-C; with --exit, or when the output is not a terminal, it ends by itself. The exit code is 0
    only if every image was scored and the accuracy is what the model's package states.
    """
    from rich.console import Console

    terminal = sys.stdout.isatty()
    # Said outright, since rich would believe FORCE_COLOR and its like more than the pipe it writes to.
    console = Console(force_terminal=terminal, color_system="auto" if terminal else None, markup=False, highlight=False)
    stop_signals_interrupt()
    wrong: str | None = "interrupted"
    try:
        with LocalStack(home or load_settings().home, DATA / "models", report=console.print) as stack:
            wrong = _present(console, stack, clients, repeat)
            if terminal and not exit_ and wrong is None:
                where = "in this folder" if home is None else f"with HEADRACE_HOME={home}"
                console.print(f"\nEverything stays up until Ctrl-C; Client() {where} finds it.", style="bold")
                stack.wait()
    except KeyboardInterrupt:
        if wrong is not None:
            raise typer.Exit(_INTERRUPTED) from None
    if wrong is not None:
        raise StackError(f"the demo did not come out as it must: {wrong}; the logs are in {stack.home / 'logs'}")
