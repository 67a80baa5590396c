"""Searches over recipes of which it is certain what they do, measured for real."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest
from tests.compression.slow_model import quick_goal, slow_model_source, with_stubs

from headrace.compression.data.dataset import Splits
from headrace.compression.errors import CompressionError
from headrace.compression.evaluation.max_drop import MaxDrop
from headrace.compression.recipes import catalog
from headrace.compression.recipes.runner import Source
from headrace.compression.search.search import Search, SearchResult
from headrace.compression.search.trials import ORIGINAL, Trial, Verdict
from headrace.contracts import ModelDirectory
from headrace.contracts.package.manifest import sha256_of

ALL = ("lean", "slower", "broken", "idle", "absent", "buggy")


@dataclass
class Seen:
    """A watcher that remembers."""

    began: list[str] = field(default_factory=list)
    over: list[tuple[str, bool]] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)

    def started(self, recipe: str, done: int, known: int) -> None:
        assert 0 <= done < known
        self.began.append(recipe)

    def ended(self, attempt: Trial, verdict: Verdict) -> None:
        self.over.append((attempt.recipe, verdict.pays))

    def progress(self, done: int, of: int, what: str) -> None:
        self.steps.append(what)


@dataclass
class Run:
    """A search that was carried out. before: checksums of the original's files when it began."""

    folder: Path
    source: Source
    data: Splits
    search: Search
    found: SearchResult
    seen: Seen
    before: dict[str, str]

    def attempt(self, name: str) -> Trial:
        return next(attempt for attempt in self.found.attempts if attempt.recipe == name)

    def verdict(self, name: str) -> Verdict:
        return next(v for a, v in zip(self.found.attempts, self.found.verdicts, strict=True) if a.recipe == name)


def checksums(folder: Path) -> dict[str, str]:
    return {path.name: sha256_of(path) for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module", autouse=True)
def stubs() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalog, "BLOCKS", with_stubs())
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """All the stubs, tried once."""
    folder = tmp_path_factory.mktemp("search")
    source, data = slow_model_source(folder)
    before = checksums(source.package.folder)
    seen = Seen()
    search = Search(source, data, quick_goal(source, data), folder, seen)
    return Run(folder, source, data, search, search.try_recipes(ALL), seen, before)


def test_the_faster_recipe_within_the_bound_is_chosen_and_tested(run: Run) -> None:
    assert run.found.chosen == "lean"
    winner = run.found.winner
    assert winner is not None
    assert winner.test is not None
    assert winner.measurement is not None
    assert (winner.test.drop, winner.test.rows) == (0.0, len(run.data.test))
    assert [figures.rows for figures in winner.measurement.rows] == [1, 16]
    ratio = winner.measurement.at(16).ratio
    assert ratio is not None
    assert ratio.low > 1.5


def test_a_slower_recipe_and_one_outside_the_bound_never_pay(run: Run) -> None:
    assert run.verdict("slower").reason.startswith("not faster: 0.")
    assert "at most 0.5% is allowed" in run.verdict("broken").reason
    assert [run.attempt(name).test for name in ("slower", "broken")] == [None, None]
    assert [recipe for recipe, pays in run.seen.over if pays] == ["lean"]


def test_a_recipe_that_goes_wrong_does_not_end_the_search(run: Run) -> None:
    assert [run.attempt(name).status for name in ("idle", "absent", "buggy")] == [
        "not applicable",
        "not installed",
        "failed",
    ]
    assert 'pip install "headrace[openvino]"' in run.attempt("absent").reason
    buggy = run.attempt("buggy").reason
    assert buggy == "RuntimeError: a library's own bug; attempts/buggy/traceback.txt has the traceback"
    assert "slow_model.py" in (run.search.folder / "attempts/buggy/traceback.txt").read_text()


def test_the_watcher_sees_every_recipe_and_its_steps(run: Run) -> None:
    assert run.seen.began == [*ALL, "sensitivity of layers", "lean, on the test rows"]
    assert [recipe for recipe, _ in run.seen.over] == list(ALL)
    assert {"batches of 1", "batches of 16", "measured"} <= set(run.seen.steps)
    assert any(what.startswith("sensitivity of layer") for what in run.seen.steps)


def test_the_front_has_the_original_only_where_nothing_beats_it(run: Run) -> None:
    # `lean` gives the same answers from a smaller file in less time.
    assert ORIGINAL not in run.found.front
    assert "lean" in run.found.front
    assert run.found.original_bytes == run.source.package.size_bytes


def test_layers_are_looked_into_once_and_their_figures_kept(run: Run) -> None:
    # Only the last layer's weights are no ones and zeros.
    assert len(run.found.sensitivity) == 7
    assert run.found.sensitivity_note == ""
    assert len(json.loads((run.search.folder / "sensitivity.json").read_text())) == 7


def test_what_was_found_can_be_written_and_read_again(run: Run) -> None:
    assert msgspec.json.decode(msgspec.json.encode(run.found), type=SearchResult) == run.found


def test_the_original_is_as_it_was(run: Run) -> None:
    assert checksums(run.source.package.folder) == run.before


def test_promotion_makes_the_next_version_with_the_whole_record(run: Run, tmp_path: Path) -> None:
    models = ModelDirectory(tmp_path)
    promoted = run.search.promote(run.found, models)
    assert promoted is not None
    assert (promoted.name, promoted.version) == ("made-up", "1")
    record = promoted.manifest.provenance["compression"]
    assert (record["recipe"], record["seed"], record["max_drop"], record["threads"]) == ("lean", 0, 0.005, 1)
    assert record["versions"].keys() >= {"headrace", "onnxruntime", "numpy"}
    assert set(record["data_sha256"]) == {"train", "calibration", "selection", "test"}
    assert record["original_sha256"] == run.source.package.manifest.sha256
    assert record["measurement"]["rows"][1]["ratio"]["median"] > 1
    assert record["test"]["drop"] == 0
    assert [step["step"] for step in promoted.manifest.provenance["steps"]] == ["Rewrite"]


def test_a_second_run_measures_nothing_anew_but_tries_again_what_failed(run: Run) -> None:
    files = {name: run.search.folder / "attempts" / name / "attempt.json" for name in ALL}
    before = {name: file.stat().st_mtime_ns for name, file in files.items()}
    found = Search(run.source, run.data, quick_goal(run.source, run.data), run.folder).try_recipes(ALL)
    changed = {name for name, file in files.items() if file.stat().st_mtime_ns != before[name]}
    assert changed == {"absent", "buggy"}
    assert found.chosen == "lean"
    assert found.winner == run.found.winner


def test_another_bound_goes_on_with_the_same_figures(run: Run) -> None:
    lenient = quick_goal(run.source, run.data, bound=MaxDrop.parse("10%"))
    search = Search(run.source, run.data, lenient, run.folder)
    assert search.folder == run.search.folder
    other = quick_goal(run.source, run.data, seed=1)
    assert Search(run.source, run.data, other, run.folder).folder != run.search.folder


def test_an_attempt_whose_package_was_damaged_is_made_again(run: Run) -> None:
    package = run.search.package_of(run.attempt("slower"))
    package.file.write_bytes(b"damaged")
    found = Search(run.source, run.data, quick_goal(run.source, run.data), run.folder).try_recipes(["slower"])
    assert found.attempts[0].status == "measured"
    package.verify()


def test_when_nothing_pays_nothing_is_promoted(run: Run, tmp_path: Path) -> None:
    search = Search(run.source, run.data, quick_goal(run.source, run.data), run.folder)
    found = search.try_recipes(["slower", "broken"])
    assert found.chosen == ""
    assert found.winner is None
    assert ORIGINAL in found.front
    assert search.promote(found, ModelDirectory(tmp_path)) is None
    assert list(tmp_path.iterdir()) == []


def test_a_choice_that_does_not_pay_is_not_promoted_even_if_asked_for(run: Run, tmp_path: Path) -> None:
    wanted = msgspec.structs.replace(run.found, chosen="slower")
    with pytest.raises(CompressionError, match="slower is not promoted: not faster"):
        run.search.promote(wanted, ModelDirectory(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_recipe_is_refused_before_any_is_tried(run: Run) -> None:
    seen = Seen()
    search = Search(run.source, run.data, quick_goal(run.source, run.data), run.folder, seen)
    with pytest.raises(CompressionError, match="did you mean 'lean'"):
        search.try_recipes(["slower", "leann"])
    assert seen.began == []


def test_a_network_recipe_without_a_network_does_not_apply(run: Run) -> None:
    search = Search(run.source, run.data, quick_goal(run.source, run.data), run.folder)
    (attempt,) = search.try_recipes(["prune-channels-50"]).attempts
    assert attempt.status == "not applicable"
    assert "--network" in attempt.reason


def test_a_killed_search_goes_on_where_it_was(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.compression.interrupted_search", str(tmp_path), "slower", "waits"]
    root = Path(__file__).parents[3]
    with subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        process.kill()
    (kept,) = tmp_path.glob("made-up-*/attempts/*/attempt.json")
    before = kept.stat().st_mtime_ns
    again = subprocess.run(command, cwd=root, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    attempts = {path.parent.name: path for path in tmp_path.glob("made-up-*/attempts/*/attempt.json")}
    assert set(attempts) == {"slower", "waits"}
    assert attempts["slower"].stat().st_mtime_ns == before
    assert msgspec.json.decode(attempts["waits"].read_bytes(), type=Trial).status == "not applicable"
