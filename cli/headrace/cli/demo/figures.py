"""Figures of the demo: read from Postgres, and printed."""

from __future__ import annotations

import textwrap
from collections import Counter
from typing import TYPE_CHECKING, Final

import msgspec

from headrace.cli.demo.clients import Answer, Run
from headrace.cli.demo.images import ModelVersion
from headrace.contracts.formatting import sized

if TYPE_CHECKING:
    import numpy as np
    import psycopg
    from numpy.typing import NDArray
    from rich.console import Console
    from rich.text import Text

#: Batch sizes of the histogram: from each of these up to the next.
_SIZES: Final = (1, 2, 4, 8, 16, 32, 64)
_BAR_WIDTH: Final = 40

#: Longer lines are harder to read, however wide the terminal is.
_MOST_COLUMNS: Final = 100

#: Pictures of 8 characters and a gap that fit into 80 columns.
_PICTURES_A_LINE: Final = 7

#: An example of a query of the store. `%s` stands for the first id of this run: ids are UUIDv7,
#: so they are ordered by time, and Postgres looks only at the partitions from there on.
EXAMPLE_SQL: Final = """\
SELECT outputs->'label'->>0 AS digit, count(*) AS answers,
       round(avg(score), 4) AS mean_score, round(min(score), 4) AS least_score
FROM predictions, LATERAL (
    SELECT max(s::numeric) AS score
    FROM jsonb_array_elements(outputs->'scores'->0) AS s) AS best
WHERE model = 'digits' AND id >= '%s'
GROUP BY digit ORDER BY mean_score;"""


#: A row of another version than was asked for is none.
_FOUND_SQL: Final = """\
CREATE TEMPORARY VIEW found AS
SELECT predictions.*, label, extract(epoch FROM finished_at - submitted_at)::float AS latency_s,
       extract(epoch FROM started_at - submitted_at)::float AS queue_s
FROM asked JOIN predictions USING (id, version) WHERE state = 'succeeded'"""

_FIGURES_SQL: Final = """\
SELECT count(*),
       percentile_disc(ARRAY[0.5, 0.99]) WITHIN GROUP (ORDER BY latency_s),
       percentile_disc(ARRAY[0.5, 0.99]) WITHIN GROUP (ORDER BY queue_s)
FROM found"""

_VERSIONS_SQL: Final = """\
SELECT version, count(*) FILTER (WHERE (outputs->'label'->>0)::int = label),
       sum(extract(epoch FROM finished_at - started_at)::float / batch_rows) / count(*)
FROM found GROUP BY version"""


class Rows(msgspec.Struct, frozen=True):
    """Figures of the rows of a run. batches: size in rows → number of batches.

    hits, model_s: by version, right answers, and seconds of the model per row. latency_s: p50 and p99 of
    finished_at − submitted_at. queue_s: p50 and p99 of started_at − submitted_at.
    """

    succeeded: int
    hits: dict[str, int]
    model_s: dict[str, float]
    latency_s: tuple[float, float]
    queue_s: tuple[float, float]
    batches: dict[int, int]


def read_rows(connection: psycopg.Connection, run: Run) -> Rows:
    """Ask Postgres for the rows of exactly these requests."""
    connection.execute("CREATE TEMPORARY TABLE asked (id uuid PRIMARY KEY, version text, label int)")
    with connection.cursor() as cursor, cursor.copy("COPY asked FROM STDIN") as copy:
        for answer in run.answers:
            copy.write_row((answer.id, answer.version, run.digits.labels[answer.image]))
    connection.execute("ANALYZE asked")
    connection.execute(_FOUND_SQL)
    counts = connection.execute(_FIGURES_SQL).fetchone()
    versions = connection.execute(_VERSIONS_SQL).fetchall()
    sizes = connection.execute("SELECT batch_rows, count(DISTINCT batch_id) FROM found GROUP BY batch_rows").fetchall()
    assert counts is not None
    succeeded, latency_s, queue_s = counts
    return Rows(
        succeeded=succeeded,
        hits={version: hits for version, hits, _ in versions},
        model_s={version: seconds for version, _, seconds in versions},
        latency_s=tuple(latency_s or (0, 0)),
        queue_s=tuple(queue_s or (0, 0)),
        batches=dict(sizes),
    )


def verdict(run: Run, rows: Rows) -> str | None:
    """Return a description of the failure; None when every image was scored with the promised accuracy."""
    if (len(run.answers), rows.succeeded) != (run.requests, run.requests):
        return f"of {run.requests} requests {len(run.answers)} were answered and {rows.succeeded} have a row"
    for model in run.digits.versions:
        answered = sum(answer.label == run.digits.labels[answer.image] for answer in _answers_of(run, model))
        found = rows.hits.get(model.version, 0)
        least, most = run.repeat * model.least, run.repeat * model.most
        if answered != found or not least <= found <= most:
            wanted = f"{least}" if least == most else f"{least} to {most}"
            return (
                f"{wanted} right answers of version {model.version} are promised, but the clients got {answered} "
                f"and the rows hold {found}"
            )
    return None


def _answers_of(run: Run, model: ModelVersion) -> list[Answer]:
    return [answer for answer in run.answers if answer.version == model.version]


def _percentiles(seconds: list[float]) -> tuple[float, float]:
    ordered = sorted(seconds)
    return ordered[(len(ordered) - 1) // 2], ordered[(len(ordered) - 1) * 99 // 100]


def show_figures(console: Console, run: Run, rows: Rows) -> None:
    """Print accuracy and speed of each version, then latency and batch sizes."""
    in_hand, in_rows, in_queue = (
        f"p50 {p50 * 1e3:.1f} ms, p99 {p99 * 1e3:.1f} ms"
        for p50, p99 in (_percentiles([answer.seconds for answer in run.answers]), rows.latency_s, rows.queue_s)
    )
    for model in run.digits.versions:
        fact(console, model.title, _about(model, run, rows))
    facts = {
        "Requests": f"{len(run.answers):,} of one image each in {sum(run.seconds.values()):.1f} s; "
        f"{rows.succeeded:,} rows in Postgres.",
        "Latency": f"{in_hand} from submit() until the client has the answer. In the rows: {in_rows} from submitted_at "
        f"to finished_at, of which {in_queue} before the model started. This is under load, and the clients share this "
        "machine with all the rest.",
        "Batches": f"{sum(rows.batches.values()):,} in all; how many had how many rows:",
    }
    for name, text in facts.items():
        fact(console, name, text)
    bar = "#" if console.options.ascii_only else "█"
    counts = Counter[int]()
    for size, count in rows.batches.items():
        counts[max(start for start in _SIZES if start <= size)] += count
    for start, end in zip(_SIZES, [*(size - 1 for size in _SIZES[1:]), None], strict=True):
        span = f"{start}-{end}" if end and end > start else f"{start}" if end else f"{start}+"
        width = -(-counts[start] * _BAR_WIDTH // max(counts.values()))
        console.print(f"  {span:>10}  {counts[start]:>6,}  {bar * width}".rstrip())


def _about(model: ModelVersion, run: Run, rows: Rows) -> str:
    """Return accuracy and speed of one version in words."""
    images, hits = len(run.digits.labels), rows.hits.get(model.version, 0) / run.repeat
    passes = "1 pass" if run.repeat == 1 else f"{run.repeat} passes"
    per_s = len(_answers_of(run, model)) / run.seconds[model.version]
    model_us = 1e6 * rows.model_s.get(model.version, 0.0)
    states = (
        f"the package states {model.stated} of {images}"
        if model.least == model.most
        else f"the package states {model.stated} and promises {model.least}"
    )
    made = f" Made of version 1 by headrace compress: {model.recipe}." if model.recipe else ""
    return (
        f"{hits / images:.2%}: {hits:g} of {images} images right by version {model.version}, in the rows of "
        f"{passes}; {states}. {per_s:,.0f} requests/s; {model_us:.0f} µs an image in the model, of "
        f"{sized(model.size_bytes)}.{made}"
    )


def fact(console: Console, name: str, text: str) -> None:
    """Print a paragraph with its name in the margin."""
    from rich.text import Text

    lines = textwrap.wrap(text, min(console.width, _MOST_COLUMNS) - 10)
    console.print(Text.assemble((f"{name:10}", "bold"), "\n          ".join(lines)))


def show_mistakes(console: Console, run: Run) -> None:
    """Print the mistakes of each version; on a terminal with the images themselves, two pixels a character."""
    from rich.text import Text

    truth = run.digits.labels
    found = {model.version: {a.image: a.label for a in _answers_of(run, model)} for model in run.digits.versions}
    for model in run.digits.versions:
        mistakes = {image: label for image, label in found[model.version].items() if label != truth[image]}
        pairs = Counter((truth[image], label) for image, label in mistakes.items())
        words = [
            f"{right} for {wrong}" + (f" ({n} times)" if n > 1 else "") for (right, wrong), n in pairs.most_common()
        ]
        text = f"{model.title} took a {', '.join(words)}." if words else f"none by {model.title}."
        fact(console, "Mistakes", text)
    if not console.is_terminal or console.options.ascii_only:
        return
    images = sorted({image for labels in found.values() for image, label in labels.items() if label != truth[image]})
    for start in range(0, len(images), _PICTURES_A_LINE):
        row = images[start : start + _PICTURES_A_LINE]
        for top in range(0, 8, 2):
            console.print(Text("  ").append_text(Text("  ").join(_half_blocks(run.digits.pixels[i], top) for i in row)))
        said = [f"{truth[i]}: {', '.join(str(labels.get(i, '?')) for labels in found.values())}" for i in row]
        console.print("  " + "  ".join(f"{words:8}" for words in said), style="dim")
    if images:
        titles = ", ".join(model.title for model in run.digits.versions)
        console.print(f"  (the right digit: what was found by {titles})", style="dim")


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
    fact(console, "SQL", "which digits are the models least sure of?")
    console.print()
    console.print(query, style="cyan", soft_wrap=True)
    console.print()
    table = Table(box=box.ASCII2 if console.options.ascii_only else box.SIMPLE_HEAD, pad_edge=False)
    for column in cursor.description or ():
        table.add_column(column.name, justify="right")
    for row in cursor:
        table.add_row(*map(str, row))
    console.print(table)
