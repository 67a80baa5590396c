"""The search: tries recipes, measures each on this machine, and promotes the fastest one within the bound, if any."""

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
from headrace.compression.evaluation.disagreements import disagreements
from headrace.compression.evaluation.evaluate import Evaluation, assess
from headrace.compression.evaluation.max_drop import within
from headrace.compression.evaluation.prediction import predict
from headrace.compression.onnx_model.preparation import check_exclude
from headrace.compression.quantization.int8.sensitivity import LayerSensitivity, sensitivity
from headrace.compression.recipes.catalog import check_names, parse_recipe
from headrace.compression.recipes.runner import RecipeRunner, Source
from headrace.compression.search.callbacks import NullCallbacks, SearchCallbacks
from headrace.compression.search.provenance import key_of, provenance_of, record_of
from headrace.compression.search.result import SearchConfig, SearchResult
from headrace.compression.search.strategy import first_stage, is_shrunk, second_stage
from headrace.compression.search.trials import Status, Trial, TrialLog, Verdict, judge, pareto, rank_paying
from headrace.contracts import HeadraceError, ModelDirectory, ModelPackage, PackageError, Tensors, read_package
from headrace.contracts.files import atomic_write
from headrace.lifecycle.packages.registry import promote

__all__ = ["NullCallbacks", "Search", "SearchCallbacks", "SearchConfig", "SearchResult"]

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

_TRIALS: Final = "attempts"
_STEPS: Final = "steps"
_SENSITIVITY: Final = "sensitivity.json"


class Search:
    """One search. Its trials lie in its folder; a second search with the same configuration continues there."""

    def __init__(
        self, source: Source, data: Splits, config: SearchConfig, folder: Path, callbacks: SearchCallbacks | None = None
    ) -> None:
        """folder: parent directory; the search makes a subdirectory, named for all that its figures depend on."""
        self._source = source
        self._data = data
        self._config = config
        self._callbacks = callbacks or NullCallbacks()
        self._record = record_of(source, data, config)
        self.folder = folder / key_of(source.package.name, self._record, config)
        self._log = TrialLog(self.folder / _TRIALS)
        self._runner = RecipeRunner(
            source,
            self.folder / _STEPS,
            data,
            seed=config.seed,
            threads=config.threads,
            progress=self._callbacks.progress,
        )
        self._tried: dict[str, Trial] = {}
        check_exclude(source.package, config.exclude)
        self._reference = self._predict(source.package, data.selection)

    def run(self) -> SearchResult:
        """Run all stages: every recipe alone, then the successful ones combined. Returns the result."""
        network = self._source.network
        images = network is not None and _is_image(network.example)
        alone = first_stage(self._config.runtime, network=network is not None, images=images)
        self._try_all(alone)
        by_speed = [trial.recipe for trial in self._kept()]
        shrunk = [name for name in by_speed if is_shrunk(name)]
        quantized = [name for name in by_speed if not is_shrunk(name)]
        self._try_all(second_stage(self._config.runtime, shrunk=shrunk, quantized=quantized))
        return self.conclude()

    def try_recipes(self, names: Sequence[str]) -> SearchResult:
        """Try these recipes only. Raises CompressionError, before any is tried, for an unknown name."""
        check_names(names)
        self._try_all(names)
        return self.conclude()

    def _try_all(self, names: Sequence[str]) -> None:
        known = len({*self._tried, *names})
        for name in names:
            if name in self._tried:
                continue
            self._callbacks.started(name, len(self._tried), known)
            trial = self._found_again(name) or self._log.keep(self._try(name))
            self._tried[name] = trial
            self._callbacks.ended(trial, self._judge(trial))

    def _found_again(self, name: str) -> Trial | None:
        """Return the trial of an earlier run; None if there is none, or it failed and is repeated."""
        trial = self._log.find(name)
        if trial is None or trial.status in {"failed", "not installed"}:
            return None
        if trial.status == "measured":
            try:
                self.package_of(trial).verify()
            except PackageError:
                return None
        return trial

    def _try(self, name: str) -> Trial:
        def measured() -> Trial:
            recipe = parse_recipe(name, self._config.runtime, self._config.exclude)
            package = self._runner.make(recipe)
            said = self._predict(package, self._data.selection)
            return Trial(
                recipe=name,
                summary=recipe.summary,
                status="measured",
                package=str(package.folder.relative_to(self.folder)),
                selection=self._assess(said, self._data.selection, self._reference),
                measurement=self._measure(package, self._config.seconds),
                notes=_notes_of(package),
            )

        started = time.monotonic()
        trial = self._guarded(name, measured)
        return msgspec.structs.replace(trial, seconds=time.monotonic() - started)

    def _guarded(self, name: str, work: Callable[[], Trial]) -> Trial:
        """Run a trial and return its outcome, failures included: one must not end a search of hours."""

        def failed(status: Status, reason: str) -> Trial:
            return Trial(recipe=name, status=status, reason=reason)

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

    def _judge(self, trial: Trial) -> Verdict:
        return judge(trial, self._config.bound, self._config.at_rows, self._config.min_speedup)

    def _measure(self, package: ModelPackage, seconds: float) -> Measurement:
        return measure(
            package,
            self._source.package,
            inputs=as_taken(self._source.package.manifest.inputs, self._data.selection.inputs),
            row_sizes=tuple(sorted({*self._config.row_sizes, self._config.at_rows})),
            threads=self._config.threads,
            device=self._config.device,
            seconds=seconds,
            progress=self._callbacks.progress,
        )

    def _kept(self) -> list[Trial]:
        """List the trials that kept their metric, the fastest first, whether or not they are faster."""
        points = {trial.recipe: point for trial in self._tried.values() if (point := trial.point(self._config.at_rows))}
        kept = [
            trial
            for trial in self._tried.values()
            if trial.selection is not None and within(trial.selection, self._config.bound)
        ]
        return sorted(kept, key=lambda trial: points[trial.recipe].seconds)

    def conclude(self) -> SearchResult:
        """Measure those that seem to pay once more, on the test rows, and choose."""
        config = self._config
        layers, note = self._sensitivity()
        original = self._predict(self._source.package, self._data.test)
        chosen = rank_paying(self._confirmed(original), config.bound, config.at_rows, config.min_speedup)
        trials = tuple(self._tried.values())
        bytes_before = self._source.package.size_bytes
        return SearchResult(
            model=self._source.package.name,
            origin=self._source.origin,
            bound=config.bound.fraction,
            at_rows=config.at_rows,
            baseline=self._assess(self._reference, self._data.selection, None),
            baseline_test=self._assess(original, self._data.test, None),
            original_bytes=bytes_before,
            attempts=trials,
            verdicts=tuple(self._judge(trial) for trial in trials),
            front=tuple(pareto(trials, config.at_rows, bytes_before)),
            chosen=chosen[0].recipe if chosen else "",
            sensitivity=layers,
            sensitivity_note=note,
            min_speedup=config.min_speedup,
            record=self._record,
        )

    def _confirmed(self, original: Tensors) -> list[Trial]:
        """Return the finalists that still pay. original: its outputs for the test rows."""
        config = self._config
        confirmed: list[Trial] = []
        for trial in rank_paying(list(self._tried.values()), config.bound, config.at_rows, config.min_speedup):
            if len(confirmed) == _FINALISTS:
                break
            self._callbacks.started(f"{trial.recipe}, on the test rows", len(confirmed), _FINALISTS)
            final = trial if trial.test is not None else self._log.keep(self._confirm(trial, original))
            self._tried[final.recipe] = final
            if self._judge(final).pays:
                confirmed.append(final)
        return confirmed

    def _confirm(self, trial: Trial, original: Tensors) -> Trial:
        def tested() -> Trial:
            package = self.package_of(trial)
            said = self._predict(package, self._data.test)
            return msgspec.structs.replace(
                trial,
                test=self._assess(said, self._data.test, original),
                measurement=self._measure(package, _LONGER * self._config.seconds),
                disagreements=tuple(disagreements(original, said, self._data.test, self._config.metric)),
            )

        return self._guarded(trial.recipe, tested)

    def _predict(self, package: ModelPackage, rows: Dataset) -> Tensors:
        return predict(package, rows, threads=self._config.threads, device=self._config.device)

    def _assess(self, said: Tensors, rows: Dataset, original: Tensors | None) -> Evaluation:
        return assess(said, rows, self._config.metric, reference=original, seed=self._config.seed)

    def _sensitivity(self) -> tuple[tuple[LayerSensitivity, ...], str]:
        """Return the sensitivity of the original's layers to int8, measured once, or the reason why there is none."""
        file = self.folder / _SENSITIVITY
        try:
            return msgspec.json.decode(file.read_bytes(), type=tuple[LayerSensitivity, ...]), ""
        except (FileNotFoundError, msgspec.DecodeError):
            pass
        measured = next((trial.measurement for trial in self._tried.values() if trial.measurement), None)
        if measured is None or measured.baseline is None or measured.baseline.runtime != "onnxruntime":
            return (), "only ONNX models of which a compressed one was measured are looked into"
        self._callbacks.started("sensitivity of layers", len(self._tried), len(self._tried) + 1)
        layers = _affordable_layers(measured)
        try:
            found = tuple(sensitivity(self._source.package, self._runner.context("sensitivity"), layers=layers))
        except HeadraceError as exc:
            return (), exc.message
        except Exception as exc:  # noqa: BLE001  (as for recipes; the verdict doesn't depend on it)
            where = self._log.explain("sensitivity", traceback.format_exc())
            return (), f"{type(exc).__name__}: {exc}; {where.relative_to(self.folder)} has the traceback"
        atomic_write(file, msgspec.json.encode(found))
        return found, ""

    def package_of(self, trial: Trial) -> ModelPackage:
        """Return the package that a measured trial made."""
        return read_package(self.folder / trial.package)

    def promote(self, found: SearchResult, models: ModelDirectory) -> ModelPackage | None:
        """Put the chosen package into a model directory as its model's next version; None when none was chosen."""
        if not found.chosen:
            return None
        trial = self._tried[found.chosen]
        verdict = self._judge(trial)
        if trial.test is None or not verdict.pays:
            raise CompressionError(f"{trial.recipe} is not promoted: {verdict.reason}")
        return promote(self.package_of(trial), models, provenance=provenance_of(found, trial))


def _affordable_layers(measured: Measurement) -> int:
    """Return the number of layers that can be examined in the time allowed."""
    largest = measured.rows[-1].baseline
    assert largest is not None
    seconds = _SENSITIVITY_ROWS / largest.rows_per_second
    return max(_FEWEST_LAYERS, min(_MOST_LAYERS, int(_SENSITIVITY_S / seconds)))


def _notes_of(package: ModelPackage) -> tuple[str, ...]:
    """Return the notes of a product's steps, each once."""
    steps = package.manifest.provenance.get("steps", [])
    return tuple(dict.fromkeys(note for step in steps for note in step.get("notes", ())))


def _is_image(example: Tensors) -> bool:
    shapes = [array.shape[1:] for array in example.values()]
    return len(shapes) == 1 and len(shapes[0]) == 3 and min(shapes[0][1:]) >= _LEAST_PIXELS
