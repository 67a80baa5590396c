"""`headrace up` as a process: started, used, stopped and killed as people do."""

from __future__ import annotations

import json
import signal
import subprocess
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
import redis

from headrace.contracts.settings import read_stack

Start = Callable[..., subprocess.Popen[str]]


def first_document(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Read the JSON that `up --json` prints when everything answers."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line == "}\n":
            return dict(json.loads("".join(lines)))
    raise AssertionError(f"up ended: {process.communicate()[1]}")


def command_line(process: psutil.Process) -> list[str]:
    """The command line of a process; nothing of one that has ended meanwhile, as probes of the servers do."""
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:  # also a zombie's
        return []


def whole_tree(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def test_up_serves_a_model_shows_flower_and_stops_in_order(
    home: Path, double: Path, headrace_child: Start, headrace: Callable[..., Any]
) -> None:
    assert headrace("models", "add", double).code == 0
    (home / "input.json").write_text('{"x": [[1, 2, 3, 4], [0.5, 0, 0, 0]]}')
    up = headrace_child("up", "--json", "--processes", 2)
    document = first_document(up)
    assert [part["name"] for part in document["parts"]] == ["Valkey", "Postgres", "the worker", "Flower"]

    answer = headrace("predict", "double", "input.json", "--json")
    assert answer.json()["outputs"] == {"y": [[2, 4, 6, 8], [1, 0, 0, 0]]}, answer.err
    assert headrace("store", "stats", "--json").json()["rows"] == 1
    with urllib.request.urlopen(document["address"]["flower_url"] + "/workers?json=1") as page:
        assert page.status == 200
    assert not any("redis://" in " ".join(command_line(child)) for child in whole_tree(up))

    second = headrace("up", "--no-flower")
    assert second.code == 1
    assert f"already runs in {home / '.headrace'} (pid {up.pid})" in second.err

    children = whole_tree(up)
    up.send_signal(signal.SIGTERM)
    _, err = up.communicate()
    assert (up.returncode, "Traceback" in err) == (0, False), err
    assert [child for child in children if child.is_running()] == []
    assert read_stack(home / ".headrace") is None


def test_a_killed_up_leaves_nothing_running_and_the_next_one_has_the_data(
    home: Path, double: Path, headrace_child: Start, headrace: Callable[..., Any]
) -> None:
    assert headrace("models", "add", double).code == 0
    up = headrace_child("up", "--json", "--no-flower")
    address = first_document(up)["address"]
    with redis.Redis.from_url(address["broker_url"]) as client:
        client.config_set("appendfsync", "always")
        client.set("kept", "yes")
    with psycopg.connect(address["database_url"], autocommit=True) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS x")
    children = whole_tree(up)
    assert len(children) >= 4
    up.kill()
    up.communicate()
    _, alive = psutil.wait_procs(children, timeout=60)
    assert alive == []
    assert read_stack(home / ".headrace") is None

    again = headrace_child("up", "--json", "--no-flower")
    address = first_document(again)["address"]
    with redis.Redis.from_url(address["broker_url"]) as client:
        assert client.get("kept") == b"yes"
    with psycopg.connect(address["database_url"]) as connection:
        assert connection.execute("SELECT x FROM kept").fetchone() == (42,)


def test_up_ends_with_1_and_the_log_when_a_server_dies(shared_home: Path, headrace_child: Start) -> None:
    up = headrace_child("up", "--json", "--no-flower")
    pids = {part["name"]: part["pid"] for part in first_document(up)["parts"]}
    psutil.Process(pids["Valkey"]).kill()
    _, err = up.communicate()
    assert up.returncode == 1
    assert "error: Valkey is gone: it ended by SIGKILL" in err
    assert "Ready to accept connections" in err
    assert not psutil.pid_exists(pids["Postgres"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_every_way_of_stopping_is_clean(shared_home: Path, headrace_child: Start, number: signal.Signals) -> None:
    up = headrace_child("up", "--json", "--no-flower")
    first_document(up)
    children = whole_tree(up)
    up.send_signal(number)
    _, err = up.communicate()
    assert (up.returncode, "Traceback" in err) == (0, False), err
    assert [child for child in children if child.is_running()] == []
