"""Real servers for every test: one Valkey and one Postgres a session, a database and a key space of its own a test."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import onnx
import pytest
from hypothesis import settings
from onnx import TensorProto, helper
from tests.queueing.wire import Wire
from tests.sentinels import Watched, watched_servers

from headrace.cli.stack.servers import Valkey
from headrace.testing import TemporaryStack

pytest_plugins = ["headrace.testing"]

# Property tests look for wrong answers, not for slow ones: a busy machine must not fail them.
settings.register_profile("headrace", deadline=None)
settings.load_profile("headrace")

#: Fixtures that start servers: tests that use one, themselves or through other fixtures, are marked `server`. `any_url`
#: and `server_url` ask for theirs by name, when the test runs. Tests that start one without a fixture carry the mark.
SERVERS: Final = {
    "any_url",
    "headrace_stack",
    "old_redis_url",
    "own_server",
    "postgres",
    "redis62",
    "server",
    "server_url",
    "small",
    "watched",
}

#: Fixtures that start `headrace` as a process, which for most commands starts a stack: marked `slow`.
PROCESSES: Final = {"headrace_child"}

#: What trains, searches, runs each library or starts programs of its own, below `tests/`: marked `slow`.
SLOW: Final = (
    "anymodel",
    "benchmarks",
    "chaos",
    "cli/test_compress.py",
    "cli/test_score_stack.py",
    "cli/test_servers.py",
    "cli/test_stack.py",
    "cli/test_up.py",
    *(
        f"compression/{part}"
        for part in (
            "benchmarking",
            "conversion",
            "distillation",
            "export",
            "networks",
            "pruning",
            "quantization",
            "search",
            "training",
        )
    ),
    "compression/data/test_row_layout.py",
    "deploy",
    "examples",
    "lifecycle",
    "runtimes",
)


#: Folders whose files take minutes. They come first, so that files run side by side end at about the same time.
LONG: Final = ("chaos", "benchmarks", "workers", "security", "queueing", "cli", "examples", "producers")


class FailuresAtOnce:
    """Names each failure when it comes; pytest does so at the end, which in a long run is half an hour later."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        terminal = self._config.pluginmanager.getplugin("terminalreporter")
        if report.failed and terminal is not None:
            crash = getattr(report.longrepr, "reprcrash", None)
            terminal.write_line(f"\n{report.when} of {report.nodeid} failed: {crash or report.longrepr}")


def pytest_configure(config: pytest.Config) -> None:
    """Show failures at once, but in the processes of xdist, which have no terminal."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(FailuresAtOnce(config))


def _place(folder: str) -> int:
    return LONG.index(folder) if folder in LONG else len(LONG)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that `make test-fast` leaves out, and put long ones first."""
    tests = Path(__file__).parent
    items.sort(key=lambda item: _place(item.path.relative_to(tests).parts[0]))
    slow = tuple(str(tests / part) for part in SLOW)
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        if fixtures & SERVERS:
            item.add_marker("server")
        if fixtures & PROCESSES or str(item.path).startswith(slow):
            item.add_marker("slow")


def _is_ours(logger: str) -> bool:
    return logger.partition(".")[0] == "headrace"


@pytest.fixture(autouse=True)
def nobody_silences_others() -> Iterator[None]:
    """Logging is as it was after each test; else a later one would miss lines, far from who is to blame."""
    loggers = [logging.root, *(logger for name, logger in logging.root.manager.loggerDict.items() if _is_ours(name))]
    before = [(each, each.level, each.disabled, each.propagate) for each in loggers if isinstance(each, logging.Logger)]
    yield
    for logger, level, disabled, propagate in before:
        logger.setLevel(level)
        logger.disabled, logger.propagate = disabled, propagate
    silenced = logging.root.manager.disable
    logging.disable(logging.NOTSET)
    assert silenced == logging.NOTSET


@pytest.fixture(scope="session")
def server_folder(headrace_stack: TemporaryStack) -> Path:
    return headrace_stack.folder


@pytest.fixture(scope="session")
def valkey_server(headrace_stack: TemporaryStack) -> Valkey:
    return headrace_stack.valkey


@pytest.fixture
def broker_url(headrace_stack: TemporaryStack) -> Iterator[str]:
    """A Redis URL whose database is empty and this test's own."""
    with headrace_stack.key_space() as url:
        yield url


@pytest.fixture
def wire(broker_url: str) -> Iterator[Wire]:
    """A wire to the broker, which can be cut or frozen."""
    wire = Wire(int(urlsplit(broker_url).port or 0))
    yield wire
    wire.close()


@pytest.fixture
def watched() -> Iterator[Watched]:
    """Servers of this test alone, which Sentinels watch."""
    with watched_servers() as servers:
        yield servers


@pytest.fixture(scope="session")
def postgres_uri(headrace_stack: TemporaryStack) -> str:
    return headrace_stack.postgres.url


@pytest.fixture
def database_url(headrace_stack: TemporaryStack) -> Iterator[str]:
    """The URL of an empty Postgres database that is this test's own."""
    with headrace_stack.database() as url:
        yield url


@pytest.fixture
def double(tmp_path: Path) -> Path:
    """A model file that doubles `x`, FP32 [rows, 4]."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", 4]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "double", [x], [y])
    path = tmp_path / "double.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path
