"""Tries recipes, measures each on this machine, and promotes the fastest that keeps within the bound, or none."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from headrace.compression.benchmarking.compare import Measurement, measure
from headrace.compression.data.dataset import Dataset, Splits
from headrace.compression.data.row_layout import as_taken
from headrace.compression.errors import CompressionError, MissingLibrary, NotApplicable
from headrace.compression.evaluation.evaluate import Evaluation, assess, disagreements, predict, within
from headrace.compression.onnx_model.preparation import check_exclude
from headrace.compression.quantization.int8.sensitivity import LayerSensitivity, sensitivity
from headrace.compression.recipes.catalog import check_names, parse_recipe
from headrace.compression.recipes.runner import Source, Workbench
from headrace.compression.search.callbacks import Unwatched, Watcher
from headrace.compression.search.provenance import key_of, provenance_of, record_of
from headrace.compression.search.result import Found, Goal
from headrace.compression.search.strategy import combinations, first_rungs, is_shrunk
from headrace.compression.search.trials import Attempt, AttemptLog, Status, Verdict, judge, pareto, ranked
from headrace.contracts import HeadraceError, ModelDirectory, ModelPackage, PackageError, Tensors, read_package
from headrace.lifecycle.packages.registry import promote

__all__ = ["Found", "Goal", "Search", "Unwatched", "Watcher"]

#: How many of those that pay are measured once more, in the end, on the test rows: the luckiest measurement of many
#: tends to be lucky rather than best. They are timed for longer, by this factor.
_FINALISTS: Final = 3
_LONGER: Final = 2.5

#: Families of image models are tried from this size on, a side.
_LEAST_PIXELS: Final = 24

#: Seconds that the look at single layers may take, about; each layer runs this many rows.
_SENSITIVITY_S: Final = 30.0
_SENSITIVITY_ROWS: Final = 64
_FEWEST_LAYERS, _MOST_LAYERS = 8, 64

_ATTEMPTS: Final = "attempts"
_STEPS: Final = "steps"
_SENSITIVITY: Final = "sensitivity.json"


class Search:
    """One search; what it did lies in its folder, and a second one of the same goal goes on there."""

    def __init__(self, source: Source, data: Splits, goal: Goal, folder: Path, watcher: Watcher | None = None) -> None:
        """folder: of searches; this one makes its own in it, named for all that its figures depend on."""
        self._source = source
        self._data = data
        self._goal = goal
        self._watcher = watcher or Unwatched()
        self._record = record_of(source, data, goal)
        self.folder = folder / key_of(source.package.name, self._record, goal)
        self._log = AttemptLog(self.folder / _ATTEMPTS)
        self._bench = Workbench(
            source,
            self.folder / _STEPS,
            data,
            seed=goal.seed,
            threads=goal.threads,
            progress=self._watcher.progress,
        )
        self._tried: dict[str, Attempt] = {}
        check_exclude(source.package, goal.exclude)
        self._reference = self._predict(source.package, data.selection)

    def climb(self) -> Found:
        """Try the whole ladder: what there is alone, then what did well together."""
        network = self._source.network
        images = network is not None and _is_image(network.example)
        alone = first_rungs(self._goal.runtime, network=network is not None, images=images)
        self._try_all(alone)
        by_speed = [attempt.recipe for attempt in self._kept()]
        shrunk = [name for name in by_speed if is_shrunk(name)]
        quantized = [name for name in by_speed if not is_shrunk(name)]
        self._try_all(combinations(self._goal.runtime, shrunk=shrunk, quantized=quantized))
        return self.conclude()

    def try_recipes(self, names: Sequence[str]) -> Found:
        """Try some recipes, and no others. Raises CompressionError, before any is tried, for a name nobody knows."""
        check_names(names)
        self._try_all(names)
        return self.conclude()

    def _try_all(self, names: Sequence[str]) -> None:
        known = len({*self._tried, *names})
        for name in names:
            if name in self._tried:
                continue
            self._watcher.started(name, len(self._tried), known)
            attempt = self._found_again(name) or self._log.keep(self._try(name))
            self._tried[name] = attempt
            self._watcher.ended(attempt, self._judge(attempt))

    def _found_again(self, name: str) -> Attempt | None:
        """Give what an earlier run made of a recipe, if there is anything to go on with; what failed is tried again."""
        attempt = self._log.find(name)
        if attempt is None or attempt.status in {"failed", "not installed"}:
            return None
        if attempt.status == "measured":
            try:
                self.package_of(attempt).verify()
            except PackageError:
                return None
        return attempt

    def _try(self, name: str) -> Attempt:
        def measured() -> Attempt:
            recipe = parse_recipe(name, self._goal.runtime, self._goal.exclude)
            package = self._bench.make(recipe)
            said = self._predict(package, self._data.selection)
            return Attempt(
                recipe=name,
                summary=recipe.summary,
                status="measured",
                package=str(package.folder.relative_to(self.folder)),
                selection=self._assess(said, self._data.selection, self._reference),
                measurement=self._measure(package, self._goal.seconds),
                notes=_notes_of(package),
            )

        started = time.monotonic()
        attempt = self._guarded(name, measured)
        return msgspec.structs.replace(attempt, seconds=time.monotonic() - started)

    def _guarded(self, name: str, work: Callable[[], Attempt]) -> Attempt:
        """Give what some work on a recipe comes to, also when it goes wrong: that must not end a search of hours."""

        def failed(status: Status, reason: str) -> Attempt:
            return Attempt(recipe=name, status=status, reason=reason)

        try:
            return work()
        except NotApplicable as exc:
            return failed("not applicable", exc.message)
        except MissingLibrary as exc:
            return failed("not installed", exc.message)
        except HeadraceError as exc:
            return failed("failed", exc.message)
        except Exception as exc:  # noqa: BLE001  (libraries raise anything; the traceback is kept)
            file = self._log.explain(name, traceback.format_exc())
            return failed("failed", f"{type(exc).__name__}: {exc}; {file.relative_to(self.folder)} has the traceback")

    def _judge(self, attempt: Attempt) -> Verdict:
        return judge(attempt, self._goal.bound, self._goal.at_rows, self._goal.min_speedup)

    def _measure(self, package: ModelPackage, seconds: float) -> Measurement:
        return measure(
            package,
            self._source.package,
            inputs=as_taken(self._source.package.manifest.inputs, self._data.selection.inputs),
            row_sizes=tuple(sorted({*self._goal.row_sizes, self._goal.at_rows})),
            threads=self._goal.threads,
            device=self._goal.device,
            seconds=seconds,
            progress=self._watcher.progress,
        )

    def _kept(self) -> list[Attempt]:
        """List the attempts that kept their metric, the fastest first, whether or not they are faster."""
        points = {
            attempt.recipe: point for attempt in self._tried.values() if (point := attempt.point(self._goal.at_rows))
        }
        kept = [
            attempt
            for attempt in self._tried.values()
            if attempt.selection is not None and within(attempt.selection, self._goal.bound)
        ]
        return sorted(kept, key=lambda attempt: points[attempt.recipe].seconds)

    def conclude(self) -> Found:
        """Measure those that seem to pay once more, on the test rows, and choose."""
        goal = self._goal
        layers, note = self._sensitivity()
        original = self._predict(self._source.package, self._data.test)
        chosen = ranked(self._confirmed(original), goal.bound, goal.at_rows, goal.min_speedup)
        attempts = tuple(self._tried.values())
        bytes_before = self._source.package.size_bytes
        return Found(
            model=self._source.package.name,
            origin=self._source.origin,
            bound=goal.bound.fraction,
            at_rows=goal.at_rows,
            baseline=self._assess(self._reference, self._data.selection, None),
            baseline_test=self._assess(original, self._data.test, None),
            original_bytes=bytes_before,
            attempts=attempts,
            verdicts=tuple(self._judge(attempt) for attempt in attempts),
            front=tuple(pareto(attempts, goal.at_rows, bytes_before)),
            chosen=chosen[0].recipe if chosen else "",
            sensitivity=layers,
            sensitivity_note=note,
            min_speedup=goal.min_speedup,
            record=self._record,
        )

    def _confirmed(self, original: Tensors) -> list[Attempt]:
        """Give the finalists that still pay. original: what the original says of the test rows."""
        goal = self._goal
        confirmed: list[Attempt] = []
        for attempt in ranked(list(self._tried.values()), goal.bound, goal.at_rows, goal.min_speedup):
            if len(confirmed) == _FINALISTS:
                break
            self._watcher.started(f"{attempt.recipe}, on the test rows", len(confirmed), _FINALISTS)
            final = attempt if attempt.test is not None else self._log.keep(self._confirm(attempt, original))
            self._tried[final.recipe] = final
            if self._judge(final).pays:
                confirmed.append(final)
        return confirmed

    def _confirm(self, attempt: Attempt, original: Tensors) -> Attempt:
        def tested() -> Attempt:
            package = self.package_of(attempt)
            said = self._predict(package, self._data.test)
            return msgspec.structs.replace(
                attempt,
                test=self._assess(said, self._data.test, original),
                measurement=self._measure(package, _LONGER * self._goal.seconds),
                disagreements=tuple(disagreements(original, said, self._data.test, self._goal.metric)),
            )

        return self._guarded(attempt.recipe, tested)

    def _predict(self, package: ModelPackage, rows: Dataset) -> Tensors:
        return predict(package, rows, threads=self._goal.threads, device=self._goal.device)

    def _assess(self, said: Tensors, rows: Dataset, original: Tensors | None) -> Evaluation:
        return assess(said, rows, self._goal.metric, reference=original, seed=self._goal.seed)

    def _sensitivity(self) -> tuple[tuple[LayerSensitivity, ...], str]:
        """Give the sensitivity of the original's layers to int8, or why there is none; looked into once."""
        file = self.folder / _SENSITIVITY
        try:
            return msgspec.json.decode(file.read_bytes(), type=tuple[LayerSensitivity, ...]), ""
        except (FileNotFoundError, msgspec.DecodeError):
            pass
        measured = next((attempt.measurement for attempt in self._tried.values() if attempt.measurement), None)
        if measured is None or measured.baseline is None or measured.baseline.runtime != "onnxruntime":
            return (), "only ONNX models of which a compressed one was measured are looked into"
        self._watcher.started("sensitivity of layers", len(self._tried), len(self._tried) + 1)
        layers = _affordable_layers(measured)
        try:
            found = tuple(sensitivity(self._source.package, self._bench.workshop("sensitivity"), layers=layers))
        except HeadraceError as exc:
            return (), exc.message
        except Exception as exc:  # noqa: BLE001  (as for recipes; the verdict doesn't depend on it)
            where = self._log.explain("sensitivity", traceback.format_exc())
            return (), f"{type(exc).__name__}: {exc}; {where.relative_to(self.folder)} has the traceback"
        file.write_bytes(msgspec.json.encode(found))
        return found, ""

    def package_of(self, attempt: Attempt) -> ModelPackage:
        """Give the package that a measured attempt made."""
        return read_package(self.folder / attempt.package)

    def promote(self, found: Found, models: ModelDirectory) -> ModelPackage | None:
        """Put the chosen package into a model directory as its model's next version; None when none was chosen."""
        if not found.chosen:
            return None
        attempt = self._tried[found.chosen]
        verdict = self._judge(attempt)
        if attempt.test is None or not verdict.pays:
            raise CompressionError(f"{attempt.recipe} is not promoted: {verdict.reason}")
        return promote(self.package_of(attempt), models, provenance=provenance_of(found, attempt))


def _affordable_layers(measured: Measurement) -> int:
    """Say how many layers can be looked into in the time there is for it."""
    largest = measured.rows[-1].baseline
    assert largest is not None
    seconds = _SENSITIVITY_ROWS / largest.rows_per_second
    return max(_FEWEST_LAYERS, min(_MOST_LAYERS, int(_SENSITIVITY_S / seconds)))


def _notes_of(package: ModelPackage) -> tuple[str, ...]:
    """Give what the steps of a product noted, each once."""
    steps = package.manifest.provenance.get("steps", [])
    return tuple(dict.fromkeys(note for step in steps for note in step.get("notes", ())))


def _is_image(example: Tensors) -> bool:
    shapes = [array.shape[1:] for array in example.values()]
    return len(shapes) == 1 and len(shapes[0]) == 3 and min(shapes[0][1:]) >= _LEAST_PIXELS
