"""Jobs of several kinds, with what must come out of each: a pure function of a seed and a number, but for the files."""

from __future__ import annotations

import json
import random
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.chaos.models import AFFINE, PICKY, answer_to

from headrace.contracts.jobs import STORE, OutputFormat

#: Most rows a second of a job, so that it lasts for some seconds and is met by faults.
ROWS_PER_S: Final = 2_500.0

#: One of so many jobs writes into the store.
STORE_EVERY: Final = 7

#: Set in the environment of clients when outputs may go to a bucket: its URI.
OUTPUTS: Final = "HEADRACE_CHAOS_BUCKET"

Row = tuple[str, int]


@dataclass
class Wanted:
    """A job and its outcome. good: how often each (id, y) is in the output. bad: (name of the file, row)."""

    kind: str
    model: str
    source: Path
    keep: list[str] = field(default_factory=lambda: ["id"])
    good: Counter[tuple[int, int]] = field(default_factory=Counter)
    bad: list[Row] = field(default_factory=list)
    output_format: OutputFormat = "parquet"

    @property
    def rows(self) -> int:
        return self.good.total() + len(self.bad)


class Ids:
    """Unique ids and values for the rows of one job."""

    def __init__(self, number: int) -> None:
        self._next = number * 10_000_000

    def take(self, count: int) -> list[int]:
        self._next += count
        return list(range(self._next - count, self._next))


def _parquet(path: Path, ids: list[int], xs: list[int | None], group_rows: int = 500) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({"id": pa.array(ids, pa.int64()), "x": pa.array(xs, pa.int64())})
    pq.write_table(table, path, row_group_size=group_rows, compression="none", use_dictionary=False)


def _many(rng: random.Random, source: Path, ids: Ids) -> Wanted:
    """Many small files, of which several make a shard."""
    source.mkdir()
    wanted = Wanted("many files", AFFINE, source)
    for at in range(rng.randint(20, 60)):
        mine = ids.take(rng.randint(0, 150))
        _parquet(source / f"{at:03} ü.parquet", mine, list(mine))
        wanted.good.update((each, answer_to(each)) for each in mine)
    return wanted


def _groups(rng: random.Random, source: Path, ids: Ids) -> Wanted:
    """One file that is so large that it is cut by row groups, with other columns that nobody wants."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = source.with_suffix(".parquet")
    rows = rng.randint(8_000, 14_000)
    mine = ids.take(rows)
    noise = [rng.randbytes(700) for _ in range(rows)]
    table = pa.table({"noise": noise, "id": mine, "x": mine})
    pq.write_table(table, path, row_group_size=1_000, compression="none", use_dictionary=False)
    return Wanted("row groups", AFFINE, path, good=Counter((each, answer_to(each)) for each in mine))


def _picky(rng: random.Random, source: Path, ids: Ids) -> Wanted:
    """Files with rows on which the model fails, and nulls."""
    source.mkdir()
    wanted = Wanted("bad rows", PICKY, source)
    for name in ("a.parquet", "b.parquet", "c.parquet"):
        mine = ids.take(rng.randint(300, 1_500))
        xs: list[int | None] = []
        for row, each in enumerate(mine):
            kind = rng.random()
            xs.append(None if kind < 0.005 else -each - 1 if kind < 0.01 else each)
            if kind < 0.01:
                wanted.bad.append((name, row))
            else:
                wanted.good[each, answer_to(each)] += 1
        _parquet(source / name, mine, xs)
    return wanted


def _lines(rng: random.Random, source: Path, ids: Ids) -> Wanted:
    """JSON lines, some of which are none."""
    path = source.with_suffix(".jsonl")
    wanted = Wanted("JSON lines", AFFINE, path)
    with path.open("w") as file:
        for row, each in enumerate(ids.take(rng.randint(1_000, 4_000))):
            if rng.random() < 0.005:
                file.write('{"id": \n')
                wanted.bad.append((path.name, row))
            else:
                file.write(json.dumps({"id": each, "x": each}) + "\n")
                wanted.good[each, answer_to(each)] += 1
    return wanted


def _csv(rng: random.Random, source: Path, ids: Ids) -> Wanted:
    """A CSV file with words where numbers belong."""
    path = source.with_suffix(".csv")
    wanted = Wanted("CSV", AFFINE, path, output_format="csv")
    with path.open("w") as file:
        file.write("id,x\n")
        for row, each in enumerate(ids.take(rng.randint(1_000, 4_000))):
            is_bad = row > 0 and rng.random() < 0.005
            file.write(f"{each},{'many' if is_bad else each}\n")
            if is_bad:
                wanted.bad.append((path.name, row))
            else:
                wanted.good[each, answer_to(each)] += 1
    return wanted


KINDS: Final[tuple[Callable[[random.Random, Path, Ids], Wanted], ...]] = (_many, _groups, _picky, _lines, _csv)


def make_input(folder: Path, seed: int, number: int) -> Wanted:
    """Write the input of the job of this number, whole or not at all, unless it is there; its content never changes."""
    rng = random.Random(f"{seed}/{number}")
    make = KINDS[number % len(KINDS)]
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".making-", dir=folder) as making:
        wanted = make(rng, Path(making) / f"in-{number:04}", Ids(number))
        target = folder / wanted.source.name
        if not target.exists():
            wanted.source.rename(target)
    wanted.source = target
    return wanted


def output_of(folder: Path, bucket: str, number: int) -> str:
    """Return where the output of a job goes: a folder, the store, or a bucket, whose URI is "" if there is none."""
    if number % STORE_EVERY == STORE_EVERY - 1:
        return STORE
    root = bucket if bucket and number % 3 == 1 else str(folder)
    return f"{root}/out-{number:04}"


def read_output(wanted: Wanted, folder: Path) -> tuple[Counter[tuple[int, int]], list[Row], dict[str, Any]]:
    """Return what is in an output folder: its rows, its bad rows and its manifest."""
    import pyarrow.csv
    import pyarrow.parquet as pq

    good: Counter[tuple[int, int]] = Counter()
    for path in sorted(folder.glob("part-*")):
        table = pq.read_table(path) if path.suffix == ".parquet" else pyarrow.csv.read_csv(path)
        ys = (int(str(y).strip("[]")) for y in table["y"].to_pylist())
        good.update(zip(table["id"].to_pylist(), ys, strict=True))
    bad: list[Row] = []
    for path in sorted(folder.glob("_errors/*.parquet")):
        bad += [(Path(row["file"]).name, row["row"]) for row in pq.read_table(path).to_pylist()]
    return good, bad, json.loads((folder / "_manifest.json").read_text())
