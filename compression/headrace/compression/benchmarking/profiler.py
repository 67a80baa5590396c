"""The profile of a package on this machine: the times of batches of each size, and batching advice from them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias, TypedDict, Unpack

import msgspec

from headrace.compression.benchmarking.batch_advice import Advice, Point, advise, rounded
from headrace.compression.benchmarking.compare import BLOCK_S
from headrace.compression.benchmarking.conditions import Conditions, conditions_now, runtime_version, usable_cores
from headrace.compression.benchmarking.handle import BenchmarkHandle, NotEnoughMemory, Setup
from headrace.compression.benchmarking.inputs import checked_sizes, rows_file
from headrace.compression.benchmarking.protocol import Block, Loaded
from headrace.compression.benchmarking.timing import timing_of
from headrace.compression.data.random_rows import known_sizes, random_rows, sizes_in
from headrace.compression.errors import CompressionError
from headrace.contracts import ModelPackage, PackageError, Tensors, read_package
from headrace.contracts.package.manifest import Manifest, write_manifest
from headrace.contracts.package.processor import place_of

#: Measured when nothing else is asked for.
ROW_SIZES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)

#: Blocks of each size, at least: their median bears one or two that were disturbed.
_MIN_BLOCKS: Final = 5

#: A run longer than this ends the sweep towards larger batches: none would help whoever waits for them.
_LONGEST_RUN_S: Final = 10.0

#: A median this many times as long as an undisturbed run tells of a machine that is busy with something else.
_BUSY: Final = 1.3

#: Where an input's dimension varies, the sizes tried for random rows: a short text, then what image models need.
_RANDOM_SIZES: Final = (16, 64, 224)

#: Called with the points so far and the share of the work that is done, 0 to 1.
Watch: TypeAlias = Callable[[Sequence[Point], float], None]


class ProfileOptions(TypedDict, total=False):
    """Options of a profile.

    device: as of `headrace worker` (cpu). seconds: to spend on each size and number of threads (1), more for slow
    models. answer_s: longest wait for an answer of the model's process (300). watch: called as figures come in.
    """

    device: str
    seconds: float
    answer_s: float
    watch: Watch


class Profile(msgspec.Struct, frozen=True):
    """A profile of a package.

    inputs: the rows it ran. sizes: that their varying dimensions had, by name; others take other times. notes: what to
    know of the figures.
    """

    model: str
    version: str
    sha256: str
    runtime: str
    runtime_version: str
    inputs: Literal["given", "random"]
    load_seconds: float
    library_bytes: int
    points: tuple[Point, ...]
    advice: Advice
    conditions: Conditions
    sizes: dict[str, int] = {}
    notes: tuple[str, ...] = ()


def default_threads() -> tuple[int, ...]:
    """Return 1, 2, 4 and so on, up to the cores that this process may use."""
    cores = usable_cores()
    return tuple(2**power for power in range(cores.bit_length()) if 2**power <= cores)


def profile(
    package: ModelPackage,
    *,
    rows: Sequence[int] = (),
    threads: Sequence[int] = (),
    inputs: Tensors | None = None,
    **options: Unpack[ProfileOptions],
) -> Profile:
    """Measure a package over row sizes and numbers of threads, on this machine; changes nothing.

    rows: ROW_SIZES, or those a model of fixed sizes can run, if empty. threads: `default_threads()` if empty.
    inputs: real rows; random ones if None, which suffice unless the model's time depends on values.
    Raises CompressionError when the model crashes, hangs or fails, DataError when the inputs don't fit.
    """
    sizes = _sizes_for(package, rows)
    counts = checked_sizes(threads or default_threads())
    device, answer_s = options.get("device", "cpu"), options.get("answer_s", 300.0)
    real = inputs if inputs is not None else _random_inputs(package, sizes[-1], Setup(device, counts[0], answer_s))
    conditions = conditions_now(device, tuple(counts))
    sweeps: list[_SizeSweep] = []
    with rows_file([package], real, sizes[-1]) as file:
        for number, count in enumerate(counts):
            with BenchmarkHandle(package, file, Setup(device, count, answer_s)) as handle:
                sweep = _SizeSweep(handle, count, handle.load())
                sweep.start(sizes)
                earlier = [point for done in sweeps for point in done.points()]
                for share in sweep.rounds(options.get("seconds", 1.0)):
                    if "watch" in options:
                        options["watch"]([*earlier, *sweep.points()], (number + share) / len(counts))
                sweeps.append(sweep)
    found = sizes_in(package.manifest.inputs, real)
    return _summed_up(package, sweeps, conditions, sizes=found, random=inputs is None)


def _summed_up(
    package: ModelPackage, sweeps: Sequence[_SizeSweep], conditions: Conditions, *, sizes: dict[str, int], random: bool
) -> Profile:
    manifest, points = package.manifest, tuple(point for sweep in sweeps for point in sweep.points())
    notes = [*(sweep.note for sweep in sweeps), _busy_note(points)]
    return Profile(
        model=package.name,
        version=package.version,
        sha256=manifest.sha256,
        runtime=manifest.runtime,
        runtime_version=runtime_version(manifest.runtime),
        inputs="random" if random else "given",
        load_seconds=sweeps[0].loaded.load_seconds,
        library_bytes=sweeps[0].loaded.library_bytes,
        points=points,
        advice=advise(points),
        conditions=conditions,
        sizes=sizes,
        notes=_notes(manifest, sizes if random else {}, notes),
    )


def describe_sizes(sizes: Mapping[str, int]) -> str:
    """Write the sizes of varying dimensions as people read them, such as `len = 64, width = 320`."""
    return ", ".join(f"{name} = {size}" for name, size in sizes.items())


def _notes(manifest: Manifest, random: Mapping[str, int], others: Sequence[str]) -> tuple[str, ...]:
    """Return the notes of a profile, each once. random: sizes that nobody asked for."""
    notes = []
    if random:
        notes.append(
            f"these figures are for {describe_sizes(random)}, and other sizes take other times; measure rows like "
            "yours with --data FILE"
        )
    if not manifest.batching.independent_rows:
        notes.append("each request runs alone, since its rows depend on each other: rows are those of one request")
    return tuple(dict.fromkeys([*notes, *(note for note in others if note)]))


def _busy_note(points: Sequence[Point]) -> str:
    worst = max(points, key=lambda point: point.median_seconds / point.seconds)
    times = worst.median_seconds / worst.seconds
    if times < _BUSY:
        return ""
    return (
        f"this machine was busy with something else: half of the runs of {worst.rows} rows took over {times:.1f} times "
        "as long as an undisturbed one; profile again when it is quiet"
    )


def write_profile(package: ModelPackage, measured: Profile) -> ModelPackage:
    """Put a profile's advice and figures into the package's `model.toml`, whole or not at all.

    `max_wait_ms` stays: how long somebody may wait is its owner's to say. The checksum covers the model's files, so it
    stays valid. Raises PackageError when the package is another by now, or can't be written.
    """
    manifest = read_package(package.folder).manifest
    if manifest.sha256 != measured.sha256:
        raise PackageError(f"{package.folder} holds another model than the one that was measured; profile it again")
    advice = measured.advice
    batching = msgspec.structs.replace(
        manifest.batching,
        max_rows=advice.max_rows,
        seconds_fixed=advice.seconds_fixed,
        seconds_per_row=advice.seconds_per_row,
        threads=advice.threads,
        measured_on=place_of(measured.conditions.device),
    )
    provenance = {**manifest.provenance, "profile": _record(measured)}
    try:
        write_manifest(package.folder, msgspec.structs.replace(manifest, batching=batching, provenance=provenance))
    except OSError as exc:
        raise PackageError(f"{package.folder} can't be written: {exc.strerror}; the profile is not kept") from exc
    return read_package(package.folder)


def _record(measured: Profile) -> dict[str, Any]:
    """Return the record of a profile in the package: its conditions, and every point."""
    return {
        "runtime": measured.runtime,
        "runtime_version": measured.runtime_version,
        **msgspec.to_builtins(measured.conditions),
        "inputs": measured.inputs,
        "sizes": dict(measured.sizes),
        "load_seconds": rounded(measured.load_seconds),
        "library_bytes": measured.library_bytes,
        "advice": msgspec.to_builtins(measured.advice),
        "points": [
            {
                "threads": point.threads,
                "rows": point.rows,
                "seconds": rounded(point.seconds),
                "median_seconds": rounded(point.median_seconds),
                "p95_seconds": rounded(point.p95_seconds),
                "rows_per_second": rounded(point.rows_per_second),
                "peak_bytes": point.peak_bytes,
            }
            for point in measured.points
        ],
    }


def _sizes_for(package: ModelPackage, rows: Sequence[int]) -> list[int]:
    if all(spec.per_request for spec in package.manifest.inputs):
        # A request is one run, whatever it holds.
        if rows and set(rows) != {1}:
            raise CompressionError(
                f"{package.name} {package.version} takes no rows: {package.manifest.inputs[0].describe()} is given "
                "whole, once a request; leave the row sizes out"
            )
        return [1]
    fixed = package.manifest.batching.row_sizes
    sizes = checked_sizes(rows or fixed or ROW_SIZES)
    if fixed and not set(sizes) <= set(fixed):
        raise CompressionError(
            f"{package.name} {package.version} runs batches of {', '.join(map(str, fixed))} rows only; "
            "give some of these, or leave the row sizes out"
        )
    return sizes


def _random_inputs(package: ModelPackage, rows: int, setup: Setup) -> Tensors:
    """Make rows that the model can run; where dimensions vary, it is tried out which sizes it takes."""
    specs = package.manifest.inputs
    if not any(spec.varies for spec in specs):
        return random_rows(specs, rows, 1)
    known = known_sizes(specs).keys() >= sizes_in(specs, random_rows(specs, 1, 1)).keys()
    for size in _RANDOM_SIZES[:1] if known else _RANDOM_SIZES:
        inputs = random_rows(specs, rows, size)
        with rows_file([package], inputs, 1) as file, BenchmarkHandle(package, file, setup) as handle:
            handle.load()
            try:
                handle.run((package.manifest.batching.row_sizes or (1,))[0], 0.0)
            except CompressionError as exc:
                failure = exc
            else:
                return inputs
    raise CompressionError(f"{failure.message}; give it real rows to run instead of random ones (--data)")


class _SizeSweep:
    """A package with one number of threads: first up through the sizes, then round after round over all of them.

    The first way up, in rising order, shows the memory that each size needs; the rounds give every size its share of
    what else happens on the machine meanwhile.
    """

    def __init__(self, handle: BenchmarkHandle, threads: int, loaded: Loaded) -> None:
        self.loaded = loaded
        self.note = ""
        self._handle = handle
        self._threads = threads
        self._blocks: dict[int, list[Block]] = {}
        self._high_bytes: dict[int, int] = {}

    def start(self, sizes: Sequence[int]) -> None:
        """Run each size once, until one takes too long or needs more memory than there is."""
        for rows in sizes:
            try:
                first = self._handle.run(rows, 0.0)
            except NotEnoughMemory as exc:
                if not self._high_bytes:
                    raise
                self.note = f"batches of {rows} rows or more were left out: {exc.message}"
                return
            self._high_bytes[rows] = first.high_bytes
            self._blocks[rows] = []
            if first.seconds[0] > _LONGEST_RUN_S and rows != sizes[-1]:
                self.note = f"batches of more than {rows} rows were left out: one takes over {_LONGEST_RUN_S:g} s"
                return

    def rounds(self, seconds: float) -> Iterator[float]:
        """Run rounds for at least `seconds` a size; yield the share done after each."""
        budget_s = seconds * len(self._blocks)
        started = time.monotonic()
        share = 0.0
        while share < 1:
            for rows, blocks in self._blocks.items():
                blocks.append(self._handle.run(rows, min(BLOCK_S, seconds / _MIN_BLOCKS)))
            rounds = len(next(iter(self._blocks.values())))
            share = min((time.monotonic() - started) / budget_s if budget_s else 1.0, rounds / _MIN_BLOCKS, 1.0)
            yield share

    def points(self) -> list[Point]:
        """Return the points measured so far."""
        return [self._point(rows, blocks) for rows, blocks in self._blocks.items()]

    def _point(self, rows: int, blocks: Sequence[Block]) -> Point:
        timing = timing_of(rows, blocks)
        return Point(
            threads=self._threads,
            rows=rows,
            seconds=timing.seconds,
            median_seconds=timing.median_seconds,
            p95_seconds=timing.p95_seconds,
            rows_per_second=timing.rows_per_second,
            peak_bytes=max(self._high_bytes[rows] - self.loaded.idle_bytes, 0),
        )
